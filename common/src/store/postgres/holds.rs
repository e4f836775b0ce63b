//! Holds of workers, and missing batches.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::connections::LONG;
use super::dead_letters::end_retries;
use super::uploads::record_end;
use super::{PostgresStore, key, lock_status};
use crate::error::PortResult;
use crate::store::HoldStore;
use crate::store::rules::{SWEEP_LIMIT, lost};
use crate::upload::{UploadId, UploadKey};

/// Selects the uploads that have missed batches for `$1` seconds. It is a macro so that the text of
/// each query is static.
macro_rules! select_quiet {
    ($rest:literal) => {
        concat!(
            "SELECT u.id, u.epoch
             FROM uploads u
             LEFT JOIN upload_holds h ON h.upload_id = u.id
             CROSS JOIN LATERAL (SELECT count(*) AS stored, max(stored_at) AS stored_at
                                 FROM batches WHERE upload_id = u.id AND epoch = u.epoch) b
             CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE retried_at IS NULL) AS dead,
                                        count(*) FILTER (WHERE retried_at IS NOT NULL AND published_at IS NULL) AS unpublished
                                 FROM dead_letters WHERE upload_id = u.id AND is_missing) d
             WHERE u.status = 'processing' AND b.stored + d.dead < u.batches_total AND d.unpublished = 0
               AND GREATEST(u.updated_at, h.held_at) < now() - make_interval(secs => $1)
               AND coalesce(b.stored_at, '-infinity') < now() - make_interval(secs => $1) ",
            $rest
        )
    };
}

#[async_trait]
impl HoldStore for PostgresStore {
    async fn hold(&self, uploads: &[UploadId]) -> PortResult<()> {
        let ids: Vec<Uuid> = uploads.iter().map(UploadId::as_uuid).collect();
        self.call("store.hold", LONG, async |connection| {
            hold(connection, ids).await
        })
        .await
    }

    async fn quiet_uploads(&self, quiet: Duration) -> PortResult<Vec<UploadKey>> {
        self.call("store.quiet_uploads", LONG, async |connection| {
            let found: Vec<(Uuid, i32)> =
                sqlx::query_as(select_quiet!("ORDER BY u.created_at LIMIT $2"))
                    .bind(quiet.as_secs_f64())
                    .bind(SWEEP_LIMIT)
                    .fetch_all(connection)
                    .await?;
            Ok(found
                .into_iter()
                .map(|(id, epoch)| key(id, epoch))
                .collect())
        })
        .await
    }

    async fn mark_missing(&self, uploads: &[UploadKey]) -> PortResult<()> {
        let ids: Vec<Uuid> = uploads.iter().map(|key| key.id.as_uuid()).collect();
        self.call("store.mark_missing", LONG, async |connection| {
            mark_missing(connection, &ids).await
        })
        .await
    }

    async fn fail_lost(&self, key: UploadKey, quiet: Duration) -> PortResult<bool> {
        self.call("store.fail_lost", LONG, async |connection| {
            let mut transaction = connection.begin().await?;
            lock_status(&mut transaction, key.id).await?;
            let is_quiet: Option<(Uuid, i32)> =
                sqlx::query_as(select_quiet!("AND u.id = $2 AND u.epoch = $3"))
                    .bind(quiet.as_secs_f64())
                    .bind(key.id.as_uuid())
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

async fn hold(connection: &mut PgConnection, ids: Vec<Uuid>) -> sqlx::Result<()> {
    // In a fixed order, so that two workers cannot deadlock.
    sqlx::query(
        "INSERT INTO upload_holds (upload_id, held_at)
         SELECT id, now() FROM uploads WHERE id = ANY($1) ORDER BY id
         ON CONFLICT (upload_id) DO UPDATE SET held_at = now(), missing_since = NULL",
    )
    .bind(ids)
    .execute(&mut *connection)
    .await?;
    // Holds of uploads that have ended are not needed any more.
    sqlx::query(
        "DELETE FROM upload_holds WHERE upload_id IN (
             SELECT h.upload_id FROM upload_holds h
             WHERE NOT EXISTS (SELECT FROM uploads u
                               WHERE u.id = h.upload_id AND u.status IN ('receiving', 'processing'))
             ORDER BY h.upload_id FOR UPDATE SKIP LOCKED)",
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn mark_missing(connection: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    sqlx::query(
        "UPDATE upload_holds SET missing_since = NULL WHERE upload_id IN (
             SELECT upload_id FROM upload_holds
             WHERE missing_since IS NOT NULL AND upload_id <> ALL ($1)
             ORDER BY upload_id FOR UPDATE SKIP LOCKED)",
    )
    .bind(ids)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "INSERT INTO upload_holds (upload_id, missing_since)
         SELECT id, now() FROM uploads WHERE id = ANY($1) ORDER BY id
         ON CONFLICT (upload_id) DO UPDATE SET missing_since = coalesce(upload_holds.missing_since, now())",
    )
    .bind(ids)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}
