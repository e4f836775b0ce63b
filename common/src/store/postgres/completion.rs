//! The end of an upload whose rows are all accounted for.

use async_trait::async_trait;
use sqlx::{Connection, PgConnection};

use super::connections::LONG;
use super::dead_letters::forget_stored;
use super::upload_record::{find, is_staged};
use super::{PostgresStore, lock_status};
use crate::error::PortResult;
use crate::store::rules::{self, Counted};
use crate::store::sql::{count, signed};
use crate::store::{Completed, Completion, CompletionStore};
use crate::upload::{UploadId, UploadKey};

#[async_trait]
impl CompletionStore for PostgresStore {
    async fn completion(&self, id: UploadId) -> PortResult<Completion> {
        self.call("store.completion", LONG, async |connection| {
            completion(connection, id).await
        })
        .await
    }

    async fn complete(&self, key: UploadKey, dead: u64) -> PortResult<Completed> {
        const OPERATION: &str = "store.complete";
        let completed = self.call(OPERATION, LONG, async |connection| {
            complete(connection, key, dead).await
        });
        match completed.await? {
            Some(completed) => Ok(completed),
            None => self.merge(OPERATION, key).await,
        }
    }
}

/// Completes an upload that is not merged: its rows are stored already, or some of its batches are
/// dead letters. `$1` to `$3`: id, epoch, how many dead letters
/// the caller has found. Only this statement completes such an upload, and it
/// checks all counts itself.
///
/// The rows of an unreadable dead letter are not known, so the rows that are left count as dead.
/// Triggers of migrations 0009 and 0011 want the counts of a merge, and `written_columns`.
const COMPLETE: &str = "UPDATE uploads u
    SET status = CASE WHEN rejected.rows = 0 AND dead.batches = 0 THEN 'completed' ELSE 'partial' END,
        rows_inserted = ledger.stored, rows_violating = ledger.rejected,
        rows_dead = u.rows_read - u.rows_rejected - ledger.rejected - ledger.stored,
        rows_updated = CASE WHEN u.dataset ->> 'merge' IS NOT NULL THEN 0 END,
        rows_duplicate = CASE WHEN u.dataset ->> 'merge' IS NOT NULL THEN 0 END,
        written_columns = CASE WHEN u.dataset ->> 'table' IS NOT NULL THEN '{}'::text[] END,
        updated_at = now(), finished_at = now()
    FROM (SELECT count(*) AS batches, coalesce(sum(b.rows), 0)::bigint AS rows,
                 coalesce(sum(b.rejected), 0)::bigint AS rejected,
                 -- Staged rows are not stored.
                 coalesce(sum(b.rows - b.rejected) FILTER (WHERE NOT s.is_staged), 0)::bigint AS stored
          FROM batches b
          CROSS JOIN (SELECT dataset ->> 'merge' IS NOT NULL AS is_staged FROM uploads WHERE id = $1) s
          WHERE upload_id = $1 AND epoch = $2) ledger,
         (SELECT count(*) AS rows FROM rejected_rows WHERE upload_id = $1) rejected,
         (SELECT count(*) AS batches FROM dead_letters
          WHERE upload_id = $1 AND is_missing AND retried_at IS NULL) dead
    WHERE u.id = $1 AND u.epoch = $2 AND u.status = 'processing'
      AND u.batches_total = ledger.batches + dead.batches AND dead.batches = $3
      AND CASE WHEN dead.batches = 0 THEN u.dataset ->> 'merge' IS NULL AND u.rows_read = ledger.rows + u.rows_rejected
               ELSE u.rows_read >= ledger.rows + u.rows_rejected END
      AND rejected.rows = u.rows_rejected + ledger.rejected";

/// Completes an upload. Returns `None` if its rows must be merged first.
async fn complete(
    connection: &mut PgConnection,
    key: UploadKey,
    dead: u64,
) -> sqlx::Result<Option<Completed>> {
    let mut transaction = connection.begin().await?;
    lock_status(&mut transaction, key.id).await?;
    let completed = sqlx::query(COMPLETE)
        .bind(key.id.as_uuid())
        .bind(key.epoch.get())
        .bind(signed(dead))
        .execute(&mut *transaction)
        .await?;
    if completed.rows_affected() == 0 {
        let must_merge = dead == 0 && is_staged(&mut transaction, key.id).await?;
        transaction.rollback().await?;
        return Ok((!must_merge).then_some(Completed::No));
    }
    forget_stored(&mut transaction, key.id).await?;
    transaction.commit().await?;
    Ok(Some(Completed::Yes))
}

async fn completion(connection: &mut PgConnection, id: UploadId) -> sqlx::Result<Completion> {
    let Some(upload) = find(connection, id).await? else {
        return Ok(Completion::Ended);
    };
    if upload.status.is_terminal() {
        return Ok(Completion::Ended);
    }
    let total = rules::sealed_batches(&upload);
    // While the file is received, only the limit of a dataset's upload can end it here.
    if total.is_none() && upload.dataset.is_none() {
        return Ok(Completion::Incomplete);
    }
    // One statement, because a batch between two statements could be counted twice: as a dead
    // letter and, once another copy of it is stored, in the ledger.
    let (batches, rows, violating, dead, rejected): (i64, i64, i64, i64, i64) = sqlx::query_as(
        "SELECT ledger.*, dead.batches,
                -- Not counted while batches are missing.
                CASE WHEN ledger.batches + dead.batches >= $3
                     THEN (SELECT count(*) FROM rejected_rows WHERE upload_id = $1) ELSE 0 END
         FROM (SELECT count(*) AS batches, coalesce(sum(rows), 0)::bigint AS rows,
                     coalesce(sum(rejected), 0)::bigint AS violating
               FROM batches WHERE upload_id = $1 AND epoch = $2) ledger,
              (SELECT count(*) AS batches FROM dead_letters
               WHERE upload_id = $1 AND epoch = $2 AND is_missing AND retried_at IS NULL) dead",
    )
    .bind(id.as_uuid())
    .bind(upload.epoch.get())
    .bind(total.map_or(i64::MAX, i64::from))
    .fetch_one(connection)
    .await?;
    let counted = Counted {
        batches: count("count(*)", batches)?,
        rows: count("rows", rows)?,
        violating: count("rejected", violating)?,
        rejected: count("count(*)", rejected)?,
        dead: count("count(*)", dead)?,
    };
    Ok(rules::completion(upload, counted))
}
