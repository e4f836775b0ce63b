//! What has to happen after an upload ended, and what the sweeper looks for. All of it can be interrupted and resumed.

use std::time::Duration;

use super::{ago, first_id, last_id, now};
use crate::sqlite::Database;
use crate::store::rules::{CHUNK_ROWS, SWEEP_LIMIT, UNARCHIVE_AGAIN, UNFINISHED_AFTER};
use crate::store::{Leftovers, Removal};
use crate::upload::UploadId;

pub(super) async fn remove_rows(database: &Database, id: UploadId) -> sqlx::Result<Removal> {
    let mut writing = database.begin().await?;
    let pending: Option<(i64,)> = sqlx::query_as(
        "SELECT number FROM uploads
         WHERE id = $1 AND cleanup_pending AND status IN ('failed', 'cancelled', 'undone')",
    )
    .bind(id.to_string())
    .fetch_optional(&mut *writing)
    .await?;
    let Some((number,)) = pending else {
        writing.commit().await?;
        return Ok(Removal::Done);
    };
    let deleted = sqlx::query(
        "DELETE FROM rows WHERE id IN (SELECT id FROM rows WHERE id BETWEEN $1 AND $2 LIMIT $3)",
    )
    .bind(first_id(number))
    .bind(last_id(number))
    .bind(CHUNK_ROWS)
    .execute(&mut *writing)
    .await?
    .rows_affected();
    let done = deleted < CHUNK_ROWS.cast_unsigned();
    if done {
        // The ledger says what is stored, and nothing is any more.
        sqlx::query("DELETE FROM batches WHERE upload_id = $1")
            .bind(id.to_string())
            .execute(&mut *writing)
            .await?;
        sqlx::query("UPDATE uploads SET cleanup_pending = 0, updated_at = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(now())
            .execute(&mut *writing)
            .await?;
    }
    writing.commit().await?;
    Ok(if done { Removal::Done } else { Removal::More })
}

pub(super) async fn archive_removed(database: &Database, id: UploadId) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE uploads SET archive_pending = status = 'undone' AND finished_at > $2 WHERE id = $1",
    )
    .bind(id.to_string())
    .bind(ago(UNARCHIVE_AGAIN))
    .execute(database.writer())
    .await?;
    Ok(())
}

pub(super) async fn leftovers(
    database: &Database,
    lease: Duration,
    archive_grace: Duration,
) -> sqlx::Result<Leftovers> {
    let pool = &database.readers;
    // The first condition is the partial index's own, word for word: SQLite does not infer it from the second.
    let expired: Vec<(String, i32)> = sqlx::query_as(
        "SELECT u.id, u.epoch FROM uploads u LEFT JOIN upload_leases l ON l.upload_id = u.id
         WHERE u.status IN ('receiving', 'processing') AND u.status = 'receiving' AND coalesce(l.renewed_at, u.created_at) < $1
         LIMIT $2",
    )
    .bind(ago(lease))
    .bind(SWEEP_LIMIT)
    .fetch_all(pool)
    .await?;
    let unfinished: Vec<(String,)> = sqlx::query_as(
        "SELECT id FROM uploads
         WHERE status IN ('receiving', 'processing') AND status = 'processing' AND updated_at < $1
         ORDER BY random() LIMIT $2",
    )
    .bind(ago(UNFINISHED_AFTER))
    .bind(SWEEP_LIMIT)
    .fetch_all(pool)
    .await?;
    let to_remove: Vec<(String,)> =
        sqlx::query_as("SELECT id FROM uploads WHERE cleanup_pending LIMIT $1")
            .bind(SWEEP_LIMIT)
            .fetch_all(pool)
            .await?;
    let to_unarchive: Vec<(String,)> = sqlx::query_as(
        "SELECT id FROM uploads WHERE archive_pending AND (status = 'undone' OR finished_at < $1)
         ORDER BY finished_at LIMIT $2",
    )
    .bind(ago(archive_grace))
    .bind(SWEEP_LIMIT)
    .fetch_all(pool)
    .await?;
    let ids = |found: Vec<(String,)>| found.iter().filter_map(|(id,)| id.parse().ok()).collect();
    Ok(Leftovers {
        expired: expired
            .iter()
            .filter_map(|(id, epoch)| Some((id.parse().ok()?, *epoch)))
            .collect(),
        unfinished: ids(unfinished),
        to_remove: ids(to_remove),
        to_unarchive: ids(to_unarchive),
    })
}
