//! `GET /metrics`.

use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use carga_common::metrics::MEDIA_TYPE;

use crate::problem::ApiError;
use crate::query::no_options;
use crate::state::SharedState;
use crate::unmatched::not_found;

/// Shows the metrics of this process. If they have a listener of their own, they are only there.
pub(crate) async fn get(
    State(state): State<SharedState>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let Some(exposition) = &state.exposition else {
        return Err(not_found().await);
    };
    no_options(&query)?;
    let headers = [
        (header::CONTENT_TYPE, MEDIA_TYPE),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, exposition.render().await).into_response())
}
