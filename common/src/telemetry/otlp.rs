//! Sends spans to a collector, as OTLP over HTTP.
//!
//! Ended spans wait in a bounded queue of the SDK, and a thread of the SDK sends them. If the
//! collector is away, the queue overflows and spans are lost; nothing else waits for it.

mod client;

use std::str::FromStr;
use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, Key, Value};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, Metadata, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Layer;

use self::client::Client;
use super::asked::Asked;
use super::{BoxedLayer, TraceContext};
use crate::settings::TraceSettings;

/// How long a process that stops may take to send its last spans.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The fault of a variable that only the SDK reads. Its own text may contain a secret.
const REFUSED: &str = "the OpenTelemetry SDK does not accept one of the variables OTEL_EXPORTER_OTLP_…; this build sends spans without compression";

/// What sends the spans of this process.
#[derive(Debug)]
pub(super) struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// Starts to send spans, if the settings name a collector. The SDK itself reads the `OTEL_…`
    /// variables that the settings do not have.
    pub(super) fn start(
        settings: &TraceSettings,
        program: &'static str,
    ) -> Option<Result<(BoxedLayer, Self), String>> {
        let endpoint = settings.endpoint.as_ref()?;
        let exporter = Client::new(endpoint.to_string()).and_then(|client| {
            let exporter = SpanExporter::builder().with_http().with_http_client(client);
            let exporter = exporter.with_endpoint(endpoint.expose());
            exporter.build().map_err(|_| REFUSED.to_owned())
        });
        Some(exporter.map(|exporter| {
            let provider = SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_resource(resource(settings.service.clone(), program))
                .build();
            (layer(&provider), Self { provider })
        }))
    }

    /// Sends the spans that wait, within [`CLOSE_TIMEOUT`].
    pub(super) async fn close(self) {
        // The SDK blocks its caller. While all threads for such calls are busy, it does not begin.
        let closing = tokio::task::spawn_blocking(move || {
            self.provider.shutdown_with_timeout(CLOSE_TIMEOUT).is_ok()
        });
        let closed = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
        if !matches!(closed, Ok(Ok(true))) {
            tracing::warn!("the last spans were not sent");
        }
    }
}

/// What a collector learns about this process. Without a name in the settings or in
/// `OTEL_RESOURCE_ATTRIBUTES`, the service has the name of the program.
fn resource(service: Option<String>, program: &'static str) -> Resource {
    let detected = Resource::builder().build();
    let name = detected.get(&Key::from_static_str("service.name"));
    let is_unknown = |name: Value| name.as_str().starts_with("unknown_service");
    match service {
        Some(service) => Resource::builder().with_service_name(service).build(),
        None if name.is_none_or(is_unknown) => {
            Resource::builder().with_service_name(program).build()
        }
        None => detected,
    }
}

fn layer(provider: &SdkTracerProvider) -> BoxedLayer {
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("carga"))
        // The spans of `tracing` are the only ones, so their own relations are enough.
        .with_context_activation(false)
        .with_tracked_inactivity(false)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_filter(Asked(filter_fn(is_sent)))
        .boxed()
}

/// Whether a span or an event is sent: Carga's own spans, and the warnings and errors in them.
/// Other crates may put bytes of a file into theirs.
fn is_sent(metadata: &Metadata<'_>) -> bool {
    let most_verbose = match metadata.is_span() {
        true => Level::DEBUG,
        false => Level::WARN,
    };
    metadata.target().starts_with("carga") && *metadata.level() <= most_verbose
}

/// Makes a span a child of the remote span in this context. Does nothing if spans are not sent.
pub(super) fn set_parent(span: &Span, parent: &TraceContext) {
    let Some(parent) = remote_span(parent) else {
        return;
    };
    // Fails if spans are not sent, or if the span is filtered out.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent));
}

fn remote_span(context: &TraceContext) -> Option<SpanContext> {
    let mut parts = context.as_str().split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
    // The other flags have no meaning yet, and are not passed on.
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    let state = TraceState::from_str(context.state()).unwrap_or_default();
    Some(SpanContext::new(trace, span, flags, true, state))
}

/// The context of a span that is sent, or that the sampler has left out.
pub(super) fn context_of(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let span = context.span();
    let span = span.span_context();
    // Without an exporter, the ids are zeros.
    if !span.is_valid() {
        return None;
    }
    let (trace, id) = (span.trace_id(), span.span_id());
    let traceparent = format!("00-{trace}-{id}-{:02x}", span.trace_flags());
    TraceContext::parse(&traceparent)
}

#[cfg(test)]
mod tests;
