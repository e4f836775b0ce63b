//! Logs, and the trace context of a request's batches.

use std::fmt;

use tracing_subscriber::EnvFilter;
use uuid::Uuid;

use crate::settings::{LogFormat, LogSettings};

/// Starts logging to standard error. A second call in one process changes nothing.
pub fn init(settings: &LogSettings) {
    // The settings report an invalid filter later, so logging starts with the default.
    let filter = EnvFilter::try_new(&settings.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let _already_set = match settings.format {
        LogFormat::Text => log.with_ansi(false).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
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
    use super::TraceContext;

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
