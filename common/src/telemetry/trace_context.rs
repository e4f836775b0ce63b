//! The W3C trace context of a request, of a span and of a message.

use std::fmt;

use uuid::Uuid;

/// The longest `tracestate` that is kept (W3C Trace Context, section 3.3.1.5).
const MAX_STATE_BYTES: usize = 512;

/// A W3C trace context (`traceparent`), so that one trace covers a request from curl to COMMIT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    parent: String,
    /// The header `tracestate`; empty if there is none. Messages do not carry it.
    state: String,
}

impl TraceContext {
    /// The context in a header or in a message; `None` if it is invalid.
    pub fn parse(traceparent: &str) -> Option<Self> {
        is_traceparent(traceparent).then(|| Self {
            parent: traceparent.to_owned(),
            state: String::new(),
        })
    }

    /// The client's context in the headers `traceparent` and `tracestate`; `None` if the first one
    /// is missing or invalid. A `tracestate` that is too long is dropped.
    pub fn from_headers(traceparent: Option<&str>, tracestate: Option<&str>) -> Option<Self> {
        let state = tracestate.filter(|state| state.len() <= MAX_STATE_BYTES);
        Some(Self {
            state: state.unwrap_or_default().to_owned(),
            ..Self::parse(traceparent?)?
        })
    }

    /// The context of a new trace.
    pub fn generate() -> Self {
        let trace = Uuid::new_v4().simple();
        let (span, _) = Uuid::new_v4().as_u64_pair();
        Self {
            parent: format!("00-{trace}-{span:016x}-01"),
            state: String::new(),
        }
    }

    /// The value of the header `traceparent`.
    pub fn as_str(&self) -> &str {
        &self.parent
    }

    /// The value of the header `tracestate`; empty if there is none.
    pub fn state(&self) -> &str {
        &self.state
    }

    /// The id of the trace: 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        // The constructors have checked the lengths.
        self.parent.get(3..35).unwrap_or_default()
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parent)
    }
}

/// `version-traceid-parentid-flags` in lower-case hex, of 2, 32, 16 and 2 digits. The version `ff`
/// and ids of zeros are invalid (W3C Trace Context, section 3.2.2).
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths = parts.iter().map(|part| part.len());
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
    let is_zero = |part: &&str| part.bytes().all(|byte| byte == b'0');
    lengths.eq([2, 32, 16, 2])
        && text.bytes().all(is_digit)
        && parts[0] != "ff"
        && !parts[1..3].iter().any(is_zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_traceparent_is_kept_and_an_invalid_one_is_refused() {
        let context = TraceContext::parse(KNOWN).unwrap();
        assert_eq!(context.as_str(), KNOWN);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        for other in [
            "",
            "nonsense",
            "00-xx-yy-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_generated_context_is_valid_and_new() {
        let (one, other) = (TraceContext::generate(), TraceContext::generate());
        assert_eq!(TraceContext::parse(one.as_str()).as_ref(), Some(&one));
        assert_ne!(one.trace_id(), other.trace_id());
    }

    #[test]
    fn a_tracestate_is_kept_only_with_a_valid_traceparent_and_up_to_512_bytes() {
        let of = TraceContext::from_headers;
        assert_eq!(of(Some(KNOWN), Some("a=1")).unwrap().state(), "a=1");
        assert_eq!(of(Some(KNOWN), None).unwrap().state(), "");
        let long = format!("a={}", "x".repeat(511));
        assert_eq!(of(Some(KNOWN), Some(&long)).unwrap().state(), "");
        assert_eq!(of(None, Some("a=1")), None);
        assert_eq!(of(Some("nonsense"), Some("a=1")), None);
    }
}
