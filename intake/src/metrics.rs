//! The metrics of the intake. Nothing here is called per row: rows and bytes are read from the
//! figures of an upload, with each heartbeat and at its end, and rejected rows are counted when a
//! group of them is stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use carga_common::metrics::table::{
    INTAKE_BATCHES_PUBLISHED, INTAKE_BYTES_RECEIVED, INTAKE_CONFIRM_DURATION,
    INTAKE_PUBLISH_BUDGET, INTAKE_PUBLISH_BUDGET_USED, INTAKE_ROWS_READ, INTAKE_UPLOADS_RECEIVING,
    INTAKE_UPLOADS_WAITING, LIMIT_REFUSALS,
};
use carga_common::metrics::{Counter, Exposition, Gauge, Histogram, RejectCounters};
use tokio::sync::Semaphore;

use crate::crowding::Crowding;
use crate::quota::{NO_SLOT, QUOTA_EXCEEDED};
use crate::refusal::Refusal;

/// The handles of the intake.
#[derive(Debug)]
pub(crate) struct IntakeMetrics {
    pub(crate) bytes_received: Counter,
    pub(crate) rows_read: Counter,
    pub(crate) rejects: RejectCounters,
    batches_published: Counter,
    confirm_duration: Histogram,
    pub(crate) receiving: Gauge,
    tenant_uploads: Counter,
    tenant_quota: Counter,
}

impl IntakeMetrics {
    pub(crate) fn new() -> Self {
        Self {
            bytes_received: INTAKE_BYTES_RECEIVED.counter(),
            rows_read: INTAKE_ROWS_READ.counter(),
            rejects: RejectCounters::of_intake(),
            batches_published: INTAKE_BATCHES_PUBLISHED.counter(),
            confirm_duration: INTAKE_CONFIRM_DURATION.histogram(),
            receiving: INTAKE_UPLOADS_RECEIVING.gauge(),
            tenant_uploads: LIMIT_REFUSALS.counter_of(["tenant_uploads"]),
            tenant_quota: LIMIT_REFUSALS.counter_of(["tenant_quota"]),
        }
    }

    /// Counts a batch that the queue has confirmed.
    pub(crate) fn confirmed(&self, after: Duration) {
        self.batches_published.increment(1);
        self.confirm_duration.record(after);
    }

    /// Counts a file that was refused or has failed because of a quota of its tenant.
    pub(crate) fn count_quota(&self, refusal: &Refusal) {
        match refusal.failure.code.as_str() {
            NO_SLOT => self.tenant_uploads.increment(1),
            QUOTA_EXCEEDED => self.tenant_quota.increment(1),
            _ => {}
        }
    }
}

/// A figure that only grows, and how much of it is counted already.
#[derive(Debug, Default)]
pub(crate) struct Counted(AtomicU64);

impl Counted {
    /// Adds to the counter what the figure has grown since the last call. Several callers may count
    /// the same figure.
    pub(crate) fn count(&self, counter: &Counter, figure: u64) {
        let before = self.0.fetch_max(figure, Ordering::Relaxed);
        counter.increment(figure.saturating_sub(before));
    }
}

/// Shows the requests that wait for a slot, and how much of a budget of `bytes` is in use.
pub(crate) fn watch(
    exposition: &Exposition,
    crowding: Crowding,
    budget: Arc<Semaphore>,
    bytes: usize,
) {
    let waiting = INTAKE_UPLOADS_WAITING.gauge();
    let used = INTAKE_PUBLISH_BUDGET_USED.gauge();
    INTAKE_PUBLISH_BUDGET.gauge().set(bytes as f64);
    exposition.watch(move || {
        waiting.set(crowding.waiting() as f64);
        used.set(bytes.saturating_sub(budget.available_permits()) as f64);
    });
}

#[cfg(test)]
mod tests {
    use carga_common::metrics::local::LocalRecorder;
    use carga_common::tenant::Tenant;

    use super::*;
    use crate::quota::no_slot;
    use crate::refusal::RefusalKind;

    #[test]
    fn a_figure_that_several_callers_count_is_counted_once() {
        let recorder = LocalRecorder::new().unwrap();
        let metrics = recorder.run(IntakeMetrics::new);
        let counted = Counted::default();
        for figure in [3, 10, 7, 10, 12] {
            counted.count(&metrics.rows_read, figure);
        }
        assert_eq!(recorder.value("carga_intake_rows_read_total"), Some(12.0));
    }

    #[test]
    fn a_refusal_by_a_quota_counts_for_its_limit_and_another_one_for_none() {
        let recorder = LocalRecorder::new().unwrap();
        let metrics = recorder.run(IntakeMetrics::new);
        let quota = Refusal::new(RefusalKind::TooMany, QUOTA_EXCEEDED, "");
        for refusal in [no_slot(&Tenant::default(), 1), quota, Refusal::internal()] {
            metrics.count_quota(&refusal);
        }
        let series = ["tenant_uploads", "tenant_quota"]
            .map(|limit| format!("carga_limit_refusals_total{{limit=\"{limit}\"}}"));
        assert_eq!(series.map(|series| recorder.value(&series)), [Some(1.0); 2]);
    }

    #[test]
    fn a_rejected_row_counts_for_its_code_and_an_unknown_code_for_other() {
        let recorder = LocalRecorder::new().unwrap();
        let metrics = recorder.run(IntakeMetrics::new);
        let codes = ["wrong_type", "wrong_type", "bad_quote", "3fa9-an-id"];
        metrics.rejects.count_group(codes.into_iter());
        metrics.rejects.count_group(std::iter::empty());
        metrics.rejects.count_group(["wrong_type"].into_iter());
        let value = |code: &str| {
            recorder.value(&format!(
                "carga_intake_rows_rejected_total{{code=\"{code}\"}}"
            ))
        };
        let counts = [
            "wrong_type",
            "bad_quote",
            "other",
            "undecodable",
            "3fa9-an-id",
        ]
        .map(value);
        assert_eq!(counts, [Some(3.0), Some(1.0), Some(1.0), Some(0.0), None]);
    }
}
