//! What has to happen after an upload ended, and what the sweeper looks for. All of it can be interrupted and resumed.

use std::time::Duration;

use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::{fence_key, port_error};
use crate::error::PortResult;
use crate::store::rules::{CHUNK_ROWS, SWEEP_LIMIT, UNARCHIVE_AGAIN, UNFINISHED_AFTER};
use crate::store::{Leftovers, Removal};
use crate::upload::UploadId;

pub(super) async fn remove_rows(pool: &PgPool, id: UploadId) -> PortResult<Removal> {
    let removed = async {
        let mut transaction = pool.begin().await?;
        // One remover at a time; whoever comes second has nothing to add. The two-key locks are a space of their own, apart
        // from the fence.
        let key = fence_key(id);
        let (mine,): (bool,) = sqlx::query_as("SELECT pg_try_advisory_xact_lock($1, $2)")
            .bind((key >> 32) as i32)
            .bind(key as i32)
            .fetch_one(&mut *transaction)
            .await?;
        if !mine {
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
        let done = deleted < CHUNK_ROWS.cast_unsigned();
        if done {
            // The ledger says what is stored, and nothing is any more.
            sqlx::query("DELETE FROM batches WHERE upload_id = $1")
                .bind(id.as_uuid())
                .execute(&mut *transaction)
                .await?;
            sqlx::query(
                "UPDATE uploads SET cleanup_pending = false, updated_at = now() WHERE id = $1",
            )
            .bind(id.as_uuid())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(if done { Removal::Done } else { Removal::More })
    };
    removed
        .await
        .map_err(|error| port_error("store.remove_rows", error))
}

pub(super) async fn archive_removed(pool: &PgPool, id: UploadId) -> PortResult<()> {
    sqlx::query(
        "UPDATE uploads
         SET archive_pending = status = 'undone' AND finished_at > now() - make_interval(secs => $2)
         WHERE id = $1",
    )
    .bind(id.as_uuid())
    .bind(UNARCHIVE_AGAIN.as_secs_f64())
    .execute(pool)
    .await
    .map_err(|error| port_error("store.archive_removed", error))?;
    Ok(())
}

pub(super) async fn leftovers(
    pool: &PgPool,
    lease: Duration,
    archive_grace: Duration,
) -> PortResult<Leftovers> {
    let found = async {
        let expired: Vec<(Uuid, i32)> = sqlx::query_as(
            "SELECT u.id, u.epoch FROM uploads u LEFT JOIN upload_leases l ON l.upload_id = u.id
             WHERE u.status = 'receiving'
               AND coalesce(l.renewed_at, u.created_at) < now() - make_interval(secs => $1)
             LIMIT $2",
        )
        .bind(lease.as_secs_f64())
        .bind(SWEEP_LIMIT)
        .fetch_all(pool)
        .await?;
        let unfinished: Vec<(Uuid,)> = sqlx::query_as(
            "SELECT id FROM uploads
             WHERE status = 'processing' AND updated_at < now() - make_interval(secs => $1)
             ORDER BY random() LIMIT $2",
        )
        .bind(UNFINISHED_AFTER.as_secs_f64())
        .bind(SWEEP_LIMIT)
        .fetch_all(pool)
        .await?;
        let to_remove: Vec<(Uuid,)> =
            sqlx::query_as("SELECT id FROM uploads WHERE cleanup_pending LIMIT $1")
                .bind(SWEEP_LIMIT)
                .fetch_all(pool)
                .await?;
        let to_unarchive: Vec<(Uuid,)> = sqlx::query_as(
            "SELECT id FROM uploads
             WHERE archive_pending AND (status = 'undone' OR finished_at < now() - make_interval(secs => $1))
             ORDER BY finished_at LIMIT $2",
        )
        .bind(archive_grace.as_secs_f64())
        .bind(SWEEP_LIMIT)
        .fetch_all(pool)
        .await?;
        let ids = |found: Vec<(Uuid,)>| found.into_iter().map(|(id,)| id.into()).collect();
        Ok(Leftovers {
            expired: expired
                .into_iter()
                .map(|(id, epoch)| (id.into(), epoch))
                .collect(),
            unfinished: ids(unfinished),
            to_remove: ids(to_remove),
            to_unarchive: ids(to_unarchive),
        })
    };
    found
        .await
        .map_err(|error| port_error("store.leftovers", error))
}
