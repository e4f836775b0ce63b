//! `POST /datasets/suggest`.

use axum::Json;
use axum::extract::{Query, Request, State};
use carga_intake::suggest::{SuggestedDataset, suggest};

use crate::caller::Caller;
use crate::problem::ApiError;
use crate::receive::FileBody;
use crate::state::SharedState;

/// Reads a whole file, and proposes a definition for it.
pub(crate) async fn post(
    State(state): State<SharedState>,
    caller: Caller,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Json<SuggestedDataset>, ApiError> {
    caller.may_send_without_dataset()?;
    let mut file = FileBody::open(&state, &caller, &query, request).await?;
    let settings = state.settings();
    let limit = caller.size_limit(settings);
    let suggested = suggest(&mut file.pieces, &file.options, settings, limit).await?;
    file.end().await?;
    Ok(Json(suggested))
}
