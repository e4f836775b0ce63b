//! The end of an upload whose rows are all accounted for.

use async_trait::async_trait;

use super::dead_letters::forget_stored;
use super::upload_record::find;
use super::{SqliteStore, merging, now, rejects};
use crate::error::PortResult;
use crate::sqlite::{Database, call};
use crate::store::rules::{self, Counted};
use crate::store::sql::{count, signed};
use crate::store::{Completed, Completion, CompletionStore};
use crate::upload::{UploadId, UploadKey};

#[async_trait]
impl CompletionStore for SqliteStore {
    async fn completion(&self, id: UploadId) -> PortResult<Completion> {
        call("store.completion", completion(&self.database, id)).await
    }

    async fn complete(&self, key: UploadKey, dead: u64) -> PortResult<Completed> {
        call("store.complete", complete(&self.database, key, dead)).await
    }
}

/// Completes an upload that is not merged: its rows are stored already, or some of its batches are
/// dead letters. `$1` to `$5`: id, epoch, time, rejected rows on record, how many dead letters
/// the caller has found. Only this statement
/// completes such an upload, and it checks all counts itself. The rows of an unreadable dead letter
/// are not known, so the rows that are left count as dead.
const COMPLETE: &str = "UPDATE uploads
    SET status = CASE WHEN $4 = 0 AND l.dead = 0 THEN 'completed' ELSE 'partial' END,
        rows_inserted = l.stored, rows_violating = l.rejected,
        rows_dead = uploads.rows_read - uploads.rows_rejected - l.rejected - l.stored,
        rows_updated = CASE WHEN uploads.dataset ->> 'merge' IS NOT NULL THEN 0 END,
        rows_duplicate = CASE WHEN uploads.dataset ->> 'merge' IS NOT NULL THEN 0 END,
        updated_at = $3, finished_at = $3
    FROM (SELECT count(*) AS batches, coalesce(sum(rows), 0) AS rows, coalesce(sum(rejected), 0) AS rejected,
                 -- Staged rows are not stored.
                 CASE WHEN (SELECT dataset ->> 'merge' IS NULL FROM uploads WHERE id = $1)
                      THEN coalesce(sum(rows - rejected), 0) ELSE 0 END AS stored,
                 (SELECT count(*) FROM dead_letters
                  WHERE upload_id = $1 AND is_missing AND retried_at IS NULL) AS dead
          FROM batches WHERE upload_id = $1 AND epoch = $2) l
    WHERE uploads.id = $1 AND uploads.epoch = $2 AND uploads.status = 'processing'
      AND uploads.batches_total = l.batches + l.dead AND l.dead = $5
      AND CASE WHEN l.dead = 0
               THEN uploads.dataset ->> 'merge' IS NULL AND uploads.rows_read = l.rows + uploads.rows_rejected
               ELSE uploads.rows_read >= l.rows + uploads.rows_rejected END
      AND $4 = uploads.rows_rejected + l.rejected";

async fn complete(database: &Database, key: UploadKey, dead: u64) -> sqlx::Result<Completed> {
    let mut transaction = database.begin().await?;
    let rejected = rejects::count(&mut transaction, key.id).await?;
    let completed = sqlx::query(COMPLETE)
        .bind(key.id.to_string())
        .bind(key.epoch.get())
        .bind(now())
        .bind(rejected)
        .bind(signed(dead))
        .execute(&mut *transaction)
        .await?;
    let is_completed = completed.rows_affected() > 0;
    if is_completed {
        forget_stored(&mut transaction, key.id).await?;
    }
    transaction.commit().await?;
    match (is_completed, dead) {
        (true, _) => Ok(Completed::Yes),
        (false, 0) => merging::complete(database, key).await,
        (false, _) => Ok(Completed::No),
    }
}

async fn completion(database: &Database, id: UploadId) -> sqlx::Result<Completion> {
    let Some(upload) = find(database, id).await? else {
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
    // One snapshot, because a batch could be counted twice in two: as a dead letter and, once
    // another copy of it is stored, in the ledger.
    let mut connection = database.readers.begin().await?;
    let (batches, rows, violating, dead): (i64, i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), coalesce(sum(rows), 0), coalesce(sum(rejected), 0),
                (SELECT count(*) FROM dead_letters
                 WHERE upload_id = $1 AND epoch = $2 AND is_missing AND retried_at IS NULL)
         FROM batches WHERE upload_id = $1 AND epoch = $2",
    )
    .bind(id.to_string())
    .bind(upload.epoch.get())
    .fetch_one(&mut *connection)
    .await?;
    let mut counted = Counted {
        batches: count("count(*)", batches)?,
        rows: count("rows", rows)?,
        violating: count("rejected", violating)?,
        rejected: 0,
        dead: count("count(*)", dead)?,
    };
    // While batches are missing, the rejected rows do not matter.
    if total.is_some_and(|total| counted.batches + counted.dead >= u64::from(total)) {
        let rejected = rejects::count(&mut connection, id).await?;
        counted.rejected = count("count(*)", rejected)?;
    }
    Ok(rules::completion(upload, counted))
}
