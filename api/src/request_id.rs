//! The layer that assigns the request's id, opens its span, and writes its problem document and its
//! line in the log.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use carga_common::access::without_secrets;
use carga_common::telemetry::{TraceContext, continue_trace};
use tracing::{Instrument, Span, field};
use uuid::Uuid;

use crate::access_log::AccessLine;
use crate::paths::is_health_check;
use crate::problem::Problem;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is accepted from a client. It is part of every log line.
const MAX_ID_BYTES: usize = 128;

/// The id of a request, which the layer adds to it.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// Uses the client's id or generates one, and returns it with the answer. Adds the [`RequestId`] to
/// the request, and the [`TraceContext`] if the log, a span or the client's trace needs it.
pub(crate) async fn layer(mut request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(HEADER)
        .and_then(|id| id.to_str().ok())
        .filter(|id| !id.is_empty() && id.len() <= MAX_ID_BYTES)
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    let path = without_secrets(request.uri().path());
    let span = request_span(&request, &id, &path);
    let mut line = AccessLine::begin(&request, &path, &id);
    let parent = trace_of(request.headers());
    // Otherwise nothing shows the trace before an upload begins one of its own.
    if parent.is_some() || line.is_some() || !span.is_disabled() {
        let trace = continue_trace(&span, parent);
        if let Some(line) = &mut line {
            request = line.follow(request, trace.trace_id());
        }
        request.extensions_mut().insert(trace);
    }
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).instrument(span.clone()).await;

    if let Some(mut problem) = response.extensions_mut().remove::<Problem>() {
        problem.request_id = id.clone();
        problem.write_into(&mut response);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    span.record("status", response.status().as_u16());
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    match line {
        Some(line) => line.end_with(response),
        None => response,
    }
}

/// The span of a request. The spans of health checks have a target of their own, so that traces can
/// leave them out.
fn request_span(request: &Request, id: &str, path: &str) -> Span {
    let method = request.method();
    if is_health_check(path) {
        return tracing::debug_span!(
            target: "health_check",
            "request",
            request.id = id,
            %method,
            path,
            trace.id = field::Empty,
            status = field::Empty,
        );
    }
    tracing::info_span!(
        "request",
        request.id = id,
        %method,
        path,
        trace.id = field::Empty,
        tenant = field::Empty,
        sender = field::Empty,
        status = field::Empty,
        otel.kind = "server",
        otel.status_code = field::Empty,
    )
}

fn trace_of(headers: &HeaderMap) -> Option<TraceContext> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    TraceContext::from_headers(text("traceparent"), text("tracestate"))
}

#[cfg(test)]
mod tests;
