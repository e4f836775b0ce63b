use std::fmt;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::routing::get;
use carga_common::sync::lock;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::*;

/// The fields of spans as texts; nothing if no span is enabled.
#[derive(Debug, Clone, Default)]
struct Fields {
    has_spans: bool,
    recorded: Arc<Mutex<Vec<String>>>,
}

impl Visit for &Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        lock(&self.recorded).push(format!("{field}={value:?}"));
    }
}

impl Subscriber for Fields {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        self.has_spans
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        attributes.record(&mut &*self);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut &*self);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

async fn trace_if_any(request: Request) -> String {
    let trace = request.extensions().get::<TraceContext>();
    trace.map_or_else(String::new, TraceContext::to_string)
}

/// The body of the answer to a request.
async fn answer(request: Request) -> String {
    let app = Router::new()
        .route("/uploads", get(trace_if_any))
        .route("/broken", get(StatusCode::INTERNAL_SERVER_ERROR))
        .layer(from_fn(layer));
    let answered = TowerToHyperService::new(app).call(request).await.unwrap();
    let body = axum::body::to_bytes(answered.into_body(), 1000).await;
    String::from_utf8(body.unwrap().to_vec()).unwrap()
}

fn request(path: &str) -> Request {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn the_span_is_that_of_a_server_and_has_an_error_only_after_a_5xx() {
    for (path, has_error) in [("/uploads", false), ("/missing", false), ("/broken", true)] {
        let fields = Fields {
            has_spans: true,
            ..Fields::default()
        };
        let _guard = tracing::subscriber::set_default(fields.clone());
        answer(request(path)).await;
        let recorded = lock(&fields.recorded).clone();
        let has = |field: &str| recorded.iter().any(|recorded| recorded == field);
        assert!(has("otel.kind=\"server\""), "{recorded:?}");
        assert_eq!(has("otel.status_code=\"ERROR\""), has_error, "{recorded:?}");
    }
}

#[tokio::test]
async fn a_trace_begins_only_if_something_shows_it() {
    const KNOWN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let _guard = tracing::subscriber::set_default(Fields::default());
    assert_eq!(answer(request("/uploads")).await, "");
    let mut known = request("/uploads");
    let header = HeaderValue::from_static(KNOWN);
    known.headers_mut().insert("traceparent", header);
    assert_eq!(answer(known).await, KNOWN);
    let _guard = tracing::subscriber::set_default(Fields {
        has_spans: true,
        ..Fields::default()
    });
    let begun = answer(request("/uploads")).await;
    assert!(TraceContext::parse(&begun).is_some(), "{begun}");
}
