//! Counts uploads when they end.
//!
//! Several processes may try to end an upload, and the store tells one of them that it did. That
//! process counts the upload, so every end is counted once.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::timeout;

use super::installed::is_installed;
use super::table::{UPLOAD_DURATION, UPLOAD_ROWS, UPLOADS_ENDED};
use super::{Counter, Histogram, RejectCounters};
use crate::store::Store;
use crate::upload::{Status, Upload, UploadId};

/// How long the caller waits for one answer of the store.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

static ENDED: LazyLock<EndedUploads> = LazyLock::new(EndedUploads::new);

/// Makes the series, so that a first end is seen as an increase.
pub(super) fn prepare() {
    LazyLock::force(&ENDED);
}

/// Counts an upload that this process has just ended with this status. It is counted with the
/// status in its record if that says more: `complete` ends an upload as `partial` too.
pub async fn record_end(store: &dyn Store, id: UploadId, status: Status) {
    if !is_installed() {
        return;
    }
    let mut end = match timeout(READ_TIMEOUT, store.upload(id)).await {
        Ok(Ok(Some(upload))) => End::of(&upload, status),
        // The end is counted in any case, if only without its duration and its rows.
        _ => End::without_record(status),
    };
    if end.rejected() > 0 {
        let codes = timeout(READ_TIMEOUT, store.reject_codes(id)).await;
        // Without an answer, the rows count for the code `other`.
        end.codes = codes.ok().and_then(Result::ok);
    }
    ENDED.count(&end);
}

/// How an upload ended.
#[derive(Debug, Clone, PartialEq)]
struct End {
    status: Status,
    seconds: Option<f64>,
    /// Rows inserted, updated, duplicate and rejected.
    rows: [u64; 4],
    /// The rejected rows by their codes; `None` if they are unknown.
    codes: Option<Vec<(String, u64)>>,
}

impl End {
    fn without_record(status: Status) -> Self {
        Self {
            status,
            seconds: None,
            rows: [0; 4],
            codes: None,
        }
    }

    fn rejected(&self) -> u64 {
        let [_, _, _, rejected] = self.rows;
        rejected
    }

    fn of(upload: &Upload, status: Status) -> Self {
        let end = Self::without_record(match (status, upload.status) {
            (Status::Completed, Status::Partial) => Status::Partial,
            (status, _) => status,
        });
        // The time until an undo says nothing about the import.
        if status == Status::Undone {
            return end;
        }
        let seconds = upload.finished_at.map(|finished_at| {
            let duration = finished_at.duration_since(upload.created_at);
            duration.as_secs_f64().max(0.0)
        });
        if !end.status.keeps_rows() {
            return Self { seconds, ..end };
        }
        let rejected = upload.rows_rejected + upload.rows_violating.unwrap_or_default();
        let rows = [
            upload.rows_inserted.unwrap_or_default(),
            upload.rows_updated.unwrap_or_default(),
            upload.rows_duplicate.unwrap_or_default(),
            rejected,
        ];
        Self {
            seconds,
            rows,
            ..end
        }
    }
}

/// The series of one status.
#[derive(Debug)]
struct OfStatus {
    status: Status,
    ended: Counter,
    duration: Histogram,
}

#[derive(Debug)]
struct EndedUploads {
    by_status: [OfStatus; 5],
    rows: [Counter; 4],
    rejects: RejectCounters,
}

impl EndedUploads {
    fn new() -> Self {
        const FINAL: [Status; 5] = [
            Status::Completed,
            Status::Partial,
            Status::Failed,
            Status::Cancelled,
            Status::Undone,
        ];
        const OUTCOMES: [&str; 4] = ["inserted", "updated", "duplicate", "rejected"];
        Self {
            by_status: FINAL.map(|status| OfStatus {
                status,
                ended: UPLOADS_ENDED.counter_of([status.name()]),
                duration: UPLOAD_DURATION.histogram_of([status.name()]),
            }),
            rows: OUTCOMES.map(|outcome| UPLOAD_ROWS.counter_of([outcome])),
            rejects: RejectCounters::of_uploads(),
        }
    }

    fn count(&self, end: &End) {
        let mut statuses = self.by_status.iter();
        if let Some(of_status) = statuses.find(|of_status| of_status.status == end.status) {
            of_status.ended.increment(1);
            if let Some(seconds) = end.seconds {
                of_status.duration.record(seconds);
            }
        }
        for (counter, rows) in self.rows.iter().zip(end.rows) {
            counter.increment(rows);
        }
        match &end.codes {
            Some(codes) => {
                for (code, rows) in codes {
                    self.rejects.count(code, *rows);
                }
            }
            None => self.rejects.count("other", end.rejected()),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::metrics::local::LocalRecorder;
    use crate::tenant::Tenant;
    use crate::upload::{Dialect, Epoch};

    /// An upload that ended after two seconds with 7 rows inserted, 2 updated, 1 duplicate, 3
    /// rejected by the intake and 4 by the table.
    fn ended_as(status: Status) -> Upload {
        let created_at = Timestamp::UNIX_EPOCH;
        let finished_at = created_at + SignedDuration::from_secs(2);
        Upload {
            id: UploadId::generate(),
            public_id: UploadId::generate(),
            tenant: Tenant::default(),
            created_by: None,
            epoch: Epoch::FIRST,
            status,
            filename: None,
            dialect: Dialect::rfc4180(false),
            columns: Vec::new(),
            dataset: None,
            bytes_total: None,
            bytes_received: 0,
            rows_read: 17,
            rows_rejected: 3,
            rows_violating: Some(4),
            blank_lines: None,
            batches_total: None,
            batches_dead: 0,
            batches_retrying: 0,
            rows_dead: 0,
            rows_inserted: Some(7),
            rows_updated: Some(2),
            rows_duplicate: Some(1),
            sha256: None,
            duplicate_of: None,
            failure: None,
            cleanup_pending: false,
            is_reversible: true,
            undone: None,
            created_at,
            updated_at: finished_at,
            finished_at: Some(finished_at),
            missing_since: None,
            expired_at: None,
        }
    }

    #[test]
    fn an_upload_is_counted_with_its_status_its_duration_and_its_rows() {
        let recorder = LocalRecorder::new().unwrap();
        let counters = recorder.run(EndedUploads::new);
        let mut partial = End::of(&ended_as(Status::Partial), Status::Completed);
        partial.codes = Some(vec![
            ("wrong_type".to_owned(), 3),
            ("check_violation".to_owned(), 2),
            // A code of another version.
            ("made_up".to_owned(), 2),
        ]);
        counters.count(&partial);
        counters.count(&End::of(&ended_as(Status::Failed), Status::Failed));
        counters.count(&End::of(&ended_as(Status::Undone), Status::Undone));
        counters.count(&End::without_record(Status::Cancelled));
        let value = |series: &str| recorder.value(series).unwrap();
        let by_status = |metric: &str| {
            ["completed", "partial", "failed", "cancelled", "undone"]
                .map(|status| value(&format!("{metric}{{status=\"{status}\"}}")))
        };
        let ended = by_status("carga_uploads_ended_total");
        assert_eq!(ended, [0.0, 1.0, 1.0, 1.0, 1.0]);
        let durations = by_status("carga_upload_duration_seconds_sum");
        assert_eq!(durations, [0.0, 2.0, 2.0, 0.0, 0.0]);
        let rows = ["inserted", "updated", "duplicate", "rejected"]
            .map(|outcome| value(&format!("carga_upload_rows_total{{outcome=\"{outcome}\"}}")));
        assert_eq!(rows, [7.0, 2.0, 1.0, 7.0]);
        let rejected = |code: &str| {
            recorder.value(&format!(
                "carga_upload_rows_rejected_total{{code=\"{code}\"}}"
            ))
        };
        let rejected = ["wrong_type", "check_violation", "other", "made_up"].map(rejected);
        assert_eq!(rejected, [Some(3.0), Some(2.0), Some(2.0), None]);
    }

    #[test]
    fn rejected_rows_whose_codes_are_unknown_count_as_other() {
        let recorder = LocalRecorder::new().unwrap();
        let counters = recorder.run(EndedUploads::new);
        counters.count(&End::of(&ended_as(Status::Partial), Status::Completed));
        let other = recorder.value("carga_upload_rows_rejected_total{code=\"other\"}");
        assert_eq!(other, Some(7.0));
    }
}
