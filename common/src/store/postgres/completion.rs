//! The end of an upload whose rows are all accounted for.

use async_trait::async_trait;
use sqlx::{Connection, PgConnection};

use super::connections::{LONG, SHORT};
use super::upload_record::{find, is_staged};
use super::{PostgresStore, lock_status};
use crate::error::PortResult;
use crate::store::rules::{self, Counted};
use crate::store::sql::count;
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

    async fn complete(&self, key: UploadKey) -> PortResult<Completed> {
        const OPERATION: &str = "store.complete";
        let is_staged = self.call(OPERATION, SHORT, async |connection| {
            is_staged(connection, key.id).await
        });
        if is_staged.await? {
            return self.merge(OPERATION, key).await;
        }
        self.call(OPERATION, LONG, async |connection| {
            let mut transaction = connection.begin().await?;
            lock_status(&mut transaction, key.id).await?;
            // Only this statement completes an upload, and it checks all counts itself.
            let completed = sqlx::query(
                "UPDATE uploads u
                 SET status = CASE WHEN rejected.rows = 0 THEN 'completed' ELSE 'partial' END,
                     rows_inserted = ledger.rows - ledger.rejected, rows_violating = ledger.rejected,
                     updated_at = now(), finished_at = now()
                 FROM (SELECT count(*) AS batches, coalesce(sum(rows), 0)::bigint AS rows,
                              coalesce(sum(rejected), 0)::bigint AS rejected
                       FROM batches WHERE upload_id = $1 AND epoch = $2) ledger,
                      (SELECT count(*) AS rows FROM rejected_rows WHERE upload_id = $1) rejected
                 WHERE u.id = $1 AND u.epoch = $2 AND u.status = 'processing'
                   AND u.batches_total = ledger.batches
                   AND u.rows_read = ledger.rows + u.rows_rejected
                   AND rejected.rows = u.rows_rejected + ledger.rejected",
            )
            .bind(key.id.as_uuid())
            .bind(key.epoch.get())
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(match completed.rows_affected() {
                0 => Completed::No,
                _ => Completed::Yes,
            })
        })
        .await
    }
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
    let (batches, rows, violating, rejected): (i64, i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), coalesce(sum(rows), 0)::bigint, coalesce(sum(rejected), 0)::bigint,
                -- Not counted while batches are missing.
                CASE WHEN count(*) >= $3 THEN (SELECT count(*) FROM rejected_rows WHERE upload_id = $1) ELSE 0 END
         FROM batches WHERE upload_id = $1 AND epoch = $2",
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
    };
    Ok(rules::completion(upload, counted))
}
