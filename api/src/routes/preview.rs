//! `POST /uploads/preview`.

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::header;

use super::send::{refuse_when_stopping, slot};
use crate::intake::form::{Encoding, Form};
use crate::intake::options::Options;
use crate::intake::preview::look;
use crate::intake::{Preview, body};
use crate::problem::ApiError;
use crate::state::ApiState;

/// Reads no more of the file than it shows; the rest of the body is left over.
pub(crate) async fn post(
    State(state): State<ApiState>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Json<Preview>, ApiError> {
    let mut options = Options::from_query(&query)?;
    refuse_when_stopping(&state)?;
    let _slot = slot(&state)?;
    let (parts, body) = request.into_parts();
    let encoding = Encoding::of(&parts.headers)?;
    let settings = &state.settings;
    let pieces = body::of_request(body, settings.body_idle, state.out_of_time.clone());
    let preview = match encoding {
        Encoding::Raw(charset) => {
            options.default_encoding(charset);
            look(pieces, &options, settings).await?
        }
        Encoding::Form => {
            let mut form = Form::open(parts.headers.get(header::CONTENT_TYPE), pieces).await?;
            let file = form.file(&mut options).await?;
            look(form.pieces(file), &options, settings).await?
        }
    };
    Ok(Json(preview))
}
