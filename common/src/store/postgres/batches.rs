//! Stores groups of batches: fence, ledger, rows, commit.
//!
//! This version stores rows in the table of the upload's dataset, and sets `dataset` in the ledger
//! entry. If the upload has no dataset, or if its rows are staged, it stores them in the table
//! `landing` and sets `landing`. An entry with neither is of a merged upload, or from the previous
//! version, which stored the rows in the table `rows`. Rows that violate a constraint of a
//! dataset's table are rejected, and counted in the entry.

mod rejected;

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use jiff_sqlx::Timestamp as SqlTimestamp;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Connection, FromRow, PgConnection, Row};
use uuid::Uuid;

use super::connections::{LONG, SHORT};
use super::copy::staged::StagedBatch;
use super::table_rows::{self, DirtyTables};
use super::upload_record::find;
use super::{PostgresStore, copy, fence_key, key};
use crate::batch::{Batch, BatchId};
use crate::error::PortResult;
use crate::progress::{Counters, Snapshot};
use crate::store::rules::{self, Admission};
use crate::store::sql::{self, LedgerRecord, ListedBatch, signed};
use crate::store::{
    ArchivedBatch, BatchQuery, BatchRecord, BatchStatus, BatchStore, LedgerEntry, StoreOutcome,
};
use crate::upload::{UploadDataset, UploadId, UploadKey};

#[async_trait]
impl BatchStore for PostgresStore {
    async fn admits(&self, id: BatchId) -> PortResult<bool> {
        self.call("store.admits", SHORT, async |connection| {
            let found: Option<(i32, String, bool)> = sqlx::query_as(
                "SELECT epoch, status, expired_at IS NOT NULL FROM uploads WHERE id = $1",
            )
            .bind(id.upload.id.as_uuid())
            .fetch_optional(connection)
            .await?;
            let has_expired = matches!(found, Some((_, _, true)));
            let known = found.map(|(epoch, status, _)| Admission::parse(epoch, &status));
            Ok(Admission::is_worth_archiving(known, has_expired, id))
        })
        .await
    }

    async fn store(&self, group: &[ArchivedBatch]) -> PortResult<Vec<StoreOutcome>> {
        self.call("store.store", LONG, async |connection| {
            store(connection, group, &self.dirty_tables).await
        })
        .await
    }

    async fn ledger(&self, key: UploadKey) -> PortResult<Vec<LedgerEntry>> {
        self.call("store.ledger", LONG, async |connection| {
            let entries: Vec<LedgerRecord> = sqlx::query_as(
                "SELECT seq, first_row, rows, rejected, updated, duplicate, archive_bytes, archive_crc32,
                        archive_compression, object_bytes
                 FROM batches WHERE upload_id = $1 AND epoch = $2 ORDER BY seq",
            )
            .bind(key.id.as_uuid())
            .bind(key.epoch.get())
            .fetch_all(&mut *connection)
            .await?;
            entries.into_iter().map(sql::ledger_entry).collect()
        })
        .await
    }

    async fn batches(&self, key: UploadKey, query: BatchQuery) -> PortResult<Vec<BatchRecord>> {
        self.call("store.batches", LONG, async |connection| {
            let listed = sqlx::query(LIST)
                .bind(key.id.as_uuid())
                .bind(key.epoch.get())
                .bind(query.status.map(BatchStatus::name))
                .bind(query.after.cast_signed())
                .bind(i64::from(query.limit))
                .fetch_all(connection)
                .await?;
            let record = |row: &PgRow| {
                let at: SqlTimestamp = row.try_get("at")?;
                sql::batch_record(ListedBatch::from_row(row)?, at.to_jiff())
            };
            listed.iter().map(record).collect()
        })
        .await
    }

    async fn progress(&self, key: UploadKey) -> PortResult<Snapshot> {
        self.call("store.progress", LONG, async |connection| {
            let Some(upload) = find(connection, key.id).await? else {
                return Ok(Snapshot::default());
            };
            let stored: Vec<(i32, i32, i32)> = sqlx::query_as(
                "SELECT seq, rows, rejected FROM batches WHERE upload_id = $1 AND epoch = $2",
            )
            .bind(key.id.as_uuid())
            .bind(key.epoch.get())
            .fetch_all(&mut *connection)
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
        self.call("store.sums", LONG, async |connection| {
            let Some(upload) = find(connection, key.id).await? else {
                return Ok(Counters::default());
            };
            let (batches, stored, rejected): (i64, i64, i64) = sqlx::query_as(
                "SELECT count(*), coalesce(sum(rows - rejected), 0)::bigint, coalesce(sum(rejected), 0)::bigint
                 FROM batches WHERE upload_id = $1 AND epoch = $2",
            )
            .bind(key.id.as_uuid())
            .bind(key.epoch.get())
            .fetch_one(&mut *connection)
            .await?;
            Ok(Counters {
                rows_read: upload.rows_read,
                bytes_received: upload.bytes_received,
                rows_stored: sql::count("rows", stored)?,
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
                 NULL::integer AS attempts, NULL AS reason, stored_at AS at
          FROM batches WHERE upload_id = $1 AND epoch = $2 AND seq > $4
          UNION ALL
          SELECT seq, CASE WHEN retried_at IS NULL THEN 'dead' ELSE 'retrying' END, first_row, rows, 0,
                 attempts, reason, coalesce(retried_at, parked_at)
          FROM dead_letters WHERE upload_id = $1 AND epoch = $2 AND seq > $4) listed
    WHERE $3::text IS NULL OR status = $3
    ORDER BY seq LIMIT $5";

/// The findings of the fence about the uploads of a group. A locked upload has no number and no
/// dataset here.
#[derive(Debug, Default)]
struct Fence {
    admissions: HashMap<UploadId, Admission>,
    /// The numbers of the uploads in `landing`.
    numbers: HashMap<UploadId, i64>,
    /// The datasets of the uploads that have one.
    datasets: HashMap<UploadId, UploadDataset>,
}

impl Fence {
    /// Whether the rows of a batch go into the table of a dataset now.
    fn is_typed(&self, id: BatchId) -> bool {
        let dataset = self.datasets.get(&id.upload.id);
        dataset.is_some_and(|dataset| !dataset.is_staged())
    }

    /// Whether the rows of a batch are staged.
    fn is_staged(&self, id: BatchId) -> bool {
        let dataset = self.datasets.get(&id.upload.id);
        dataset.is_some_and(UploadDataset::is_staged)
    }
}

async fn store(
    connection: &mut PgConnection,
    group: &[ArchivedBatch],
    dirty: &DirtyTables,
) -> sqlx::Result<Vec<StoreOutcome>> {
    let mut transaction = connection.begin().await?;
    let fence = fence(&mut transaction, group).await?;
    let admitted: Vec<&ArchivedBatch> = group
        .iter()
        .filter(|archived| {
            let id = archived.batch.id;
            let known = fence.admissions.get(&id.upload.id);
            known.is_some_and(|known| known.admits(id))
        })
        .collect();
    let entered = enter_in_ledger(&mut transaction, &admitted, &fence).await?;
    let (mut outcomes, to_copy) = rules::outcomes(group, &fence.admissions, entered);
    let (typed, landing): (Vec<&Batch>, Vec<&Batch>) = to_copy
        .into_iter()
        .partition(|batch| fence.is_typed(batch.id));
    let (staged, landing): (Vec<&Batch>, Vec<&Batch>) = landing
        .into_iter()
        .partition(|batch| fence.is_staged(batch.id));
    if !landing.is_empty() {
        let copy = transaction.copy_in_raw(copy::STATEMENT).await?;
        copy::send_rows(copy, &landing, &fence.numbers).await?;
    }
    stage(&mut transaction, &staged, &fence).await?;
    let datasets = &fence.datasets;
    let violations = table_rows::store(&mut transaction, &typed, datasets, dirty).await?;
    let mut rejected = rejected::record(&mut transaction, &typed, datasets, &violations).await?;
    let replays: Vec<BatchId> = rules::replayed(group, &outcomes)
        .filter(|id| fence.is_typed(*id))
        .collect();
    rejected.extend(rejected::of_replays(&mut transaction, &replays).await?);
    transaction.commit().await?;
    rules::count_rejected(group, &mut outcomes, &rejected);
    Ok(outcomes)
}

/// Puts rows into `landing` that are merged into the table of their dataset at the end.
async fn stage(
    connection: &mut PgConnection,
    batches: &[&Batch],
    fence: &Fence,
) -> sqlx::Result<()> {
    if batches.is_empty() {
        return Ok(());
    }
    let mut staged = Vec::with_capacity(batches.len());
    for batch in batches {
        let id = batch.id.upload.id;
        let dataset = &fence.datasets[&id];
        table_rows::check_columns(batch, dataset)?;
        staged.push(StagedBatch {
            upload: fence.numbers[&id],
            batch,
            columns: &dataset.columns,
        });
    }
    let copy = connection.copy_in_raw(copy::STATEMENT).await?;
    copy::staged::send_rows(copy, &staged).await
}

/// The columns `id`, `epoch`, `status`, `number` and `dataset` of an upload.
type Fenced = (Uuid, i32, String, i64, Option<Json<UploadDataset>>);

/// Takes the shared locks of all uploads of the group, without waiting for any. Then reads their
/// statuses in a separate statement, whose snapshot is younger than the locks.
async fn fence(connection: &mut PgConnection, group: &[ArchivedBatch]) -> sqlx::Result<Fence> {
    let mut uploads: Vec<UploadId> = group
        .iter()
        .map(|archived| archived.batch.id.upload.id)
        .collect();
    uploads.sort_unstable();
    uploads.dedup();
    let keys: Vec<i64> = uploads.iter().map(|id| fence_key(*id)).collect();
    let locked: Vec<i64> = sqlx::query_scalar(
        "SELECT key FROM unnest($1) AS key WHERE NOT pg_try_advisory_xact_lock_shared(key)",
    )
    .bind(keys)
    .fetch_all(&mut *connection)
    .await?;
    let (locked, shared): (Vec<UploadId>, Vec<UploadId>) = uploads
        .into_iter()
        .partition(|id| locked.contains(&fence_key(*id)));
    let ids: Vec<Uuid> = shared.iter().map(UploadId::as_uuid).collect();
    let found: Vec<Fenced> =
        sqlx::query_as("SELECT id, epoch, status, number, dataset FROM uploads WHERE id = ANY($1)")
            .bind(ids)
            .fetch_all(connection)
            .await?;
    let mut fence = Fence::default();
    for (id, epoch, status, number, dataset) in found {
        let id = UploadId::from(id);
        fence
            .admissions
            .insert(id, Admission::parse(epoch, &status));
        fence.numbers.insert(id, number);
        if let Some(Json(dataset)) = dataset {
            fence.datasets.insert(id, dataset);
        }
    }
    let locked = locked.into_iter().map(|id| (id, Admission::Locked));
    fence.admissions.extend(locked);
    Ok(fence)
}

/// Enters batches in the ledger, and returns those that were not in it. Each list has one value per
/// batch; the last one says whether its rows are in the table of a dataset.
const ENTER_IN_LEDGER: &str = "INSERT INTO batches
        (upload_id, epoch, seq, rows, first_row, archive_bytes, archive_crc32, archive_compression, object_bytes, dataset, landing)
    SELECT *, NOT dataset
    FROM unnest($1::uuid[], $2::int[], $3::int[], $4::int[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::bigint[], $10::boolean[])
         AS b (upload_id, epoch, seq, rows, first_row, archive_bytes, archive_crc32, archive_compression, object_bytes, dataset)
    ON CONFLICT DO NOTHING
    RETURNING upload_id, epoch, seq";

/// Enters the batches that are not in the ledger yet, sorted, so that two groups with the same
/// batches cannot deadlock. Returns the new ones.
async fn enter_in_ledger(
    connection: &mut PgConnection,
    batches: &[&ArchivedBatch],
    fence: &Fence,
) -> sqlx::Result<HashSet<BatchId>> {
    if batches.is_empty() {
        return Ok(HashSet::new());
    }
    let mut sorted = batches.to_vec();
    sorted.sort_unstable_by_key(|archived| archived.batch.id);
    let uploads = sorted.iter().map(|it| it.batch.id.upload.id.as_uuid());
    let epochs = sorted.iter().map(|it| it.batch.id.upload.epoch.get());
    let seqs = sorted.iter().map(|it| it.batch.id.seq.cast_signed());
    let rows = sorted.iter().map(|it| it.batch.row_count() as i32);
    let first_rows = sorted.iter().map(|it| signed(it.batch.first_row()));
    let archive_bytes = sorted.iter().map(|it| signed(it.archive_bytes));
    let archive_crc32 = sorted.iter().map(|it| i64::from(it.archive_crc32));
    let compressions = sorted.iter().map(|it| sql::compression_columns(it));
    let (compressions, object_bytes): (Vec<_>, Vec<_>) = compressions.unzip();
    let are_typed = sorted.iter().map(|it| fence.is_typed(it.batch.id));
    let new: Vec<(Uuid, i32, i32)> = sqlx::query_as(ENTER_IN_LEDGER)
        .bind(uploads.collect::<Vec<_>>())
        .bind(epochs.collect::<Vec<_>>())
        .bind(seqs.collect::<Vec<_>>())
        .bind(rows.collect::<Vec<_>>())
        .bind(first_rows.collect::<Vec<_>>())
        .bind(archive_bytes.collect::<Vec<_>>())
        .bind(archive_crc32.collect::<Vec<_>>())
        .bind(compressions)
        .bind(object_bytes)
        .bind(are_typed.collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let id = |(upload, epoch, seq): (Uuid, i32, i32)| BatchId {
        upload: key(upload, epoch),
        seq: seq.cast_unsigned(),
    };
    Ok(new.into_iter().map(id).collect())
}
