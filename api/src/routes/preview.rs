//! `POST /uploads/preview`.

use axum::Json;
use axum::extract::{Query, Request, State};
use carga_intake::preview::{Preview, preview};

use crate::caller::Caller;
use crate::problem::ApiError;
use crate::receive::FileBody;
use crate::state::SharedState;

/// Reads only the beginning of the file. The rest of the body is left to `drain_body`.
pub(crate) async fn post(
    State(state): State<SharedState>,
    caller: Caller,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Json<Preview>, ApiError> {
    caller.may_send_without_dataset()?;
    let mut file = FileBody::open_beginning(&state, &caller, &query, request).await?;
    let preview = preview(&mut file.pieces, &file.options, state.settings()).await?;
    Ok(Json(preview))
}
