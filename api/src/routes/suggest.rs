//! `POST /datasets/suggest`.

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::header;
use carga_intake::options::Options;
use carga_intake::suggest::{SuggestedDataset, suggest};

use crate::form::{BodyFormat, Form};
use crate::problem::ApiError;
use crate::receive::body_pieces;
use crate::state::ApiState;

/// Reads a whole file, and proposes a definition for it.
pub(crate) async fn post(
    State(state): State<ApiState>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Json<SuggestedDataset>, ApiError> {
    let mut options = Options::unchecked(&query)?;
    state.refuse_when_stopping()?;
    let _slot = state.upload_slot().await?;
    let (parts, body) = request.into_parts();
    let body_format = BodyFormat::of(&parts.headers, &mut options)?;
    let settings = state.settings();
    let pieces = body_pieces(&state.intake, body);
    let suggested = match body_format {
        BodyFormat::Raw => suggest(pieces, &options, settings).await?,
        BodyFormat::Form => {
            let mut form = Form::open(parts.headers.get(header::CONTENT_TYPE), pieces).await?;
            let file = form.file(&mut options).await?;
            let suggested = suggest(form.pieces(file), &options, settings).await?;
            form.end().await?;
            suggested
        }
    };
    Ok(Json(suggested))
}
