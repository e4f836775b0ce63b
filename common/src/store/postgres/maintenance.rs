//! The work that remains after an upload has ended or a process has crashed. All of it can be
//! interrupted and resumed.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnection, PgPool};
use uuid::Uuid;

use super::uploads::record_end;
use super::{PostgresStore, call, fence_key, key, lock_status};
use crate::error::PortResult;
use crate::store::rules::{
    CHUNK_ROWS, EXPIRY_LIMIT, SWEEP_LIMIT, UNARCHIVE_AGAIN, UNFINISHED_AFTER, interrupted,
};
use crate::store::{Leftovers, MaintenanceStore, Removal};
use crate::upload::{UploadId, UploadKey};

/// Selects receiving uploads whose lease was not renewed for `$1` seconds. It is a macro so that
/// the text of each query is static.
macro_rules! select_expired {
    ($rest:literal) => {
        concat!(
            "SELECT u.id, u.epoch FROM uploads u LEFT JOIN upload_leases l ON l.upload_id = u.id
             WHERE u.status = 'receiving'
               AND coalesce(l.renewed_at, u.created_at) < now() - make_interval(secs => $1) ",
            $rest
        )
    };
}

#[async_trait]
impl MaintenanceStore for PostgresStore {
    async fn leftovers(&self, lease: Duration, archive_grace: Duration) -> PortResult<Leftovers> {
        call("store.leftovers", async {
            Ok(Leftovers {
                expired: expired(&self.pool, lease).await?,
                unfinished: unfinished(&self.pool).await?,
                to_remove: to_remove(&self.pool).await?,
                to_unarchive: to_unarchive(&self.pool, archive_grace).await?,
            })
        })
        .await
    }

    async fn expire(&self, key: UploadKey, lease: Duration) -> PortResult<bool> {
        call("store.expire", expire(&self.pool, key, lease)).await
    }

    async fn remove_rows(&self, id: UploadId) -> PortResult<Removal> {
        call("store.remove_rows", remove_rows(&self.pool, id)).await
    }

    async fn archive_removed(&self, id: UploadId) -> PortResult<()> {
        call("store.archive_removed", async {
            sqlx::query(
                "UPDATE uploads
                 SET archive_pending = status = 'undone' AND finished_at > now() - make_interval(secs => $2)
                 WHERE id = $1",
            )
            .bind(id.as_uuid())
            .bind(UNARCHIVE_AGAIN.as_secs_f64())
            .execute(&self.pool)
            .await?;
            Ok(())
        })
        .await
    }
}

async fn expired(pool: &PgPool, lease: Duration) -> sqlx::Result<Vec<UploadKey>> {
    // In a fixed order, so that two sweeps find the same uploads when more than the limit have
    // expired.
    let found: Vec<(Uuid, i32)> = sqlx::query_as(select_expired!("ORDER BY u.id LIMIT $2"))
        .bind(lease.as_secs_f64())
        .bind(EXPIRY_LIMIT)
        .fetch_all(pool)
        .await?;
    let found = found.into_iter().map(|(id, epoch)| key(id, epoch));
    Ok(found.collect())
}

async fn expire(pool: &PgPool, key: UploadKey, lease: Duration) -> sqlx::Result<bool> {
    let mut transaction = pool.begin().await?;
    lock_status(&mut transaction, key.id).await?;
    // A heartbeat renews the lease without the lock on the status. This statement waits for a
    // heartbeat that has started. A later heartbeat waits for this transaction.
    sqlx::query("SELECT 1 FROM upload_leases WHERE upload_id = $1 FOR UPDATE")
        .bind(key.id.as_uuid())
        .execute(&mut *transaction)
        .await?;
    let expired: Option<(Uuid, i32)> =
        sqlx::query_as(select_expired!("AND u.id = $2 AND u.epoch = $3"))
            .bind(lease.as_secs_f64())
            .bind(key.id.as_uuid())
            .bind(key.epoch.get())
            .fetch_optional(&mut *transaction)
            .await?;
    let has_ended = match expired {
        Some(_) => record_end(&mut transaction, key, Some(&interrupted(lease)), None).await?,
        None => false,
    };
    transaction.commit().await?;
    Ok(has_ended)
}

async fn unfinished(pool: &PgPool) -> sqlx::Result<Vec<UploadId>> {
    let found: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM uploads
         WHERE status = 'processing' AND updated_at < now() - make_interval(secs => $1)
         ORDER BY random() LIMIT $2",
    )
    .bind(UNFINISHED_AFTER.as_secs_f64())
    .bind(SWEEP_LIMIT)
    .fetch_all(pool)
    .await?;
    Ok(found.into_iter().map(UploadId::from).collect())
}

async fn to_remove(pool: &PgPool) -> sqlx::Result<Vec<UploadId>> {
    let found: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM uploads WHERE cleanup_pending LIMIT $1")
            .bind(SWEEP_LIMIT)
            .fetch_all(pool)
            .await?;
    Ok(found.into_iter().map(UploadId::from).collect())
}

async fn to_unarchive(pool: &PgPool, archive_grace: Duration) -> sqlx::Result<Vec<UploadId>> {
    let found: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM uploads
         WHERE archive_pending AND (status = 'undone' OR finished_at < now() - make_interval(secs => $1))
         ORDER BY finished_at LIMIT $2",
    )
    .bind(archive_grace.as_secs_f64())
    .bind(SWEEP_LIMIT)
    .fetch_all(pool)
    .await?;
    Ok(found.into_iter().map(UploadId::from).collect())
}

async fn remove_rows(pool: &PgPool, id: UploadId) -> sqlx::Result<Removal> {
    let mut transaction = pool.begin().await?;
    // Only one process at a time removes the rows of an upload. Locks with two keys never collide
    // with locks with one key, such as the fence.
    let key = fence_key(id);
    let (is_locked,): (bool,) = sqlx::query_as("SELECT pg_try_advisory_xact_lock($1, $2)")
        .bind((key >> 32) as i32)
        .bind(key as i32)
        .fetch_one(&mut *transaction)
        .await?;
    if !is_locked {
        return Ok(Removal::Busy);
    }
    let (pending,): (bool,) = sqlx::query_as(
        "SELECT EXISTS (SELECT FROM uploads
                        WHERE id = $1 AND cleanup_pending AND status IN ('failed', 'cancelled', 'undone'))",
    )
    .bind(id.as_uuid())
    .fetch_one(&mut *transaction)
    .await?;
    if !pending {
        return Ok(Removal::Done);
    }
    let deleted = sqlx::query(
        "DELETE FROM rows WHERE ctid = ANY (ARRAY (SELECT ctid FROM rows WHERE upload_id = $1 LIMIT $2))",
    )
    .bind(id.as_uuid())
    .bind(CHUNK_ROWS)
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    let is_last = deleted < CHUNK_ROWS.cast_unsigned();
    if is_last {
        end_removal(&mut transaction, id).await?;
    }
    transaction.commit().await?;
    Ok(if is_last {
        Removal::Done
    } else {
        Removal::More
    })
}

/// Deletes the ledger too, since none of its batches is stored any more.
async fn end_removal(connection: &mut PgConnection, id: UploadId) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM batches WHERE upload_id = $1")
        .bind(id.as_uuid())
        .execute(&mut *connection)
        .await?;
    sqlx::query("UPDATE uploads SET cleanup_pending = false, updated_at = now() WHERE id = $1")
        .bind(id.as_uuid())
        .execute(connection)
        .await?;
    Ok(())
}
