//! The ledger and the rows: what workers write.

use std::collections::{HashMap, HashSet};

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use sqlx::postgres::{PgConnection, PgPool};
use uuid::Uuid;

use super::super::rules::{self, Admission, Counted, signed, unsigned};
use super::copy;
use super::uploads::find;
use super::{fence_key, lock_status, port_error};
use crate::batch::BatchId;
use crate::error::{PortError, PortResult};
use crate::progress::{Snapshot, StoredBatch};
use crate::store::{
    ArchivedBatch, Completion, DeadBatch, LedgerEntry, Parked, StoreOutcome, StoredRow,
};
use crate::upload::{Status, UploadId};

/// Fence, ledger, rows, commit.
pub(super) async fn store(pool: &PgPool, group: &[ArchivedBatch]) -> PortResult<Vec<StoreOutcome>> {
    const OPERATION: &str = "store.store";
    let mut transaction = pool
        .begin()
        .await
        .map_err(|error| port_error(OPERATION, error))?;
    let admissions = fence(&mut transaction, group)
        .await
        .map_err(|error| port_error(OPERATION, error))?;
    let admitted: Vec<&ArchivedBatch> = group
        .iter()
        .filter(|archived| {
            let id = archived.batch.id;
            admissions
                .get(&id.upload)
                .is_some_and(|known| known.admits(id))
        })
        .collect();
    let entered = enter_in_ledger(&mut transaction, &admitted)
        .await
        .map_err(|error| port_error(OPERATION, error))?;

    let (outcomes, to_copy) = rules::outcomes(group, &admissions, entered);
    if !to_copy.is_empty() {
        copy_rows(&mut transaction, &to_copy).await?;
    }
    transaction
        .commit()
        .await
        .map_err(|error| port_error(OPERATION, error))?;
    Ok(outcomes)
}

/// Shares the locks of all uploads of the group, in order, so that two groups never wait for each other in a circle; reads
/// their statuses in a statement of its own, whose snapshot is younger than the locks.
async fn fence(
    connection: &mut PgConnection,
    group: &[ArchivedBatch],
) -> sqlx::Result<HashMap<UploadId, Admission>> {
    let mut uploads: Vec<UploadId> = group
        .iter()
        .map(|archived| archived.batch.id.upload)
        .collect();
    uploads.sort_unstable();
    uploads.dedup();
    let mut keys: Vec<i64> = uploads.iter().map(|id| fence_key(*id)).collect();
    keys.sort_unstable();
    for key in keys {
        sqlx::query("SELECT pg_advisory_xact_lock_shared($1)")
            .bind(key)
            .execute(&mut *connection)
            .await?;
    }
    let ids: Vec<Uuid> = uploads.iter().map(|id| id.as_uuid()).collect();
    let found: Vec<(Uuid, i32, String)> =
        sqlx::query_as("SELECT id, epoch, status FROM uploads WHERE id = ANY($1)")
            .bind(ids)
            .fetch_all(connection)
            .await?;
    Ok(found.into_iter().filter_map(admission).collect())
}

fn admission((id, epoch, status): (Uuid, i32, String)) -> Option<(UploadId, Admission)> {
    let status = status.parse().ok()?;
    Some((id.into(), Admission { epoch, status }))
}

/// Enters what is not in the ledger yet, sorted, so that two groups with the same batches cannot deadlock. Returns what is
/// new.
async fn enter_in_ledger(
    connection: &mut PgConnection,
    batches: &[&ArchivedBatch],
) -> sqlx::Result<HashSet<BatchId>> {
    if batches.is_empty() {
        return Ok(HashSet::new());
    }
    let mut sorted = batches.to_vec();
    sorted.sort_unstable_by_key(|archived| archived.batch.id);
    let list =
        |of: fn(&ArchivedBatch) -> i64| sorted.iter().map(|batch| of(batch)).collect::<Vec<_>>();
    let uploads: Vec<Uuid> = sorted
        .iter()
        .map(|archived| archived.batch.id.upload.as_uuid())
        .collect();
    let epochs: Vec<i32> = sorted
        .iter()
        .map(|archived| archived.batch.id.epoch)
        .collect();
    let seqs: Vec<i32> = sorted
        .iter()
        .map(|archived| archived.batch.id.seq.cast_signed())
        .collect();
    let rows: Vec<i32> = sorted
        .iter()
        .map(|archived| archived.batch.row_count() as i32)
        .collect();
    let new: Vec<(Uuid, i32, i32)> = sqlx::query_as(
        "INSERT INTO batches (upload_id, epoch, seq, rows, first_row, archive_bytes, archive_crc32)
         SELECT * FROM unnest($1::uuid[], $2::int[], $3::int[], $4::int[], $5::bigint[], $6::bigint[], $7::bigint[])
         ON CONFLICT DO NOTHING
         RETURNING upload_id, epoch, seq",
    )
    .bind(uploads)
    .bind(epochs)
    .bind(seqs)
    .bind(rows)
    .bind(list(|archived| signed(archived.batch.first_row())))
    .bind(list(|archived| signed(archived.archive_bytes)))
    .bind(list(|archived| i64::from(archived.archive_crc32)))
    .fetch_all(connection)
    .await?;
    let id = |(upload, epoch, seq): (Uuid, i32, i32)| BatchId {
        upload: upload.into(),
        epoch,
        seq: seq.cast_unsigned(),
    };
    Ok(new.into_iter().map(id).collect())
}

async fn copy_rows(
    connection: &mut PgConnection,
    batches: &[&crate::batch::Batch],
) -> PortResult<()> {
    const OPERATION: &str = "store.copy";
    let largest = batches.iter().map(|batch| batch.size_bytes()).max();
    // Lengths instead of quotes, commas and brackets: about three bytes more per cell than in the message.
    let mut buffer = Vec::with_capacity(largest.unwrap_or(0) * 2);
    let mut copy = connection
        .copy_in_raw(copy::STATEMENT)
        .await
        .map_err(|error| port_error(OPERATION, error))?;
    buffer.extend_from_slice(copy::HEADER);
    for batch in batches {
        if let Err(error) = copy::append_rows(&mut buffer, batch) {
            // The connection must leave COPY, or its next user meets the failure.
            copy.abort("a cell is no text")
                .await
                .map_err(|error| port_error(OPERATION, error))?;
            return Err(PortError::invalid(OPERATION, error));
        }
        copy.send(buffer.as_slice())
            .await
            .map_err(|error| port_error(OPERATION, error))?;
        buffer.clear();
    }
    copy.send(copy::TRAILER)
        .await
        .map_err(|error| port_error(OPERATION, error))?;
    copy.finish()
        .await
        .map_err(|error| port_error(OPERATION, error))?;
    Ok(())
}

pub(super) async fn admits(pool: &PgPool, id: BatchId) -> PortResult<bool> {
    let found: Option<(Uuid, i32, String)> =
        sqlx::query_as("SELECT id, epoch, status FROM uploads WHERE id = $1")
            .bind(id.upload.as_uuid())
            .fetch_optional(pool)
            .await
            .map_err(|error| port_error("store.admits", error))?;
    let known = found.and_then(admission).map(|(_, known)| known);
    Ok(Admission::is_worthwhile(known, id))
}

pub(super) async fn completion(pool: &PgPool, id: UploadId) -> PortResult<Completion> {
    const OPERATION: &str = "store.completion";
    let Some(upload) = find(pool, id).await? else {
        return Ok(Completion::Ended);
    };
    if upload.status.is_terminal() {
        return Ok(Completion::Ended);
    }
    let (Status::Processing, Some(total)) = (upload.status, upload.batches_total) else {
        return Ok(Completion::Incomplete);
    };
    let (batches, rows, rejected): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), coalesce(sum(rows), 0)::bigint,
                -- Not counted while batches are missing.
                CASE WHEN count(*) >= $3 THEN (SELECT count(*) FROM rejected_rows WHERE upload_id = $1) ELSE 0 END
         FROM batches WHERE upload_id = $1 AND epoch = $2",
    )
    .bind(id.as_uuid())
    .bind(upload.epoch)
    .bind(i64::from(total))
    .fetch_one(pool)
    .await
    .map_err(|error| port_error(OPERATION, error))?;
    let counted = Counted {
        batches: unsigned(batches),
        stored: unsigned(rows),
        rejected: unsigned(rejected),
    };
    Ok(rules::completion(upload, total, counted))
}

pub(super) async fn ledger(
    pool: &PgPool,
    id: UploadId,
    epoch: i32,
) -> PortResult<Vec<LedgerEntry>> {
    let entries: Vec<(i32, i64, i32, i64, i64)> = sqlx::query_as(
        "SELECT seq, first_row, rows, archive_bytes, archive_crc32
         FROM batches WHERE upload_id = $1 AND epoch = $2 ORDER BY seq",
    )
    .bind(id.as_uuid())
    .bind(epoch)
    .fetch_all(pool)
    .await
    .map_err(|error| port_error("store.ledger", error))?;
    Ok(entries.into_iter().map(LedgerEntry::from).collect())
}

pub(super) fn rows(pool: &PgPool, id: UploadId) -> BoxStream<'_, PortResult<StoredRow>> {
    sqlx::query_as::<_, (i64, Vec<Option<String>>)>(
        "SELECT r.row_number, r.fields FROM rows r JOIN uploads u ON u.id = r.upload_id
         WHERE r.upload_id = $1 AND u.status IN ('completed', 'partial')
         ORDER BY r.row_number",
    )
    .bind(id.as_uuid())
    .fetch(pool)
    .map_ok(|(row_number, fields)| StoredRow {
        row_number: unsigned(row_number),
        fields,
    })
    .map_err(|error| port_error("store.rows", error))
    .boxed()
}

pub(super) async fn progress(pool: &PgPool, id: UploadId, epoch: i32) -> PortResult<Snapshot> {
    const OPERATION: &str = "store.progress";
    let Some(upload) = find(pool, id).await? else {
        return Ok(Snapshot::default());
    };
    let stored: Vec<(i32, i32)> =
        sqlx::query_as("SELECT seq, rows FROM batches WHERE upload_id = $1 AND epoch = $2")
            .bind(id.as_uuid())
            .bind(epoch)
            .fetch_all(pool)
            .await
            .map_err(|error| port_error(OPERATION, error))?;
    Ok(Snapshot {
        rows_read: upload.rows_read,
        bytes_received: upload.bytes_received,
        stored: stored.into_iter().map(StoredBatch::from).collect(),
    })
}

pub(super) async fn park(pool: &PgPool, dead: &DeadBatch) -> PortResult<Parked> {
    let parked = async {
        let mut transaction = pool.begin().await?;
        if let Some(id) = dead.id {
            lock_status(&mut transaction, id.upload).await?;
            let (stored,): (bool,) = sqlx::query_as(
                "SELECT EXISTS (SELECT FROM batches WHERE upload_id = $1 AND epoch = $2 AND seq = $3)",
            )
            .bind(id.upload.as_uuid())
            .bind(id.epoch)
            .bind(id.seq.cast_signed())
            .fetch_one(&mut *transaction)
            .await?;
            if stored {
                return Ok(Parked::AlreadyStored);
            }
        }
        // The broker may hand a dead letter over twice.
        sqlx::query(
            "INSERT INTO parked_batches (upload_id, epoch, seq, attempts, reason, body)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT DO NOTHING",
        )
        .bind(dead.id.map(|id| id.upload.as_uuid()))
        .bind(dead.id.map(|id| id.epoch))
        .bind(dead.id.map(|id| id.seq.cast_signed()))
        .bind(dead.attempts.cast_signed())
        .bind(&dead.reason)
        .bind(&dead.body[..])
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Parked::Kept)
    };
    parked
        .await
        .map_err(|error| port_error("store.park", error))
}
