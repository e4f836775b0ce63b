//! The layer that assigns the request's id, opens its span, and writes its problem document.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use carga_common::access::without_secrets;
use tracing::Instrument;
use uuid::Uuid;

use crate::problem::Problem;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is accepted from a client. It is part of every log line.
const MAX_ID_BYTES: usize = 128;

/// Uses the client's id or generates one, and returns it with the answer.
pub(crate) async fn layer(request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(HEADER)
        .and_then(|id| id.to_str().ok())
        .filter(|id| !id.is_empty() && id.len() <= MAX_ID_BYTES)
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    let path = without_secrets(request.uri().path());
    let span = tracing::info_span!(
        "request",
        request.id = id,
        method = %request.method(),
        path = path.as_ref()
    );
    let mut response = next.run(request).instrument(span.clone()).await;

    if let Some(mut problem) = response.extensions_mut().remove::<Problem>() {
        problem.request_id = id.clone();
        problem.write_into(&mut response);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), "answered"));
    response
}
