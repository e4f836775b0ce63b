use std::fmt;
use std::sync::Mutex;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::routing::get;
use carga_common::sync::lock;
use futures::StreamExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::*;

/// The events of a level and the less verbose ones, as texts.
#[derive(Debug, Clone)]
struct Log {
    most_verbose: Level,
    lines: Arc<Mutex<Vec<String>>>,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!("{field}={value:?} "));
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.most_verbose
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{} ", event.metadata().level()));
        event.record(&mut line);
        lock(&self.lines).push(line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Sends a request with a body of five bytes, and answers it with seven bytes.
async fn lines_of(most_verbose: Level, uri: &str) -> Vec<String> {
    let request = Request::post(uri).body(Body::from("12345")).unwrap();
    lines_of_request(most_verbose, request).await
}

async fn lines_of_request(most_verbose: Level, request: Request) -> Vec<String> {
    let mut response = Response::new(Body::from("1234567"));
    *response.status_mut() = StatusCode::ACCEPTED;
    response.extensions_mut().insert(Caller::unlimited());
    lines_of_exchange(most_verbose, request, response).await
}

async fn lines_of_exchange(
    most_verbose: Level,
    request: Request,
    response: Response,
) -> Vec<String> {
    let log = Log {
        most_verbose,
        lines: Arc::default(),
    };
    let _guard = tracing::subscriber::set_default(log.clone());
    let path = request.uri().path().to_owned();
    let mut line = AccessLine::begin(&request, &path, "r-1");
    let request = match &mut line {
        Some(line) => line.follow(request, "4bf9"),
        None => request,
    };
    let mut body = request.into_body().into_data_stream();
    while body.next().await.is_some() {}
    let response = match line {
        Some(line) => line.end_with(response),
        None => response,
    };
    assert!(lock(&log.lines).is_empty());
    let mut body = response.into_body().into_data_stream();
    while body.next().await.is_some() {}
    drop(body);
    lock(&log.lines).clone()
}

#[tokio::test]
async fn a_line_has_the_exchange_and_no_value_of_the_query() {
    let lines = lines_of(Level::INFO, "/uploads?filename=salaries.csv&sha256=s3cret").await;
    let [line] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    for part in [
        "INFO ",
        "method=POST ",
        "path=\"/uploads\" ",
        "status=202 ",
        "bytes_in=5 ",
        "bytes_out=7 ",
        "request.id=\"r-1\" ",
        "tenant=\"default\" ",
        "trace.id=\"4bf9\" ",
        "duration_ms=",
    ] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
    assert!(
        !line.contains("s3cret") && !line.contains("salaries"),
        "{line}"
    );
}

#[tokio::test]
async fn a_request_whose_client_leaves_has_a_line_without_a_status() {
    let log = Log {
        most_verbose: Level::INFO,
        lines: Arc::default(),
    };
    let _guard = tracing::subscriber::set_default(log.clone());
    let app = Router::new().route("/uploads", get(std::future::pending::<()>));
    let app = app.layer(from_fn(crate::request_id::layer));
    let request = Request::get("/uploads").body(Body::empty()).unwrap();
    let mut answering = Box::pin(TowerToHyperService::new(app).call(request));
    assert!(futures::poll!(&mut answering).is_pending());
    assert!(lock(&log.lines).is_empty());
    drop(answering);
    let lines = lock(&log.lines).clone();
    let [line] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    assert!(line.contains("path=\"/uploads\" "), "{line}");
    assert!(
        line.contains("duration_ms=") && !line.contains("status="),
        "{line}"
    );
}

#[tokio::test]
async fn a_health_check_has_a_line_only_at_the_level_debug() {
    for path in ["/livez", "/readyz"] {
        assert!(lines_of(Level::INFO, path).await.is_empty());
        let lines = lines_of(Level::DEBUG, path).await;
        assert!(
            lines.len() == 1 && lines[0].starts_with("DEBUG "),
            "{lines:?}"
        );
    }
}

#[tokio::test]
async fn a_preflight_request_has_a_line_only_at_the_level_debug() {
    let preflight = || {
        let request = Request::options("/uploads").header("access-control-request-method", "POST");
        request.body(Body::empty()).unwrap()
    };
    assert!(lines_of_request(Level::INFO, preflight()).await.is_empty());
    let lines = lines_of_request(Level::DEBUG, preflight()).await;
    assert!(
        lines.len() == 1 && lines[0].starts_with("DEBUG "),
        "{lines:?}"
    );
    let other = Request::options("/uploads").body(Body::empty()).unwrap();
    assert_eq!(lines_of_request(Level::INFO, other).await.len(), 1);
}

#[tokio::test]
async fn a_request_that_a_limit_has_refused_has_a_line_only_at_the_level_debug() {
    let lines = async |most_verbose| {
        let request = Request::get("/uploads").body(Body::empty()).unwrap();
        let mut refused = Response::new(Body::empty());
        *refused.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        refused.extensions_mut().insert(RefusedByLimit);
        lines_of_exchange(most_verbose, request, refused).await
    };
    assert!(lines(Level::INFO).await.is_empty());
    let lines = lines(Level::DEBUG).await;
    assert!(
        lines.len() == 1 && lines[0].starts_with("DEBUG ") && lines[0].contains("status=429"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_filter_without_the_level_info_has_no_lines() {
    assert!(lines_of(Level::WARN, "/uploads").await.is_empty());
}
