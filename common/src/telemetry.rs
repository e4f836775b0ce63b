//! Logs, and the trace context of a request's batches.

use std::fmt;

use tracing::{Dispatch, Level, Metadata};
use tracing_subscriber::filter::{LevelFilter, Targets, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use uuid::Uuid;

use crate::settings::{LogFormat, LogSettings};

/// Starts logging to standard error. A second call in one process changes nothing.
pub fn init(settings: &LogSettings) {
    let _already_set = dispatch(settings, std::io::stderr).try_init();
}

/// Sends the events that the settings select to the writer.
fn dispatch<W>(settings: &LogSettings, writer: W) -> Dispatch
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    // The settings report an invalid filter later, so logging starts with the default.
    let selected: Targets = settings
        .filter
        .parse()
        .unwrap_or_else(|_| Targets::new().with_default(Level::INFO));
    let without_bodies = filter_fn(|event| !shows_message_bodies(event));
    let log = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(writer);
    match settings.format {
        LogFormat::Text => {
            let log = log.with_ansi(false).finish();
            Dispatch::new(log.with(selected).with(without_bodies))
        }
        LogFormat::Json => {
            let log = log.json().finish();
            Dispatch::new(log.with(selected).with(without_bodies))
        }
    }
}

/// Whether the event shows the bodies of messages, which contain rows. RabbitMQ's client shows each
/// returned message in a warning, and all frames at the level `trace`.
fn shows_message_bodies(event: &Metadata<'_>) -> bool {
    let target = event.target();
    let shows_frames = target.starts_with("lapin::") && *event.level() == Level::TRACE;
    target == "lapin::returned_messages" || shows_frames
}

/// A W3C trace context (`traceparent`), so that one trace covers a request from curl to COMMIT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext(String);

impl TraceContext {
    /// Continues the client's trace, or starts one if the header is missing or invalid.
    pub fn from_header(traceparent: Option<&str>) -> Self {
        match traceparent {
            Some(text) if is_traceparent(text) => Self(text.to_owned()),
            _ => {
                let trace = Uuid::new_v4().simple();
                let (span, _) = Uuid::new_v4().as_u64_pair();
                Self(format!("00-{trace}-{span:016x}-01"))
            }
        }
    }

    /// The header's value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `version-traceid-parentid-flags` in lower-case hex, of 2, 32, 16 and 2 digits (W3C Trace
/// Context, section 3.2).
fn is_traceparent(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([2, 32, 16, 2])
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_bodies_are_not_logged_whatever_the_filter_says() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let settings = LogSettings {
            filter: "trace,lapin::returned_messages=trace".to_owned(),
            format: LogFormat::Text,
        };
        let dispatch = dispatch(&settings, log.reopen().unwrap());
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::warn!(target: "lapin::returned_messages", body = "a row", "returned");
            tracing::trace!(target: "lapin::channels", frame = "a row", "will handle frame");
            tracing::error!(target: "lapin::channels", "connection error");
        });
        let log = std::fs::read_to_string(log.path()).unwrap();
        assert!(!log.contains("a row"), "{log}");
        assert!(log.contains("connection error"), "{log}");
    }

    #[test]
    fn a_filter_names_a_level_for_each_target() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let log = tempfile::NamedTempFile::new().unwrap();
            let settings = LogSettings {
                filter: "warn,carga_worker=debug".to_owned(),
                format,
            };
            let dispatch = dispatch(&settings, log.reopen().unwrap());
            tracing::dispatcher::with_default(&dispatch, || {
                tracing::debug!(target: "carga_worker::merge", "first");
                tracing::trace!(target: "carga_worker::merge", "second");
                tracing::info!(target: "sqlx::query", "third");
                tracing::warn!(target: "sqlx::query", "fourth");
            });
            let log = std::fs::read_to_string(log.path()).unwrap();
            let shown = ["first", "second", "third", "fourth"].map(|event| log.contains(event));
            assert_eq!(shown, [true, false, false, true], "{log}");
        }
    }

    #[test]
    fn a_valid_traceparent_is_kept_and_an_invalid_one_replaced() {
        let known = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(TraceContext::from_header(Some(known)).as_str(), known);
        for other in [None, Some("nonsense"), Some("00-xx-yy-01")] {
            let fresh = TraceContext::from_header(other);
            assert_eq!(TraceContext::from_header(Some(fresh.as_str())), fresh);
        }
    }
}
