//! A collector of spans: OTLP over HTTP, as far as one test needs it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A collector that keeps all spans in memory. Dropping it stops it.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    spans: Spans,
    task: JoinHandle<()>,
}

type Spans = Arc<Mutex<Vec<SentSpan>>>;

/// A span as a program has sent it. The ids are in lower-case hex.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SentSpan {
    /// The name of the service, such as `carga-api`.
    pub service: String,
    pub name: String,
    pub trace_id: String,
    pub span_id: String,
    /// Empty for the first span of a trace.
    pub parent_id: String,
    /// Whether the span is the server's side of a request.
    pub is_server: bool,
    /// Nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    pub attributes: BTreeMap<String, String>,
}

impl Collector {
    /// Starts a collector on a free port, in the runtime of the test.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, spans) = (listener.local_addr()?, Spans::default());
        let kept = Arc::clone(&spans);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&kept)));
            }
        });
        Ok(Self {
            address,
            spans,
            task,
        })
    }

    /// The value for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans that have arrived so far.
    pub fn spans(&self) -> Vec<SentSpan> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, spans: Spans) {
    let answer = service_fn(|request| answer(request, Arc::clone(&spans)));
    // A program that is killed cuts its connection.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    spans: Spans,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    if request.uri().path() != "/v1/traces" {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    let body = request.into_body().collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    match ExportTraceServiceRequest::decode(body) {
        Ok(sent) => spans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(read(sent)),
        Err(_) => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(response)
}

fn read(sent: ExportTraceServiceRequest) -> Vec<SentSpan> {
    let mut spans = Vec::new();
    for of_resource in sent.resource_spans {
        let service = service(of_resource.resource);
        let of_scopes = of_resource.scope_spans.into_iter();
        let of_service = of_scopes.flat_map(|of_scope| of_scope.spans);
        spans.extend(of_service.map(|span| sent_span(&service, span)));
    }
    spans
}

fn service(resource: Option<Resource>) -> String {
    let attributes = resource.map(|resource| resource.attributes);
    let mut attributes = texts(attributes.unwrap_or_default());
    attributes.remove("service.name").unwrap_or_default()
}

fn sent_span(service: &str, span: Span) -> SentSpan {
    SentSpan {
        is_server: span.kind() == SpanKind::Server,
        service: service.to_owned(),
        name: span.name,
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        parent_id: hex(&span.parent_span_id),
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        attributes: texts(span.attributes),
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |KeyValue { key, value, .. }| {
        let value = match value.and_then(|value| value.value)? {
            Value::StringValue(text) => text,
            Value::IntValue(number) => number.to_string(),
            Value::BoolValue(flag) => flag.to_string(),
            Value::DoubleValue(number) => number.to_string(),
            _ => return None,
        };
        Some((key, value))
    };
    attributes.into_iter().filter_map(text).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
