//! The metrics of the worker.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use carga_common::metrics::table::{
    MAINTENANCE_UPLOADS, SWEEPER_LAST_SUCCESS, SWEEPER_SWEEPS, WORKER_ARCHIVE_DURATION,
    WORKER_ARCHIVED_BYTES, WORKER_BATCHES, WORKER_COMMIT_BATCHES, WORKER_COMMIT_DURATION,
    WORKER_COMPLETION_CHECKS, WORKER_EVENTS_SENT, WORKER_ROWS,
};
use carga_common::metrics::{Counter, Gauge, Histogram};
use carga_common::queue::RetryTier;

/// The handles of one worker.
#[derive(Debug)]
pub(crate) struct WorkerMetrics {
    pub(crate) batches: BatchCounters,
    pub(crate) rows_stored: Counter,
    pub(crate) rows_rejected: Counter,
    archived_bytes: Counter,
    archive_duration: Histogram,
    commit_duration: Histogram,
    commit_batches: Histogram,
    pub(crate) sweeps: SweepMetrics,
    pub(crate) maintenance: MaintenanceCounters,
    pub(crate) events_sent: Counter,
}

impl WorkerMetrics {
    pub(crate) fn new() -> Self {
        Self {
            batches: BatchCounters::new(),
            rows_stored: WORKER_ROWS.counter_of(["stored"]),
            rows_rejected: WORKER_ROWS.counter_of(["rejected"]),
            archived_bytes: WORKER_ARCHIVED_BYTES.counter(),
            archive_duration: WORKER_ARCHIVE_DURATION.histogram(),
            commit_duration: WORKER_COMMIT_DURATION.histogram(),
            commit_batches: WORKER_COMMIT_BATCHES.histogram(),
            sweeps: SweepMetrics::new(),
            maintenance: MaintenanceCounters::new(),
            events_sent: WORKER_EVENTS_SENT.counter(),
        }
    }

    /// Counts an object that was written to the archive.
    pub(crate) fn archived(&self, bytes: u64, after: Duration) {
        self.archived_bytes.increment(bytes);
        self.archive_duration.record(after);
    }

    /// Counts a transaction that has stored this many batches. One without any batch, because all
    /// of them were locked, does not count.
    pub(crate) fn committed(&self, batches: usize, after: Duration) {
        if batches == 0 {
            return;
        }
        self.commit_batches.record(batches as f64);
        self.commit_duration.record(after);
    }
}

/// Deliveries of batches, by what the worker did with them.
#[derive(Debug)]
pub(crate) struct BatchCounters {
    pub(crate) stored: Counter,
    /// The batch was stored before.
    pub(crate) repeated: Counter,
    /// The upload has ended without the batch.
    pub(crate) discarded: Counter,
    pub(crate) postponed: Counter,
    /// The batch is kept as a dead letter.
    pub(crate) dead: Counter,
    /// In the order of [`RetryTier::ALL`].
    retried: [Counter; RetryTier::ALL.len()],
}

impl BatchCounters {
    fn new() -> Self {
        let of = |outcome: &'static str| WORKER_BATCHES.counter_of([outcome]);
        Self {
            stored: of("stored"),
            repeated: of("repeated"),
            discarded: of("discarded"),
            postponed: of("postponed"),
            dead: of("dead"),
            retried: RetryTier::ALL.map(|tier| {
                let seconds = tier.delay().as_secs();
                WORKER_BATCHES.counter_of([format!("retried_{seconds}s")])
            }),
        }
    }

    /// Counts a batch that waits for its next attempt.
    pub(crate) fn retried(&self, tier: RetryTier) {
        let mut tiers = RetryTier::ALL.iter().zip(&self.retried);
        if let Some((_, retried)) = tiers.find(|(known, _)| **known == tier) {
            retried.increment(1);
        }
    }
}

/// The completion checks, by what they found.
#[derive(Debug, Clone)]
pub(crate) struct CheckCounters {
    pub(crate) ended: Counter,
    pub(crate) open: Counter,
    pub(crate) failed: Counter,
}

impl CheckCounters {
    pub(crate) fn new() -> Self {
        let of = |outcome: &'static str| WORKER_COMPLETION_CHECKS.counter_of([outcome]);
        Self {
            ended: of("ended"),
            open: of("open"),
            failed: of("failed"),
        }
    }
}

/// The sweeps, and the time of the last one that succeeded.
#[derive(Debug)]
pub(crate) struct SweepMetrics {
    succeeded: Counter,
    pub(crate) failed: Counter,
    last_success: Gauge,
}

impl SweepMetrics {
    fn new() -> Self {
        let of = |outcome: &'static str| SWEEPER_SWEEPS.counter_of([outcome]);
        Self {
            succeeded: of("ok"),
            failed: of("failed"),
            last_success: SWEEPER_LAST_SUCCESS.gauge(),
        }
    }

    pub(crate) fn succeeded(&self) {
        self.succeeded.increment(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.last_success.set(now.unwrap_or_default().as_secs_f64());
    }
}

/// Uploads, by what the sweeper or the retention did with them.
#[derive(Debug)]
pub(crate) struct MaintenanceCounters {
    /// The lease had expired, so the upload failed.
    pub(crate) interrupted: Counter,
    /// Some batches were in no queue, so the upload failed.
    pub(crate) lost: Counter,
    /// A crash had left the sealed upload open, and the sweeper ended it.
    pub(crate) completed: Counter,
    pub(crate) rows_removed: Counter,
    pub(crate) archive_deleted: Counter,
    /// The rows are older than the retention.
    pub(crate) expired: Counter,
    /// The previous values of rows were deleted.
    pub(crate) forgotten: Counter,
}

impl MaintenanceCounters {
    fn new() -> Self {
        let of = |action: &'static str| MAINTENANCE_UPLOADS.counter_of([action]);
        Self {
            interrupted: of("interrupted"),
            lost: of("lost"),
            completed: of("completed"),
            rows_removed: of("rows_removed"),
            archive_deleted: of("archive_deleted"),
            expired: of("expired"),
            forgotten: of("forgotten"),
        }
    }
}

#[cfg(test)]
mod tests {
    use carga_common::metrics::local::LocalRecorder;

    use super::*;

    #[test]
    fn a_transaction_without_a_batch_is_not_counted() {
        let recorder = LocalRecorder::new().unwrap();
        let metrics = recorder.run(WorkerMetrics::new);
        metrics.committed(0, Duration::from_secs(1));
        metrics.committed(5, Duration::from_secs(2));
        let value = |series: &str| recorder.value(series).unwrap();
        assert_eq!(value("carga_worker_commit_batches_count"), 1.0);
        assert_eq!(value("carga_worker_commit_batches_sum"), 5.0);
        assert_eq!(value("carga_worker_commit_duration_seconds_sum"), 2.0);
    }

    #[test]
    fn a_retry_counts_for_its_delay() {
        let recorder = LocalRecorder::new().unwrap();
        let batches = recorder.run(BatchCounters::new);
        batches.retried(RetryTier::First);
        batches.retried(RetryTier::Third);
        batches.retried(RetryTier::Third);
        let counts = ["retried_1s", "retried_4s", "retried_16s"].map(|outcome| {
            recorder.value(&format!(
                "carga_worker_batches_total{{outcome=\"{outcome}\"}}"
            ))
        });
        assert_eq!(counts, [Some(1.0), Some(0.0), Some(2.0)]);
    }
}
