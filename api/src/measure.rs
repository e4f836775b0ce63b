//! The outermost layer: counts and times the requests.
//!
//! The labels are the template of the route, and neither the path nor the query, so that ids and
//! names make no series.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use carga_common::metrics::table::{HTTP_REQUEST_DURATION, HTTP_REQUESTS, HTTP_REQUESTS_IN_FLIGHT};
use carga_common::metrics::{Gauge, SharedString};

/// The route of a request whose path is unknown.
const UNMATCHED: &str = "unmatched";

/// The status of a request whose client disconnected before its answer.
const DISCONNECTED: &str = "disconnected";

/// The handles of the layer.
#[derive(Debug, Clone)]
pub(crate) struct HttpMetrics {
    in_flight: Gauge,
}

impl HttpMetrics {
    pub(crate) fn new() -> Self {
        Self {
            in_flight: HTTP_REQUESTS_IN_FLIGHT.gauge(),
        }
    }
}

/// Counts a request with the status of its answer.
pub(crate) async fn layer(
    State(metrics): State<HttpMetrics>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or(UNMATCHED, MatchedPath::as_str);
    let mut running = RunningRequest::begin(metrics, method_name(request.method()), route);
    let response = next.run(request).await;
    running.status = Some(response.status());
    response
}

/// The name of a method that some route has; `other` for methods that a client has made up.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// A request whose answer has not begun. It is counted when it is dropped, because hyper drops the
/// request of a client that disconnects.
struct RunningRequest {
    metrics: HttpMetrics,
    method: &'static str,
    route: Arc<str>,
    started: Instant,
    status: Option<StatusCode>,
}

impl RunningRequest {
    fn begin(metrics: HttpMetrics, method: &'static str, route: &str) -> Self {
        metrics.in_flight.increment(1);
        Self {
            metrics,
            method,
            route: route.into(),
            started: Instant::now(),
            status: None,
        }
    }
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        self.metrics.in_flight.decrement(1);
        let status = self.status.map(|status| status.as_str().to_owned());
        let status = status.map_or(SharedString::from(DISCONNECTED), SharedString::from);
        let (method, route) = (self.method.into(), SharedString::from(self.route.clone()));
        let duration =
            HTTP_REQUEST_DURATION.histogram_of([SharedString::from(self.method), route.clone()]);
        duration.record(self.started.elapsed());
        HTTP_REQUESTS
            .counter_of([method, route, status])
            .increment(1);
    }
}

#[cfg(test)]
mod tests {
    use carga_common::metrics::local::LocalRecorder;

    use super::*;

    #[test]
    fn a_request_counts_once_with_its_status_and_is_in_flight_until_then() {
        let recorder = LocalRecorder::new().unwrap();
        let in_flight = || recorder.value("carga_http_requests_in_flight");
        recorder.run(|| {
            let metrics = HttpMetrics::new();
            let begin = || RunningRequest::begin(metrics.clone(), "GET", "/uploads/{id}");
            let (mut answered, abandoned) = (begin(), begin());
            assert_eq!(in_flight(), Some(2.0));
            answered.status = Some(StatusCode::NOT_FOUND);
            drop((answered, abandoned));
        });
        assert_eq!(in_flight(), Some(0.0));
        for status in ["404", "disconnected"] {
            let series = format!(
                "carga_http_requests_total{{method=\"GET\",route=\"/uploads/{{id}}\",status=\"{status}\"}}"
            );
            assert_eq!(recorder.value(&series), Some(1.0), "{series}");
        }
    }

    #[test]
    fn a_method_that_no_route_has_is_other() {
        let made_up = Method::from_bytes(b"BREW").unwrap();
        assert_eq!(method_name(&made_up), "other");
        assert_eq!(method_name(&Method::PUT), "PUT");
    }
}
