//! The ledger and the rows: what workers write.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use sqlx::SqliteConnection;
use sqlx::types::Json;

use super::super::rules::{self, Admission, Counted, PAGE_ROWS, signed, unsigned};
use super::uploads::find;
use super::{first_id, now, rejects};
use crate::batch::{Batch, BatchId};
use crate::error::{ErrorKind, PortError, PortResult};
use crate::progress::{Snapshot, StoredBatch};
use crate::sqlite::{Database, Writing, port_error};
use crate::store::{
    ArchivedBatch, Completion, DeadBatch, LedgerEntry, Parked, StoreOutcome, StoredRow,
};
use crate::upload::{Status, UploadId};

/// Row numbers have 36 bits of a row's id.
const MOST_ROWS: u64 = 1 << 36;

/// An upload's place in `rows`, and whether batches of it may be stored.
struct Known {
    number: i64,
    admission: Admission,
}

/// Fence, ledger, rows, commit. What is doomed counts as failed.
pub(super) async fn store(
    database: &Database,
    group: &[ArchivedBatch],
    is_doomed: impl Fn(BatchId) -> bool,
) -> PortResult<Vec<StoreOutcome>> {
    let stored = async {
        let mut writing = database.begin().await?;
        let mut known = HashMap::new();
        for archived in group {
            let upload = archived.batch.id.upload;
            if !known.contains_key(&upload)
                && let Some(mut found) = look_up(&mut writing, upload).await?
            {
                if is_doomed(archived.batch.id) {
                    found.admission.status = Status::Failed;
                }
                known.insert(upload, found);
            }
        }
        let admissions = known.iter().map(|(id, found)| (*id, found.admission));
        let admissions: HashMap<UploadId, Admission> = admissions.collect();
        let mut entered = HashSet::new();
        for archived in group {
            let id = archived.batch.id;
            let admitted = admissions
                .get(&id.upload)
                .is_some_and(|known| known.admits(id));
            if admitted && enter_in_ledger(&mut writing, archived).await? {
                entered.insert(id);
            }
        }
        let (outcomes, new) = rules::outcomes(group, &admissions, entered);
        for batch in new {
            if has_nul(batch) {
                return Ok(Err("a cell has a NUL in it"));
            }
            if batch.last_row() >= MOST_ROWS {
                return Ok(Err("an upload here has at most 2^36 - 1 rows"));
            }
            let number = known[&batch.id.upload].number;
            insert_rows(&mut writing, batch, number).await?;
        }
        writing.commit().await?;
        Ok(Ok(outcomes))
    };
    let stored = stored.await;
    stored
        .map_err(|error| port_error("store.store", error))?
        .map_err(|reason: &str| PortError::invalid("store.store", reason))
}

/// SQLite would take a NUL and then cut the text short at it, depending on who asks; Postgres takes none. So there is none.
fn has_nul(batch: &Batch) -> bool {
    let suspect = |row: &[u8]| memchr::memmem::find(row, b"\\u0000").is_some();
    batch.rows_json().any(suspect)
        && batch.rows().flatten().any(|cell| {
            // An escape that is no text was refused when the batch was decoded.
            let text = cell.text().ok().flatten();
            text.is_some_and(|text| text.contains(&0))
        })
}

async fn look_up(connection: &mut SqliteConnection, id: UploadId) -> sqlx::Result<Option<Known>> {
    let found: Option<(i64, i32, String)> =
        sqlx::query_as("SELECT number, epoch, status FROM uploads WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(connection)
            .await?;
    Ok(found.and_then(|(number, epoch, status)| {
        let status = status.parse().ok()?;
        Some(Known {
            number,
            admission: Admission { epoch, status },
        })
    }))
}

/// True when it is new.
async fn enter_in_ledger(
    connection: &mut SqliteConnection,
    archived: &ArchivedBatch,
) -> sqlx::Result<bool> {
    let ArchivedBatch { batch, .. } = archived;
    let entered = sqlx::query(
        "INSERT INTO batches (upload_id, epoch, seq, rows, first_row, archive_bytes, archive_crc32, stored_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT DO NOTHING",
    )
    .bind(batch.id.upload.to_string())
    .bind(batch.id.epoch)
    .bind(batch.id.seq.cast_signed())
    .bind(batch.row_count() as i64)
    .bind(signed(batch.first_row()))
    .bind(signed(archived.archive_bytes))
    .bind(i64::from(archived.archive_crc32))
    .bind(now())
    .execute(connection)
    .await?;
    Ok(entered.rows_affected() > 0)
}

/// One statement for all rows without a gap, so that no row crosses to SQLite's thread by itself. It gets them in one piece, and
/// with it where each begins and how long it is: were it to take JSON apart, it would write every row anew.
async fn insert_rows(writing: &mut Writing, batch: &Batch, number: i64) -> sqlx::Result<()> {
    let mut rows_json = batch.rows_json();
    let expected = batch.size_bytes() / batch.runs().len().max(1);
    for (first, count) in batch.runs() {
        let mut rows = Vec::with_capacity(expected);
        let mut places = String::with_capacity(18 * *count as usize);
        for row in rows_json.by_ref().take(*count as usize) {
            let place = (rows.len() + 1) << 32 | (row.len() + 2);
            places.push(if places.is_empty() { '[' } else { ',' });
            let _: std::fmt::Result = write!(places, "{place}");
            rows.push(b'[');
            rows.extend_from_slice(row);
            rows.push(b']');
        }
        places.push(']');
        sqlx::query(
            "INSERT INTO rows (id, fields)
             SELECT $1 + key, CAST(substr($2, value >> 32, value & 0xffffffff) AS TEXT) FROM json_each($3)",
        )
        .bind(first_id(number) + signed(*first))
        .bind(rows)
        .bind(places)
        .execute(&mut **writing)
        .await?;
    }
    Ok(())
}

/// Page by page: a reader who takes an hour over a million rows must not keep the log from being cut back for an hour.
pub(super) fn rows(database: &Database, id: UploadId) -> BoxStream<'_, PortResult<StoredRow>> {
    const OPERATION: &str = "store.rows";
    stream::try_unfold(0, move |last_seen| async move {
        let page = page(database, id, last_seen).await;
        let page = page.map_err(|error| port_error(OPERATION, error))?;
        let Some(last) = page.last().map(|row| row.row_number) else {
            let known = find(database, id).await;
            let known = known.map_err(|error| port_error(OPERATION, error))?;
            let is_over = last_seen == 0 || known.is_some_and(|upload| upload.status.keeps_rows());
            let lost = "the rows were removed while they were being read";
            let lost = || PortError::new(ErrorKind::Conflict, OPERATION, lost);
            return is_over.then_some(None).ok_or_else(lost);
        };
        Ok(Some((stream::iter(page).map(Ok), last)))
    })
    .try_flatten()
    .boxed()
}

/// The rows after the last one seen.
async fn page(database: &Database, id: UploadId, last_seen: u64) -> sqlx::Result<Vec<StoredRow>> {
    let found: Vec<(i64, Json<Vec<Option<String>>>)> = sqlx::query_as(
        "SELECT r.row_number, r.fields
         FROM uploads u JOIN rows r ON r.id > (u.number << 36) + $2 AND r.id <= (u.number << 36) + 0xfffffffff
         WHERE u.id = $1 AND u.status IN ('completed', 'partial')
         ORDER BY r.id LIMIT $3",
    )
    .bind(id.to_string())
    .bind(signed(last_seen))
    .bind(PAGE_ROWS)
    .fetch_all(&database.readers)
    .await?;
    let row = |(row_number, fields): (i64, Json<_>)| StoredRow {
        row_number: unsigned(row_number),
        fields: fields.0,
    };
    Ok(found.into_iter().map(row).collect())
}

pub(super) async fn admits(database: &Database, id: BatchId) -> sqlx::Result<bool> {
    let mut connection = database.readers.acquire().await?;
    let known = look_up(&mut connection, id.upload).await?;
    let admission = known.map(|known| known.admission);
    Ok(Admission::is_worthwhile(admission, id))
}

pub(super) async fn completion(database: &Database, id: UploadId) -> sqlx::Result<Completion> {
    let Some(upload) = find(database, id).await? else {
        return Ok(Completion::Ended);
    };
    if upload.status.is_terminal() {
        return Ok(Completion::Ended);
    }
    let (Status::Processing, Some(total)) = (upload.status, upload.batches_total) else {
        return Ok(Completion::Incomplete);
    };
    let mut connection = database.readers.acquire().await?;
    let (batches, rows): (i64, i64) = sqlx::query_as(
        "SELECT count(*), coalesce(sum(rows), 0) FROM batches WHERE upload_id = $1 AND epoch = $2",
    )
    .bind(id.to_string())
    .bind(upload.epoch)
    .fetch_one(&mut *connection)
    .await?;
    let mut counted = Counted {
        batches: unsigned(batches),
        stored: unsigned(rows),
        rejected: 0,
    };
    // Not counted while batches are missing.
    if counted.batches >= u64::from(total) {
        counted.rejected = unsigned(rejects::count(&mut connection, id).await?);
    }
    Ok(rules::completion(upload, total, counted))
}

pub(super) async fn ledger(
    database: &Database,
    id: UploadId,
    epoch: i32,
) -> sqlx::Result<Vec<LedgerEntry>> {
    let entries: Vec<(i32, i64, i32, i64, i64)> = sqlx::query_as(
        "SELECT seq, first_row, rows, archive_bytes, archive_crc32
         FROM batches WHERE upload_id = $1 AND epoch = $2 ORDER BY seq",
    )
    .bind(id.to_string())
    .bind(epoch)
    .fetch_all(&database.readers)
    .await?;
    Ok(entries.into_iter().map(LedgerEntry::from).collect())
}

pub(super) async fn progress(
    database: &Database,
    id: UploadId,
    epoch: i32,
) -> sqlx::Result<Snapshot> {
    let Some(upload) = find(database, id).await? else {
        return Ok(Snapshot::default());
    };
    let stored: Vec<(i32, i32)> =
        sqlx::query_as("SELECT seq, rows FROM batches WHERE upload_id = $1 AND epoch = $2")
            .bind(id.to_string())
            .bind(epoch)
            .fetch_all(&database.readers)
            .await?;
    Ok(Snapshot {
        rows_read: upload.rows_read,
        bytes_received: upload.bytes_received,
        stored: stored.into_iter().map(StoredBatch::from).collect(),
    })
}

pub(super) async fn park(database: &Database, dead: &DeadBatch) -> sqlx::Result<Parked> {
    let mut writing = database.begin().await?;
    if let Some(id) = dead.id {
        let (stored,): (bool,) = sqlx::query_as(
            "SELECT EXISTS (SELECT 1 FROM batches WHERE upload_id = $1 AND epoch = $2 AND seq = $3)",
        )
        .bind(id.upload.to_string())
        .bind(id.epoch)
        .bind(id.seq.cast_signed())
        .fetch_one(&mut *writing)
        .await?;
        if stored {
            writing.commit().await?;
            return Ok(Parked::AlreadyStored);
        }
    }
    // The queue may hand a dead letter over twice.
    sqlx::query(
        "INSERT INTO parked_batches (upload_id, epoch, seq, attempts, reason, body, parked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT DO NOTHING",
    )
    .bind(dead.id.map(|id| id.upload.to_string()))
    .bind(dead.id.map(|id| id.epoch))
    .bind(dead.id.map(|id| id.seq.cast_signed()))
    .bind(dead.attempts.cast_signed())
    .bind(&dead.reason)
    .bind(&dead.body[..])
    .bind(now())
    .execute(&mut *writing)
    .await?;
    writing.commit().await?;
    Ok(Parked::Kept)
}
