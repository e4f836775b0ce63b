//! The end of an upload whose rows are all accounted for.

use async_trait::async_trait;

use super::upload_record::find;
use super::{SqliteStore, merging, now, rejects};
use crate::error::PortResult;
use crate::sqlite::{Database, call};
use crate::store::rules::{self, Counted};
use crate::store::sql::count;
use crate::store::{Completed, Completion, CompletionStore};
use crate::upload::{UploadId, UploadKey};

#[async_trait]
impl CompletionStore for SqliteStore {
    async fn completion(&self, id: UploadId) -> PortResult<Completion> {
        call("store.completion", completion(&self.database, id)).await
    }

    async fn complete(&self, key: UploadKey) -> PortResult<Completed> {
        call("store.complete", complete(&self.database, key)).await
    }
}

async fn complete(database: &Database, key: UploadKey) -> sqlx::Result<Completed> {
    let mut transaction = database.begin().await?;
    let rejected = rejects::count(&mut transaction, key.id).await?;
    // Only this statement completes an upload that is not merged, and it checks all counts itself.
    let completed = sqlx::query(
        "UPDATE uploads
         SET status = CASE WHEN $4 = 0 THEN 'completed' ELSE 'partial' END,
             rows_inserted = l.rows - l.rejected, rows_violating = l.rejected, updated_at = $3, finished_at = $3
         FROM (SELECT count(*) AS batches, coalesce(sum(rows), 0) AS rows, coalesce(sum(rejected), 0) AS rejected
               FROM batches WHERE upload_id = $1 AND epoch = $2) l
         WHERE uploads.id = $1 AND uploads.epoch = $2 AND uploads.status = 'processing'
           AND uploads.dataset ->> 'merge' IS NULL
           AND uploads.batches_total = l.batches AND uploads.rows_read = l.rows + uploads.rows_rejected
           AND $4 = uploads.rows_rejected + l.rejected",
    )
    .bind(key.id.to_string())
    .bind(key.epoch.get())
    .bind(now())
    .bind(rejected)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    match completed.rows_affected() {
        0 => merging::complete(database, key).await,
        _ => Ok(Completed::Yes),
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
    let mut connection = database.readers.acquire().await?;
    let (batches, rows, violating): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), coalesce(sum(rows), 0), coalesce(sum(rejected), 0)
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
    };
    // While batches are missing, the rejected rows do not matter.
    if total.is_some_and(|total| counted.batches >= u64::from(total)) {
        let rejected = rejects::count(&mut connection, id).await?;
        counted.rejected = count("count(*)", rejected)?;
    }
    Ok(rules::completion(upload, counted))
}
