//! Stores groups of batches: fence, ledger, rows, commit.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use async_trait::async_trait;
use sqlx::types::Json;
use sqlx::{Sqlite, SqliteConnection};

use super::uploads::find;
use super::{SqliteStore, first_id, now, typed_tables};
use crate::batch::{Batch, BatchId};
use crate::error::PortResult;
use crate::progress::{Counters, Snapshot};
use crate::sqlite::call;
use crate::store::rules::{self, Admission};
use crate::store::sql::{self, LedgerRecord, signed};
use crate::store::{ArchivedBatch, BatchStore, LedgerEntry, StoreOutcome};
use crate::upload::{Status, UploadDataset, UploadId, UploadKey};

/// A row number takes the low 36 bits of a row's id.
const ROW_NUMBER_LIMIT: u64 = 1 << 36;

/// Inserts a run of rows into the landing table. `$1` is the id of the first row, `$2` has all rows
/// as JSON, and `$3` has the offset and the length of each row.
const INSERT_ROWS: &str = "INSERT INTO rows (id, fields)
    SELECT $1 + key, CAST(substr($2, value >> 32, value & 0xffffffff) AS TEXT) FROM json_each($3)";

/// The upload's number in the ids of its rows, the table of its rows, and whether batches of the
/// upload may be stored.
struct Known {
    number: i64,
    /// `None` if the rows go into the landing table.
    dataset: Option<UploadDataset>,
    admission: Admission,
    has_expired: bool,
}

#[async_trait]
impl BatchStore for SqliteStore {
    async fn admits(&self, id: BatchId) -> PortResult<bool> {
        if self.is_failing(id.upload) {
            return Ok(false);
        }
        call("store.admits", async {
            let mut connection = self.database.readers.acquire().await?;
            let known = look_up(&mut connection, id.upload.id).await?;
            let has_expired = known.as_ref().is_some_and(|known| known.has_expired);
            let admission = known.map(|known| known.admission);
            Ok(Admission::is_worth_archiving(admission, has_expired, id))
        })
        .await
    }

    async fn store(&self, group: &[ArchivedBatch]) -> PortResult<Vec<StoreOutcome>> {
        call("store.store", store(self, group)).await
    }

    async fn ledger(&self, key: UploadKey) -> PortResult<Vec<LedgerEntry>> {
        call("store.ledger", async {
            let entries: Vec<LedgerRecord> = sqlx::query_as(
                "SELECT seq, first_row, rows, archive_bytes, archive_crc32
                 FROM batches WHERE upload_id = $1 AND epoch = $2 ORDER BY seq",
            )
            .bind(key.id.to_string())
            .bind(key.epoch.get())
            .fetch_all(&self.database.readers)
            .await?;
            entries.into_iter().map(sql::ledger_entry).collect()
        })
        .await
    }

    async fn progress(&self, key: UploadKey) -> PortResult<Snapshot> {
        call("store.progress", async {
            let Some(upload) = find(&self.database, key.id).await? else {
                return Ok(Snapshot::default());
            };
            let stored: Vec<(i32, i32)> =
                sqlx::query_as("SELECT seq, rows FROM batches WHERE upload_id = $1 AND epoch = $2")
                    .bind(key.id.to_string())
                    .bind(key.epoch.get())
                    .fetch_all(&self.database.readers)
                    .await?;
            Ok(Snapshot {
                rows_read: upload.rows_read,
                bytes_received: upload.bytes_received,
                stored: stored
                    .into_iter()
                    .map(sql::stored_batch)
                    .collect::<Result<_, _>>()?,
            })
        })
        .await
    }

    async fn sums(&self, key: UploadKey) -> PortResult<Counters> {
        call("store.sums", async {
            let Some(upload) = find(&self.database, key.id).await? else {
                return Ok(Counters::default());
            };
            let (batches, rows): (i64, i64) = sqlx::query_as(
                "SELECT count(*), coalesce(sum(rows), 0)
                 FROM batches WHERE upload_id = $1 AND epoch = $2",
            )
            .bind(key.id.to_string())
            .bind(key.epoch.get())
            .fetch_one(&self.database.readers)
            .await?;
            Ok(Counters {
                rows_read: upload.rows_read,
                bytes_received: upload.bytes_received,
                rows_stored: sql::count("rows", rows)?,
                batches_stored: sql::count("count(*)", batches)?,
            })
        })
        .await
    }
}

async fn store(store: &SqliteStore, group: &[ArchivedBatch]) -> sqlx::Result<Vec<StoreOutcome>> {
    let mut transaction = store.database.begin().await?;
    let known = fence(store, &mut transaction, group).await?;
    let admissions = known.iter().map(|(id, found)| (*id, found.admission));
    let admissions: HashMap<UploadId, Admission> = admissions.collect();
    let mut entered = HashSet::new();
    for archived in group {
        let id = archived.batch.id;
        let admitted = admissions
            .get(&id.upload.id)
            .is_some_and(|known| known.admits(id));
        if admitted && enter_in_ledger(&mut transaction, archived).await? {
            entered.insert(id);
        }
    }
    let (outcomes, new) = rules::outcomes(group, &admissions, entered);
    for batch in new {
        insert_rows(&mut transaction, batch, &known[&batch.id.upload.id]).await?;
    }
    transaction.commit().await?;
    Ok(outcomes)
}

/// Looks up the uploads of the group. An upload in `failing` counts as failed.
async fn fence(
    store: &SqliteStore,
    connection: &mut SqliteConnection,
    group: &[ArchivedBatch],
) -> sqlx::Result<HashMap<UploadId, Known>> {
    let mut known = HashMap::new();
    for archived in group {
        let upload = archived.batch.id.upload;
        if !known.contains_key(&upload.id)
            && let Some(mut found) = look_up(connection, upload.id).await?
        {
            if store.is_failing(upload) {
                found.admission = Admission::Fenced {
                    epoch: upload.epoch,
                    status: Status::Failed,
                };
            }
            known.insert(upload.id, found);
        }
    }
    Ok(known)
}

/// The columns `number`, `dataset`, `epoch` and `status` of an upload, and whether it has expired.
type Found = (i64, Option<Json<UploadDataset>>, i32, String, bool);

async fn look_up(connection: &mut SqliteConnection, id: UploadId) -> sqlx::Result<Option<Known>> {
    let found: Option<Found> = sqlx::query_as(
        "SELECT number, dataset, epoch, status, expired_at IS NOT NULL FROM uploads WHERE id = $1",
    )
    .bind(id.to_string())
    .fetch_optional(connection)
    .await?;
    Ok(
        found.map(|(number, dataset, epoch, status, has_expired)| Known {
            number,
            dataset: dataset.map(|dataset| dataset.0),
            admission: Admission::parse(epoch, &status),
            has_expired,
        }),
    )
}

/// Returns true if the batch is new in the ledger.
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
    .bind(batch.id.upload.id.to_string())
    .bind(batch.id.upload.epoch.get())
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

/// Inserts consecutive rows with one statement, since every statement is a round trip to SQLite's
/// thread. The statement also gets the offset and the length of each row. Otherwise SQLite would
/// parse the JSON and serialise every row again.
async fn insert_rows(
    connection: &mut SqliteConnection,
    batch: &Batch,
    upload: &Known,
) -> sqlx::Result<()> {
    check(batch, upload)?;
    let statement = match &upload.dataset {
        None => Cow::Borrowed(INSERT_ROWS),
        Some(dataset) => Cow::Owned(typed_tables::insert_rows(dataset)),
    };
    let id = batch.id.upload.id.to_string();
    let mut rows_json = batch.rows_json();
    let expected = batch.size_bytes() / batch.runs().len().max(1);
    for (first, count) in batch.runs() {
        let mut rows = Vec::with_capacity(expected);
        let mut spans = String::with_capacity(18 * *count as usize);
        for row in rows_json.by_ref().take(*count as usize) {
            let span = (rows.len() + 1) << 32 | (row.len() + 2);
            spans.push(if spans.is_empty() { '[' } else { ',' });
            let _: std::fmt::Result = write!(spans, "{span}");
            rows.push(b'[');
            rows.extend_from_slice(row);
            rows.push(b']');
        }
        spans.push(']');
        let mut insert = sqlx::query::<Sqlite>(&statement)
            .bind(first_id(upload.number) + signed(*first))
            .bind(rows)
            .bind(spans);
        if upload.dataset.is_some() {
            insert = insert.bind(id.as_str());
        }
        insert.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Fails for a batch that must not be stored, although SQLite would store its rows.
fn check(batch: &Batch, upload: &Known) -> sqlx::Result<()> {
    if has_nul(batch) {
        return Err(sql::invalid(
            "a cell has a NUL character, which cannot be stored as text",
        ));
    }
    if batch.last_row() >= ROW_NUMBER_LIMIT {
        return Err(sql::invalid(
            "an upload on SQLite has at most 2^36 - 1 rows; use Postgres for a larger file",
        ));
    }
    if let Some(dataset) = &upload.dataset {
        let names = dataset.columns.iter().map(|column| &column.name);
        if !batch.columns.iter().eq(names) {
            return Err(sql::invalid(
                "the batch does not have the columns of its upload's dataset",
            ));
        }
    }
    Ok(())
}

/// SQLite stores a NUL, but some clients then cut the text at the NUL. Postgres does not accept a
/// NUL, so this adapter does not either.
fn has_nul(batch: &Batch) -> bool {
    let suspect = |row: &[u8]| memchr::memmem::find(row, b"\\u0000").is_some();
    batch.rows_json().any(suspect)
        && batch.rows().flatten().any(|cell| {
            // Decoding the batch fails for an escape that is not text, so no such cell gets here.
            let text = cell.text().ok().flatten();
            text.is_some_and(|text| text.contains(&0))
        })
}
