//! What every store decides alike, whatever it keeps its tables in.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use sqlx::types::Json;

use super::{ArchivedBatch, Completion, LedgerEntry, StoreOutcome};
use crate::batch::{Batch, BatchId};
use crate::error::{ErrorKind, PortError, PortResult};
use crate::progress::StoredBatch;
use crate::rejects::RejectedRow;
use crate::upload::{Status, Upload, UploadId};

/// Rows deleted in one transaction: few enough to let others in between, many enough not to look at the dead ones too often.
pub(super) const CHUNK_ROWS: i64 = 50_000;

/// Most uploads the sweeper takes up in one round, of each kind. The unfinished come in any order, so that some that wait for a
/// long outage do not hide the others.
pub(super) const SWEEP_LIMIT: i64 = 100;

/// A sealed upload is left to its workers for this long before the sweeper looks whether it lacks only its end.
pub(super) const UNFINISHED_AFTER: Duration = Duration::from_secs(5);

/// Rows read back at once.
pub(super) const PAGE_ROWS: i64 = 256;

/// For so long after an upload was undone its archive is deleted again and again: a batch or a manifest may have been on its way.
pub(super) const UNARCHIVE_AGAIN: Duration = Duration::from_secs(60);

/// What is to be known of an upload before a batch of it is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admission {
    pub(super) epoch: i32,
    pub(super) status: Status,
}

impl Admission {
    /// It may be stored.
    pub(super) fn admits(&self, id: BatchId) -> bool {
        self.epoch == id.epoch && !self.status.is_terminal()
    }

    /// Its upload has ended with all its rows, this batch's among them.
    fn has_it(&self, id: BatchId) -> bool {
        self.epoch == id.epoch && self.status.keeps_rows()
    }

    /// It is worth archiving, as far as can be told before the fence. An unknown upload is for the fence to tell.
    pub(super) fn is_worthwhile(known: Option<Self>, id: BatchId) -> bool {
        known.is_none_or(|known| known.admits(id) || known.has_it(id))
    }
}

/// What becomes of each batch of a group, and whose rows are to be written: those of the batches that are new in the ledger.
pub(super) fn outcomes<'a>(
    group: &'a [ArchivedBatch],
    admissions: &HashMap<UploadId, Admission>,
    mut entered: HashSet<BatchId>,
) -> (Vec<StoreOutcome>, Vec<&'a Batch>) {
    let mut new = Vec::with_capacity(entered.len());
    let outcome =
        |ArchivedBatch { batch, .. }: &'a ArchivedBatch| match admissions.get(&batch.id.upload) {
            None => StoreOutcome::UnknownUpload,
            Some(known) if known.has_it(batch.id) => StoreOutcome::Replay,
            Some(known) if !known.admits(batch.id) => StoreOutcome::Fenced,
            // Removed as it is met, so that a batch that is in the group twice is written once.
            Some(_) if entered.remove(&batch.id) => {
                new.push(batch);
                StoreOutcome::Stored
            }
            Some(_) => StoreOutcome::Replay,
        };
    let outcomes = group.iter().map(outcome).collect();
    (outcomes, new)
}

/// What the store has counted of a sealed upload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    /// Batches in the ledger, and their rows.
    pub(super) batches: u64,
    pub(super) stored: u64,
    /// Rejected rows.
    pub(super) rejected: u64,
}

/// Whether a sealed upload can end.
pub(super) fn completion(upload: Upload, total: u32, counted: Counted) -> Completion {
    let Counted {
        batches,
        stored,
        rejected,
    } = counted;
    let read = upload.rows_read;
    if batches < u64::from(total) {
        Completion::Incomplete
    } else if batches == u64::from(total)
        && stored + rejected == read
        && rejected == upload.rows_rejected
    {
        Completion::Ready(Box::new(upload))
    } else {
        Completion::Mismatch {
            read,
            stored,
            rejected,
        }
    }
}

/// What became of bringing a schema up to date.
pub(super) fn migrated(
    run: Result<(), sqlx::migrate::MigrateError>,
    port_error: fn(&'static str, sqlx::Error) -> PortError,
) -> PortResult<()> {
    const OPERATION: &str = "store.migrate";
    use sqlx::migrate::MigrateError;
    run.map_err(|error| match error {
        MigrateError::Execute(error) => port_error(OPERATION, error),
        MigrateError::VersionMissing(version) => {
            let reason = format!(
                "the database has migration {version}, which this build does not know: it was set up by a newer one"
            );
            PortError::new(ErrorKind::Conflict, OPERATION, reason)
        }
        error => PortError::new(ErrorKind::Internal, OPERATION, error),
    })
}

/// Counts are far below 2^63.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// No count in a database is negative.
pub(super) fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// `row_number`, `line`, `byte_offset`, `column_name`, `code`, `message`, `raw`, `fields`.
pub(super) type RejectedRecord = (
    i64,
    i64,
    i64,
    Option<String>,
    String,
    String,
    Option<String>,
    Option<Json<Vec<String>>>,
);

/// All rejected rows, page by page: who reads slowly keeps no connection and no transaction. `page` has those after a row number.
pub(super) fn rejected_rows<'a, P>(
    port_error: fn(&'static str, sqlx::Error) -> PortError,
    page: impl Fn(u64) -> P + Copy + Send + 'a,
) -> BoxStream<'a, PortResult<RejectedRow>>
where
    P: Future<Output = sqlx::Result<Vec<RejectedRecord>>> + Send + 'a,
{
    stream::try_unfold(0, move |last_seen| async move {
        let page = page(last_seen).await;
        let page = page.map_err(|error| port_error("store.rejected", error))?;
        let last = page.last().map(|record| unsigned(record.0));
        let rows = stream::iter(page).map(|record| Ok(rejected_row(record)));
        Ok(last.map(|last| (rows, last)))
    })
    .try_flatten()
    .boxed()
}

fn rejected_row(record: RejectedRecord) -> RejectedRow {
    let (row, line, offset, column, code, message, raw, fields) = record;
    RejectedRow {
        row: unsigned(row),
        line: unsigned(line),
        offset: unsigned(offset),
        column,
        code,
        message,
        raw,
        fields: fields.map(|fields| fields.0),
    }
}

/// `seq`, `first_row`, `rows`, `archive_bytes`, `archive_crc32`.
impl From<(i32, i64, i32, i64, i64)> for LedgerEntry {
    fn from((seq, first_row, rows, bytes, crc32): (i32, i64, i32, i64, i64)) -> Self {
        Self {
            seq: seq.cast_unsigned(),
            first_row: unsigned(first_row),
            rows: rows.cast_unsigned(),
            archive_bytes: unsigned(bytes),
            archive_crc32: u32::try_from(crc32).unwrap_or(0),
        }
    }
}

/// `seq`, `rows`.
impl From<(i32, i32)> for StoredBatch {
    fn from((seq, rows): (i32, i32)) -> Self {
        Self {
            seq: seq.cast_unsigned(),
            rows: rows.cast_unsigned(),
        }
    }
}
