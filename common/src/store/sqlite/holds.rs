//! Holds of workers, and missing batches.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::types::Json;

use super::dead_letters::end_retries;
use super::uploads::record_end;
use super::{SqliteStore, ago, key, now};
use crate::error::PortResult;
use crate::sqlite::call;
use crate::store::HoldStore;
use crate::store::rules::{SWEEP_LIMIT, lost};
use crate::upload::{UploadId, UploadKey};

/// Selects the uploads that have missed batches since `$1`. It is a macro so that the text of each
/// query is static. The first condition repeats the condition of the partial index, since SQLite
/// does not infer it from the second.
macro_rules! select_quiet {
    ($rest:literal) => {
        concat!(
            "SELECT u.id, u.epoch
             FROM uploads u LEFT JOIN upload_holds h ON h.upload_id = u.id
             WHERE u.status IN ('receiving', 'processing') AND u.status = 'processing'
               AND u.updated_at < $1 AND coalesce(h.held_at, '') < $1
               AND (SELECT coalesce(max(stored_at), '') < $1
                           AND count(*) + (SELECT count(*) FROM dead_letters
                                           WHERE upload_id = u.id AND is_missing AND retried_at IS NULL) < u.batches_total
                    FROM batches WHERE upload_id = u.id AND epoch = u.epoch)
               AND NOT EXISTS (SELECT 1 FROM dead_letters
                               WHERE upload_id = u.id AND is_missing AND retried_at IS NOT NULL AND published_at IS NULL) ",
            $rest
        )
    };
}

#[async_trait]
impl HoldStore for SqliteStore {
    async fn hold(&self, uploads: &[UploadId]) -> PortResult<()> {
        let ids: Vec<String> = uploads.iter().map(UploadId::to_string).collect();
        call("store.hold", async {
            let mut transaction = self.database.begin().await?;
            sqlx::query(
                "INSERT INTO upload_holds (upload_id, held_at)
                 SELECT id, $2 FROM uploads WHERE id IN (SELECT value FROM json_each($1))
                 ON CONFLICT (upload_id) DO UPDATE SET held_at = excluded.held_at, missing_since = NULL",
            )
            .bind(Json(ids))
            .bind(now())
            .execute(&mut *transaction)
            .await?;
            // Holds of uploads that have ended are not needed any more.
            sqlx::query(
                "DELETE FROM upload_holds
                 WHERE upload_id NOT IN (SELECT id FROM uploads WHERE status IN ('receiving', 'processing'))",
            )
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await
        })
        .await
    }

    async fn quiet_uploads(&self, quiet: Duration) -> PortResult<Vec<UploadKey>> {
        call("store.quiet_uploads", async {
            let found: Vec<(String, i32)> =
                sqlx::query_as(select_quiet!("ORDER BY u.created_at LIMIT $2"))
                    .bind(ago(quiet))
                    .bind(SWEEP_LIMIT)
                    .fetch_all(&self.database.readers)
                    .await?;
            found.into_iter().map(key).collect()
        })
        .await
    }

    async fn mark_missing(&self, uploads: &[UploadKey]) -> PortResult<()> {
        let ids: Vec<String> = uploads.iter().map(|key| key.id.to_string()).collect();
        call("store.mark_missing", async {
            let mut transaction = self.database.begin().await?;
            mark_missing(&mut transaction, Json(ids)).await?;
            transaction.commit().await
        })
        .await
    }

    async fn fail_lost(&self, key: UploadKey, quiet: Duration) -> PortResult<bool> {
        call("store.fail_lost", async {
            let mut transaction = self.database.begin().await?;
            let is_quiet: Option<(String, i32)> =
                sqlx::query_as(select_quiet!("AND u.id = $2 AND u.epoch = $3"))
                    .bind(ago(quiet))
                    .bind(key.id.to_string())
                    .bind(key.epoch.get())
                    .fetch_optional(&mut *transaction)
                    .await?;
            // Retries that are lost end first. If other batches are lost too, a later call ends the
            // upload.
            let has_ended = match is_quiet {
                None => false,
                Some(_) if end_retries(&mut transaction, key, quiet).await? => false,
                Some(_) => record_end(&mut transaction, key, Some(&lost(quiet)), None).await?,
            };
            transaction.commit().await?;
            Ok(has_ended)
        })
        .await
    }
}

async fn mark_missing(
    connection: &mut SqliteConnection,
    ids: Json<Vec<String>>,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE upload_holds SET missing_since = NULL
         WHERE missing_since IS NOT NULL AND upload_id NOT IN (SELECT value FROM json_each($1))",
    )
    .bind(&ids)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO upload_holds (upload_id, missing_since)
         SELECT id, $2 FROM uploads WHERE id IN (SELECT value FROM json_each($1))
         ON CONFLICT (upload_id) DO UPDATE SET missing_since = coalesce(upload_holds.missing_since, excluded.missing_since)",
    )
    .bind(&ids)
    .bind(now())
    .execute(connection)
    .await?;
    Ok(())
}
