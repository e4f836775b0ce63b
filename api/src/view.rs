//! Uploads and datasets as the API shows them. Field names are binding, because clients rely on
//! them.

use carga_common::backends::Backends;
use carga_common::dataset::{Dataset, DatasetName, Definition};
use carga_common::error::PortResult;
use carga_common::lifecycle::is_reversible;
use carga_common::progress::Counters;
use carga_common::sha256::Sha256;
use carga_common::store::Store;
use carga_common::upload::{Dialect, Failure, Status, UndoneRows, Upload, UploadDataset, UploadId};
use jiff::Timestamp;
use serde::Serialize;

/// An upload, as answers show it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct UploadView {
    /// The id: a UUIDv7, or the UUID that the client chose.
    pub(crate) id: UploadId,
    /// Every status but `receiving` and `processing` is final.
    pub(crate) status: Status,
    /// The option `filename`, or the file name of the part of the form.
    filename: Option<String>,
    /// The option `dataset`.
    dataset: Option<DatasetName>,
    /// How the file is read, and why.
    dialect: Dialect,
    /// The names of the columns of the file, in their order.
    columns: Vec<String>,
    /// How the columns of the file differ from those of the dataset; absent without a dataset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(nullable = false))]
    dataset_columns: Option<DatasetColumnsView>,
    /// The size of the file.
    bytes: BytesView,
    /// The outcomes of the rows.
    rows: RowsView,
    /// The batches of the file.
    batches: BatchesView,
    /// The share of the read rows that are not pending, in percent; `null` until the file has been
    /// read.
    percent: Option<f64>,
    /// Inserted and updated rows per second since `created_at`; `null` while there are none.
    rows_per_second: Option<u64>,
    /// The SHA-256 of the file as it was sent; `null` until the file has been read.
    sha256: Option<Sha256>,
    /// An earlier upload with the same content, whose rows are stored.
    duplicate_of: Option<UploadId>,
    /// Blank lines that are not rows; `null` until the file has been read.
    blank_lines: Option<u64>,
    /// Begins at 1; an undo starts the next epoch.
    epoch: i32,
    /// Whether the rows of a failed, cancelled, undone or expired upload are still being removed.
    cleanup_pending: bool,
    /// False if an undo cannot take back the changes of the upload. Otherwise true, also in a
    /// status that does not allow an undo.
    reversible: bool,
    /// What the undo of a merged upload did.
    undone: Option<UndoneRows>,
    /// Why figures may be old, or the upload may not end: `progress` or `batches_missing`.
    degraded: Vec<&'static str>,
    /// The reason why the upload failed.
    error: Option<Failure>,
    /// When the upload began.
    created_at: Timestamp,
    /// When the record changed last.
    updated_at: Timestamp,
    /// When the upload ended.
    finished_at: Option<Timestamp>,
    /// When the rows expired.
    expired_at: Option<Timestamp>,
}

/// The differences between the columns of the file and those of the dataset.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
struct DatasetColumnsView {
    /// The columns of the dataset that the file lacks. Their cells are NULL.
    missing: Vec<String>,
    /// The columns of the file that are not stored.
    ignored: Vec<String>,
}

impl From<UploadDataset> for DatasetColumnsView {
    fn from(dataset: UploadDataset) -> Self {
        Self {
            missing: dataset.missing,
            ignored: dataset.ignored,
        }
    }
}

/// The size of the file.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
struct BytesView {
    /// Bytes that have arrived, as they were sent.
    received: u64,
    /// The size of a `text/csv` body, if the request declares it.
    total: Option<u64>,
}

/// The outcomes of the rows. `read` is always the sum of all other fields.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
struct RowsView {
    /// Records read so far.
    read: u64,
    /// Rows that are stored as new rows.
    inserted: u64,
    /// Rows that replaced a stored row with the same key.
    updated: u64,
    /// Rows that changed nothing.
    duplicate: u64,
    /// Records that were rejected, each with its reason.
    rejected: u64,
    /// Rows of dead letters. A retry can still store them.
    dead: u64,
    /// Rows of an upload that failed, was cancelled or was undone.
    discarded: u64,
    /// Rows that were read and are not stored yet.
    pending: u64,
}

/// The batches of the file.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
struct BatchesView {
    /// Batches of the whole file; `null` until the file has been read.
    total: Option<u32>,
    /// Batches that are stored.
    stored: u64,
    /// Dead letters that are being retried.
    retrying: u64,
    /// Dead letters, without those that are being retried.
    dead: u64,
}

impl UploadView {
    /// Combines the record with the live counters. If the progress store is unavailable, the
    /// ledger is counted instead.
    pub(crate) async fn of(upload: Upload, backends: &Backends) -> PortResult<Self> {
        if upload.status.is_terminal() {
            return Ok(Self::new(upload, Counters::default(), false));
        }
        if let Some(counters) = backends.progress.read(upload.key()).await {
            return Ok(Self::new(upload, counters, false));
        }
        Self::counted(upload, backends.store.as_ref(), true).await
    }

    /// Combines the record with counts from the ledger.
    pub async fn counted(upload: Upload, store: &dyn Store, degraded: bool) -> PortResult<Self> {
        let counters = store.sums(upload.key()).await?;
        Ok(Self::new(upload, counters, degraded))
    }

    /// Shows the record alone, marked as degraded, because its counts are not current.
    pub(crate) fn without_counters(upload: Upload) -> Self {
        Self::new(upload, Counters::default(), true)
    }

    fn new(upload: Upload, live: Counters, degraded: bool) -> Self {
        let rows = RowsView::of(&upload, &live);
        let batches = BatchesView::of(&upload, &live);
        Self {
            percent: percent(&upload, &rows),
            rows_per_second: rate(&upload, rows.inserted + rows.updated),
            reversible: is_reversible(&upload),
            id: upload.public_id,
            status: upload.status,
            filename: upload.filename,
            dataset: upload.dataset.as_ref().map(|dataset| dataset.name.clone()),
            dialect: upload.dialect,
            columns: upload.columns,
            dataset_columns: upload.dataset.map(DatasetColumnsView::from),
            bytes: BytesView {
                received: upload.bytes_received.max(live.bytes_received),
                total: upload.bytes_total,
            },
            rows,
            batches,
            sha256: upload.sha256,
            duplicate_of: upload.duplicate_of,
            blank_lines: upload.blank_lines,
            epoch: upload.epoch.get(),
            cleanup_pending: upload.cleanup_pending,
            undone: upload.undone,
            degraded: degradations(degraded, upload.missing_since.is_some()),
            error: upload.failure,
            created_at: upload.created_at,
            updated_at: upload.updated_at,
            finished_at: upload.finished_at,
            expired_at: upload.expired_at,
        }
    }
}

fn degradations(progress: bool, batches: bool) -> Vec<&'static str> {
    let all = [(progress, "progress"), (batches, "batches_missing")];
    let degraded = all.into_iter().filter(|(is_degraded, _)| *is_degraded);
    degraded.map(|(_, name)| name).collect()
}

impl RowsView {
    fn of(upload: &Upload, live: &Counters) -> Self {
        let kept = |rows: Option<u64>| match upload.status.keeps_rows() {
            true => rows.unwrap_or(0),
            false => 0,
        };
        let stored = match upload.status {
            Status::Receiving | Status::Processing => live.rows_stored,
            _ => kept(upload.rows_inserted),
        };
        let (updated, duplicate) = (kept(upload.rows_updated), kept(upload.rows_duplicate));
        // Workers reject the rows that violate a constraint of the dataset's table.
        let violating = match upload.status {
            Status::Receiving | Status::Processing => live.rows_rejected,
            _ => upload.rows_violating.unwrap_or(0),
        };
        let rejected = upload.rows_rejected + violating;
        // A worker may have stored rows that the last heartbeat did not report yet.
        let known_read = upload.rows_read.max(live.rows_read);
        let dead = match upload.status {
            Status::Failed | Status::Cancelled | Status::Undone => 0,
            _ => upload.rows_dead,
        };
        let read = known_read.max(stored + updated + duplicate + rejected + dead);
        // The merge puts all staged rows into the table at the end.
        let inserted = match upload.is_staged() && !upload.status.is_terminal() {
            true => 0,
            false => stored,
        };
        let discarded = match upload.status {
            Status::Failed | Status::Cancelled | Status::Undone => read - rejected,
            _ => 0,
        };
        Self {
            read,
            inserted,
            updated,
            duplicate,
            rejected,
            dead,
            discarded,
            pending: read - inserted - updated - duplicate - rejected - dead - discarded,
        }
    }
}

impl BatchesView {
    fn of(upload: &Upload, live: &Counters) -> Self {
        let stored = match upload.status {
            Status::Receiving | Status::Processing => live.batches_stored,
            status if status.keeps_rows() => {
                u64::from(upload.batches_total.unwrap_or(0)).saturating_sub(upload.batches_dead)
            }
            _ => 0,
        };
        Self {
            total: upload.batches_total,
            stored,
            retrying: upload.batches_retrying,
            dead: upload.batches_dead,
        }
    }
}

/// The percentage of rows with a final outcome, to one decimal; `None` until the total is
/// known.
fn percent(upload: &Upload, rows: &RowsView) -> Option<f64> {
    upload.batches_total?;
    if rows.read == 0 {
        return Some(100.0);
    }
    let accounted = rows.read - rows.pending;
    Some((accounted as f64 * 1000.0 / rows.read as f64).floor() / 10.0)
}

/// Rows stored per second since the upload began; `None` until a row is stored.
fn rate(upload: &Upload, inserted: u64) -> Option<u64> {
    let until = upload.finished_at.unwrap_or_else(Timestamp::now);
    let seconds = until.duration_since(upload.created_at).as_secs_f64();
    (inserted > 0 && seconds > 0.0).then(|| (inserted as f64 / seconds) as u64)
}

/// A dataset, as answers show it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct DatasetView {
    /// The name.
    name: DatasetName,
    /// The fields of the definition stand beside the others.
    #[serde(flatten)]
    definition: Definition,
    /// When the dataset was declared.
    created_at: Timestamp,
    /// When its definition changed last.
    updated_at: Timestamp,
}

impl From<Dataset> for DatasetView {
    fn from(dataset: Dataset) -> Self {
        Self {
            name: dataset.name,
            definition: dataset.definition,
            created_at: dataset.created_at,
            updated_at: dataset.updated_at,
        }
    }
}

#[cfg(test)]
mod tests;
