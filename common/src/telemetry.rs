//! Logs and traces.
//!
//! - [`init`] starts both; [`Telemetry`] ends them.
//! - [`LogFilter`] changes what is logged while the process runs.
//! - [`TraceContext`] connects a request, its spans and its messages; [`continue_trace`] makes a
//!   span a part of a trace.
//! - `json` writes the ids of a span on the top level of its lines.
//! - `asked` keeps a filter from losing events.
//! - `otlp` sends spans to a collector (feature `otlp`).

mod asked;
mod filter;
mod json;
#[cfg(feature = "otlp")]
mod otlp;
mod trace_context;

use tracing::{Dispatch, Span, field};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

use self::asked::Asked;
pub use self::filter::LogFilter;
use self::json::{JsonWithIds, SpanIds};
pub use self::trace_context::TraceContext;
use crate::settings::{LogFormat, LogSettings, TraceSettings};

/// A part of the subscriber. Each has its own filter.
type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// The logs and traces of a process.
#[derive(Debug)]
pub struct Telemetry {
    /// What is logged.
    pub log_filter: LogFilter,
    #[cfg(feature = "otlp")]
    exporter: Option<otlp::Exporter>,
}

/// Starts logging to standard error, and sending spans if the settings name a collector. `program`
/// is the name of the service in traces. Call it once, in a Tokio runtime: SIGUSR1 changes the
/// filter from then on.
pub fn init(log: &LogSettings, traces: &TraceSettings, program: &'static str) -> Telemetry {
    let (layers, telemetry, problem) = start(traces, program, log);
    let _already_set = dispatch(layers).try_init();
    if let Some(problem) = problem {
        tracing::warn!("spans are not sent: {problem}");
    }
    change_filter_on_signal(telemetry.log_filter.clone());
    telemetry
}

/// The layers for the settings, and the reason if spans cannot be sent.
fn start(
    traces: &TraceSettings,
    program: &'static str,
    log: &LogSettings,
) -> (Vec<BoxedLayer>, Telemetry, Option<String>) {
    let (layer, log_filter) = log_layer(log, std::io::stderr);
    let mut layers = vec![layer];
    #[cfg(feature = "otlp")]
    let (exporter, problem) = match otlp::Exporter::start(traces, program) {
        Some(Ok((spans, exporter))) => {
            layers.push(spans);
            (Some(exporter), None)
        }
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    #[cfg(not(feature = "otlp"))]
    let problem = {
        let _ = (&mut layers, program);
        let reason = "this build has no OTLP exporter; rebuild with --features servers";
        traces.endpoint.as_ref().map(|_| reason.to_owned())
    };
    let telemetry = Telemetry {
        log_filter,
        #[cfg(feature = "otlp")]
        exporter,
    };
    (layers, telemetry, problem)
}

impl Telemetry {
    /// Sends the spans that are still in memory, for two seconds at most. Spans that end later are
    /// lost.
    pub async fn close(self) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = self.exporter {
            exporter.close().await;
        }
    }
}

fn dispatch(layers: Vec<BoxedLayer>) -> Dispatch {
    Dispatch::new(tracing_subscriber::registry().with(layers))
}

/// Writes the events that the settings select to the writer.
fn log_layer<W>(settings: &LogSettings, writer: W) -> (BoxedLayer, LogFilter)
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let (log_filter, filter) = LogFilter::new(settings);
    let log = fmt::layer().with_writer(writer);
    let log: BoxedLayer = match settings.format {
        LogFormat::Text => log.with_ansi(false).boxed(),
        LogFormat::Json => {
            let json = JsonWithIds(fmt::format().json());
            SpanIds.and_then(log.json().event_format(json)).boxed()
        }
    };
    (log.with_filter(Asked(filter)).boxed(), log_filter)
}

/// Lets SIGUSR1 change between the filters of `CARGA_LOG` and `CARGA_LOG_ON_SIGUSR1`.
fn change_filter_on_signal(filter: LogFilter) {
    use tokio::signal::unix::{SignalKind, signal};
    let mut signals = match signal(SignalKind::user_defined1()) {
        Ok(signals) => signals,
        Err(error) => {
            tracing::warn!(%error, "SIGUSR1 cannot change the log filter");
            return;
        }
    };
    tokio::spawn(async move {
        while signals.recv().await.is_some() {
            let filter = filter.toggle();
            tracing::warn!(filter, "SIGUSR1 changed the log filter");
        }
    });
}

/// Makes a span a part of a trace, before the span is entered: of `parent`, or of a new trace.
/// Records the id of the trace in the field `trace.id` of the span. Returns the context for what
/// happens inside the span. It names the span itself if spans are sent, and otherwise the parent.
pub fn continue_trace(span: &Span, parent: Option<TraceContext>) -> TraceContext {
    #[cfg(feature = "otlp")]
    if let Some(parent) = &parent {
        otlp::set_parent(span, parent);
    }
    let context = of_span(span)
        .or(parent)
        .unwrap_or_else(TraceContext::generate);
    span.record("trace.id", field::display(context.trace_id()));
    context
}

/// The context of a span; `None` if spans are not sent.
pub fn of_span(span: &Span) -> Option<TraceContext> {
    #[cfg(feature = "otlp")]
    return otlp::context_of(span);
    #[cfg(not(feature = "otlp"))]
    {
        let _ = span;
        None
    }
}

#[cfg(test)]
mod tests;
