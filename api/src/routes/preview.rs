//! `POST /uploads/preview`.

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::header;
use carga_intake::options::Options;
use carga_intake::preview::{Preview, preview};

use crate::form::{BodyFormat, Form};
use crate::problem::ApiError;
use crate::receive::body_pieces;
use crate::state::ApiState;

/// Reads only the beginning of the file. The rest of the body is left to `drain_body`.
pub(crate) async fn post(
    State(state): State<ApiState>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Json<Preview>, ApiError> {
    let mut options = Options::unchecked(&query)?;
    state.refuse_when_stopping()?;
    let _slot = state.upload_slot().await?;
    let (parts, body) = request.into_parts();
    let body_format = BodyFormat::of(&parts.headers, &mut options)?;
    let settings = state.settings();
    let pieces = body_pieces(&state.intake, body);
    let preview = match body_format {
        BodyFormat::Raw => preview(pieces, &options, settings).await?,
        BodyFormat::Form => {
            let mut form = Form::open(parts.headers.get(header::CONTENT_TYPE), pieces).await?;
            let file = form.file(&mut options).await?;
            preview(form.pieces(file), &options, settings).await?
        }
    };
    Ok(Json(preview))
}
