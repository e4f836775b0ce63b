//! Counts and times the calls of the ports.
//!
//! The name of an operation is a constant in the code (`store.seal`), so the number of series does
//! not grow with the data.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::Instant;

use super::installed::is_installed;
use super::table::{PORT_CALL_DURATION, PORT_CALLS};
use super::{Counter, Histogram};
use crate::error::{ErrorKind, PortError, PortResult};

static OPERATIONS: LazyLock<Operations> = LazyLock::new(Operations::default);

/// Runs one call of a port, and counts it with its outcome and its duration.
pub(crate) async fn measured<T>(
    operation: &'static str,
    call: impl Future<Output = PortResult<T>>,
) -> PortResult<T> {
    let running = begin(operation);
    running.end(call.await)
}

/// Begins to measure a call of a port (`<port>.<operation>`). A call that is dropped before its end
/// counts as cancelled.
pub(crate) fn begin(operation: &'static str) -> RunningCall {
    match is_installed() {
        true => OPERATIONS.begin(operation),
        false => RunningCall(None),
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Ok,
    Failed(ErrorKind),
    Cancelled,
}

impl Outcome {
    const ALL: [Self; 9] = [
        Self::Ok,
        Self::Failed(ErrorKind::Unavailable),
        Self::Failed(ErrorKind::Misconfigured),
        Self::Failed(ErrorKind::Full),
        Self::Failed(ErrorKind::Invalid),
        Self::Failed(ErrorKind::Conflict),
        Self::Failed(ErrorKind::NotFound),
        Self::Failed(ErrorKind::Internal),
        Self::Cancelled,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed(ErrorKind::Unavailable) => "unavailable",
            Self::Failed(ErrorKind::Misconfigured) => "misconfigured",
            Self::Failed(ErrorKind::Full) => "full",
            Self::Failed(ErrorKind::Invalid) => "invalid",
            Self::Failed(ErrorKind::Conflict) => "conflict",
            Self::Failed(ErrorKind::NotFound) => "not_found",
            Self::Failed(ErrorKind::Internal) => "internal",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The series of one operation. All of them exist from its first call on, so that a first error is
/// seen as an increase.
#[derive(Debug)]
struct Operation {
    calls: [(Outcome, Counter); Outcome::ALL.len()],
    duration: Histogram,
}

impl Operation {
    fn new(name: &'static str) -> Self {
        let (port, operation) = name.split_once('.').unwrap_or(("other", name));
        let calls = |outcome: Outcome| PORT_CALLS.counter_of([port, operation, outcome.name()]);
        Self {
            calls: Outcome::ALL.map(|outcome| (outcome, calls(outcome))),
            duration: PORT_CALL_DURATION.histogram_of([port, operation]),
        }
    }

    fn count(&self, outcome: Outcome, started: Instant) {
        if let Some((_, calls)) = self.calls.iter().find(|(known, _)| *known == outcome) {
            calls.increment(1);
        }
        self.duration.record(started.elapsed());
    }
}

/// The operations that were called so far.
#[derive(Debug, Default)]
struct Operations(RwLock<HashMap<&'static str, Arc<Operation>>>);

impl Operations {
    fn begin(&self, name: &'static str) -> RunningCall {
        RunningCall(Some(Running {
            operation: self.operation(name),
            started: Instant::now(),
            outcome: Outcome::Cancelled,
        }))
    }

    fn operation(&self, name: &'static str) -> Arc<Operation> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(operation) = known.get(name) {
            return Arc::clone(operation);
        }
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let operation = known
            .entry(name)
            .or_insert_with(|| Arc::new(Operation::new(name)));
        Arc::clone(operation)
    }
}

/// A call that is being measured; nothing in a process without metrics.
#[derive(Debug)]
#[must_use]
pub(crate) struct RunningCall(Option<Running>);

#[derive(Debug)]
struct Running {
    operation: Arc<Operation>,
    started: Instant,
    outcome: Outcome,
}

impl RunningCall {
    /// Counts the call with its outcome, which it returns.
    pub(crate) fn end<T>(mut self, outcome: PortResult<T>) -> PortResult<T> {
        if let Some(running) = &mut self.0 {
            let kind = outcome.as_ref().err().map(PortError::kind);
            running.outcome = kind.map_or(Outcome::Ok, Outcome::Failed);
        }
        outcome
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.operation.count(self.outcome, self.started);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::local::LocalRecorder;

    fn calls(recorder: &LocalRecorder, outcome: &str) -> Option<f64> {
        recorder.value(&format!(
            "carga_port_calls_total{{port=\"store\",operation=\"seal\",outcome=\"{outcome}\"}}"
        ))
    }

    #[test]
    fn a_call_counts_with_its_outcome_and_a_dropped_call_as_cancelled() {
        let recorder = LocalRecorder::new().unwrap();
        recorder.run(|| {
            let operations = Operations::default();
            let begin = || operations.begin("store.seal");
            assert!(begin().end(Ok(())).is_ok());
            let away = PortError::unavailable("store.seal", "the store is away");
            assert!(begin().end::<()>(Err(away)).is_err());
            let full = PortError::new(ErrorKind::Full, "store.seal", "no room");
            assert!(begin().end::<()>(Err(full)).is_err());
            drop(begin());
        });
        for outcome in ["ok", "unavailable", "full", "cancelled"] {
            assert_eq!(calls(&recorder, outcome), Some(1.0), "{outcome}");
        }
        for outcome in [
            "misconfigured",
            "invalid",
            "conflict",
            "not_found",
            "internal",
        ] {
            assert_eq!(calls(&recorder, outcome), Some(0.0), "{outcome}");
        }
        let count = "carga_port_call_duration_seconds_count{port=\"store\",operation=\"seal\"}";
        assert_eq!(recorder.value(count), Some(4.0));
    }

    #[test]
    fn a_process_without_metrics_measures_no_call() {
        assert!(begin("store.seal").0.is_none());
    }
}
