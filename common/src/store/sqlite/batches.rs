//! Stores groups of batches: fence, ledger, rows, rejected rows, commit.

mod insert;
mod runs;
mod typed_rows;

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row, SqliteConnection};

pub(super) use self::insert::stage;
use super::upload_record::find;
use super::{SqliteStore, now};
use crate::batch::BatchId;
use crate::error::PortResult;
use crate::progress::{Counters, Snapshot};
use crate::sqlite::call;
use crate::store::rules::{self, Admission};
use crate::store::sql::{self, LedgerRecord, ListedBatch, signed};
use crate::store::{
    ArchivedBatch, BatchQuery, BatchRecord, BatchStatus, BatchStore, LedgerEntry, StoreOutcome,
};
use crate::upload::{Status, UploadDataset, UploadId, UploadKey};

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
                "SELECT seq, first_row, rows, rejected, updated, duplicate, archive_bytes, archive_crc32,
                        archive_compression, object_bytes
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

    async fn batches(&self, key: UploadKey, query: BatchQuery) -> PortResult<Vec<BatchRecord>> {
        call("store.batches", async {
            let listed = sqlx::query(LIST)
                .bind(key.id.to_string())
                .bind(key.epoch.get())
                .bind(query.status.map(BatchStatus::name))
                .bind(query.after.cast_signed())
                .bind(i64::from(query.limit))
                .fetch_all(&self.database.readers)
                .await?;
            let record = |row: &SqliteRow| {
                let at: String = row.try_get("at")?;
                sql::batch_record(ListedBatch::from_row(row)?, sql::parsed("at", &at)?)
            };
            listed.iter().map(record).collect()
        })
        .await
    }

    async fn progress(&self, key: UploadKey) -> PortResult<Snapshot> {
        call("store.progress", async {
            let Some(upload) = find(&self.database, key.id).await? else {
                return Ok(Snapshot::default());
            };
            let stored: Vec<(i32, i32, i32)> = sqlx::query_as(
                "SELECT seq, rows, rejected FROM batches WHERE upload_id = $1 AND epoch = $2",
            )
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
            let (batches, rows, rejected): (i64, i64, i64) = sqlx::query_as(
                "SELECT count(*), coalesce(sum(rows - rejected), 0), coalesce(sum(rejected), 0)
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
                rows_rejected: sql::count("rejected", rejected)?,
                batches_stored: sql::count("count(*)", batches)?,
            })
        })
        .await
    }
}

/// The batches of an upload that are stored or were parked, in the order of their numbers. `$1` to
/// `$5`: id, epoch, status, number of the batch before the first one, limit.
const LIST: &str = "SELECT seq, status, first_row, rows, rejected, attempts, reason, at
    FROM (SELECT seq, 'stored' AS status, first_row, rows, rejected,
                 NULL AS attempts, NULL AS reason, stored_at AS at
          FROM batches WHERE upload_id = $1 AND epoch = $2 AND seq > $4
          UNION ALL
          SELECT seq, CASE WHEN retried_at IS NULL THEN 'dead' ELSE 'retrying' END, first_row, rows, 0,
                 attempts, reason, coalesce(retried_at, parked_at)
          FROM dead_letters WHERE upload_id = $1 AND epoch = $2 AND seq > $4) listed
    WHERE $3 IS NULL OR status = $3
    ORDER BY seq LIMIT $5";

async fn store(store: &SqliteStore, group: &[ArchivedBatch]) -> sqlx::Result<Vec<StoreOutcome>> {
    let mut transaction = store.database.begin().await?;
    let started = Instant::now();
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
    let (mut outcomes, new) = rules::outcomes(group, &admissions, entered);
    let mut rejected = HashMap::new();
    for batch in new {
        let upload = &known[&batch.id.upload.id];
        let count = insert::rows(&mut transaction, batch, upload, started).await?;
        if count > 0 {
            note_rejected(&mut transaction, batch.id, count).await?;
            rejected.insert(batch.id, count);
        }
    }
    let replayed: Vec<BatchId> = rules::replayed(group, &outcomes).collect();
    for id in replayed {
        if let Some(count) = rejected_before(&mut transaction, id).await? {
            rejected.insert(id, count);
        }
    }
    rules::count_rejected(group, &mut outcomes, &rejected);
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
    let (compression, object_bytes) = sql::compression_columns(archived);
    let entered = sqlx::query(
        "INSERT INTO batches (upload_id, epoch, seq, rows, first_row, archive_bytes, archive_crc32,
                              archive_compression, object_bytes, stored_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT DO NOTHING",
    )
    .bind(batch.id.upload.id.to_string())
    .bind(batch.id.upload.epoch.get())
    .bind(batch.id.seq.cast_signed())
    .bind(batch.row_count() as i64)
    .bind(signed(batch.first_row()))
    .bind(signed(archived.archive_bytes))
    .bind(i64::from(archived.archive_crc32))
    .bind(compression)
    .bind(object_bytes)
    .bind(now())
    .execute(connection)
    .await?;
    Ok(entered.rows_affected() > 0)
}

/// Writes in the ledger how many rows of a batch are rejected.
async fn note_rejected(
    connection: &mut SqliteConnection,
    id: BatchId,
    count: u32,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE batches SET rejected = $4 WHERE upload_id = $1 AND epoch = $2 AND seq = $3",
    )
    .bind(id.upload.id.to_string())
    .bind(id.upload.epoch.get())
    .bind(id.seq.cast_signed())
    .bind(count)
    .execute(connection)
    .await?;
    Ok(())
}

/// How many rows of a batch are rejected, according to the ledger.
async fn rejected_before(
    connection: &mut SqliteConnection,
    id: BatchId,
) -> sqlx::Result<Option<u32>> {
    let rejected: Option<i32> = sqlx::query_scalar(
        "SELECT rejected FROM batches WHERE upload_id = $1 AND epoch = $2 AND seq = $3",
    )
    .bind(id.upload.id.to_string())
    .bind(id.upload.epoch.get())
    .bind(id.seq.cast_signed())
    .fetch_optional(connection)
    .await?;
    rejected
        .map(|count| sql::count("rejected", count))
        .transpose()
}
