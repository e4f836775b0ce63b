//! The work that remains after an upload has ended or a process has crashed. All of it can be
//! interrupted and resumed.

use std::borrow::Cow;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;
use sqlx::types::Json;

use super::uploads::record_end;
use super::{
    SqliteStore, ago, dead_letters, first_id, key, last_id, now, previous_rows, typed_tables,
};
use crate::error::PortResult;
use crate::sqlite::{Database, call};
use crate::store::rules::{
    CHUNK_ROWS, EXPIRY_LIMIT, ROW_EXPIRY_LIMIT, SWEEP_LIMIT, UNARCHIVE_AGAIN, UNFINISHED_AFTER,
    interrupted, unarchive_last,
};
use crate::store::sql;
use crate::store::{Leftovers, MaintenanceStore, Removal};
use crate::sync::lock;
use crate::upload::{UploadDataset, UploadId, UploadKey};

/// Selects receiving uploads whose lease was last renewed before `$1`. It is a macro so that the
/// text of each query is static. The first condition repeats the condition of the partial index,
/// since SQLite does not infer it from the second.
macro_rules! select_expired {
    ($rest:literal) => {
        concat!(
            "SELECT u.id, u.epoch FROM uploads u LEFT JOIN upload_leases l ON l.upload_id = u.id
             WHERE u.status IN ('receiving', 'processing') AND u.status = 'receiving'
               AND coalesce(l.renewed_at, u.created_at) < $1 ",
            $rest
        )
    };
}

#[async_trait]
impl MaintenanceStore for SqliteStore {
    async fn leftovers(&self, lease: Duration, archive_grace: Duration) -> PortResult<Leftovers> {
        let readers = &self.database.readers;
        let mut found = call("store.leftovers", async {
            Ok(Leftovers {
                expired: expired(&self.database, lease).await?,
                unfinished: unfinished(readers).await?,
                to_remove: to_remove(readers).await?,
                to_unarchive: to_unarchive(readers, archive_grace).await?,
            })
        })
        .await?;
        // The leases of these uploads are not renewed, so the sweeper need not wait until they
        // expire.
        found.expired.extend(lock(&self.failing).iter().copied());
        Ok(found)
    }

    async fn expire(&self, key: UploadKey, lease: Duration) -> PortResult<bool> {
        call("store.expire", async {
            let mut transaction = self.database.begin().await?;
            // The batches of a failing upload are fenced already, so the upload must end.
            let ends = self.is_failing(key) || has_expired(&mut transaction, key, lease).await?;
            let mut has_ended = false;
            if ends {
                // If the end cannot be recorded, a later heartbeat must not renew the lease.
                lock(&self.failing).insert(key);
                let failure = interrupted(lease);
                has_ended = record_end(&mut transaction, key, Some(&failure), None).await?;
            }
            transaction.commit().await?;
            if ends {
                lock(&self.failing).remove(&key);
            }
            Ok(has_ended)
        })
        .await
    }

    async fn expire_rows(&self, older_than: Duration) -> PortResult<u64> {
        call("store.expire_rows", async {
            let expired = sqlx::query(
                "UPDATE uploads SET expired_at = $2, updated_at = $2, cleanup_pending = 1, archive_pending = 1
                 WHERE id IN (SELECT id FROM uploads
                              WHERE status IN ('completed', 'partial') AND expired_at IS NULL AND finished_at < $1
                              ORDER BY finished_at LIMIT $3)",
            )
            .bind(ago(older_than))
            .bind(now())
            .bind(ROW_EXPIRY_LIMIT)
            .execute(self.database.writer())
            .await?;
            Ok(expired.rows_affected())
        })
        .await
    }

    async fn remove_rows(&self, id: UploadId) -> PortResult<Removal> {
        call("store.remove_rows", remove_rows(&self.database, id)).await
    }

    async fn forget_previous(&self, older_than: Duration) -> PortResult<u64> {
        let forget = previous_rows::forget(&self.database, older_than);
        call("store.forget_previous", forget).await
    }

    async fn archive_removed(&self, id: UploadId) -> PortResult<()> {
        call("store.archive_removed", async {
            sqlx::query(
                "UPDATE uploads SET archive_pending = status IN ('cancelled', 'undone') AND finished_at > $2
                 WHERE id = $1",
            )
            .bind(id.to_string())
            .bind(ago(unarchive_last()))
            .execute(self.database.writer())
            .await?;
            Ok(())
        })
        .await
    }
}

/// Leases are read in a write transaction. While a merge writes, no heartbeat can renew a lease, so
/// nobody may conclude that an upload has expired.
async fn expired(database: &Database, lease: Duration) -> sqlx::Result<Vec<UploadKey>> {
    let mut transaction = database.begin().await?;
    // In a fixed order, so that two sweeps find the same uploads when more than the limit have
    // expired.
    let found: Vec<(String, i32)> = sqlx::query_as(select_expired!("ORDER BY u.id LIMIT $2"))
        .bind(ago(lease))
        .bind(EXPIRY_LIMIT)
        .fetch_all(&mut *transaction)
        .await?;
    transaction.commit().await?;
    found.into_iter().map(key).collect()
}

async fn has_expired(
    connection: &mut SqliteConnection,
    key: UploadKey,
    lease: Duration,
) -> sqlx::Result<bool> {
    let expired: Option<(String, i32)> =
        sqlx::query_as(select_expired!("AND u.id = $2 AND u.epoch = $3"))
            .bind(ago(lease))
            .bind(key.id.to_string())
            .bind(key.epoch.get())
            .fetch_optional(connection)
            .await?;
    Ok(expired.is_some())
}

async fn unfinished(readers: &SqlitePool) -> sqlx::Result<Vec<UploadId>> {
    let found = sqlx::query_scalar(
        "SELECT id FROM uploads
         WHERE status IN ('receiving', 'processing') AND status = 'processing' AND updated_at < $1
         ORDER BY random() LIMIT $2",
    )
    .bind(ago(UNFINISHED_AFTER))
    .bind(SWEEP_LIMIT)
    .fetch_all(readers)
    .await?;
    ids(found)
}

async fn to_remove(readers: &SqlitePool) -> sqlx::Result<Vec<UploadId>> {
    let found = sqlx::query_scalar(
        "SELECT id FROM uploads WHERE cleanup_pending ORDER BY expired_at IS NOT NULL LIMIT $1",
    )
    .bind(SWEEP_LIMIT)
    .fetch_all(readers)
    .await?;
    ids(found)
}

async fn to_unarchive(
    readers: &SqlitePool,
    archive_grace: Duration,
) -> sqlx::Result<Vec<UploadId>> {
    let found = sqlx::query_scalar(
        "SELECT id FROM uploads
         WHERE archive_pending
           AND (expired_at IS NOT NULL OR finished_at < $1
                OR status IN ('cancelled', 'undone') AND (finished_at > $3 OR finished_at < $4))
         ORDER BY finished_at LIMIT $2",
    )
    .bind(ago(archive_grace))
    .bind(SWEEP_LIMIT)
    .bind(ago(UNARCHIVE_AGAIN))
    .bind(ago(unarchive_last()))
    .fetch_all(readers)
    .await?;
    ids(found)
}

fn ids(found: Vec<String>) -> sqlx::Result<Vec<UploadId>> {
    let ids = found.iter().map(|id| sql::parsed("id", id));
    ids.collect()
}

async fn remove_rows(database: &Database, id: UploadId) -> sqlx::Result<Removal> {
    let mut transaction = database.begin().await?;
    let pending: Option<(i64, Option<Json<UploadDataset>>)> = sqlx::query_as(
        "SELECT number, dataset FROM uploads
         WHERE id = $1 AND cleanup_pending
           AND (status IN ('failed', 'cancelled', 'undone') OR expired_at IS NOT NULL)",
    )
    .bind(id.to_string())
    .fetch_optional(&mut *transaction)
    .await?;
    let Some((number, dataset)) = pending else {
        transaction.commit().await?;
        return Ok(Removal::Done);
    };
    let dataset = dataset.map(|dataset| dataset.0);
    // The rows of a merged upload stay in the table of its dataset.
    let in_dataset = dataset.as_ref().filter(|dataset| !dataset.is_staged());
    let deleted = delete_rows(&mut transaction, number, in_dataset).await?;
    let is_last = deleted < CHUNK_ROWS.cast_unsigned();
    if is_last {
        if let Some(dataset) = &dataset {
            forget_rows(&mut transaction, number, dataset).await?;
        }
        dead_letters::forget_all(&mut transaction, id).await?;
        // The ledger is deleted too, since none of its batches is stored any more.
        sqlx::query("DELETE FROM batches WHERE upload_id = $1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        sqlx::query("UPDATE uploads SET cleanup_pending = 0, updated_at = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(now())
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(if is_last {
        Removal::Done
    } else {
        Removal::More
    })
}

/// Deletes the previous values that cannot be restored any more. The rows of a merged upload stay,
/// so its own previous values are deleted. The rows of any other upload are gone, and a later
/// upload that replaced some of them must not bring them back.
async fn forget_rows(
    connection: &mut SqliteConnection,
    number: i64,
    dataset: &UploadDataset,
) -> sqlx::Result<()> {
    if !dataset.is_staged() {
        return previous_rows::splice(connection, number).await;
    }
    sqlx::query("UPDATE uploads SET is_reversible = 0 WHERE number = $1 AND rows_updated > 0")
        .bind(number)
        .execute(&mut *connection)
        .await?;
    previous_rows::delete(connection, number).await
}

/// Deletes some rows of an upload. Returns how many it deleted.
async fn delete_rows(
    connection: &mut SqliteConnection,
    number: i64,
    dataset: Option<&UploadDataset>,
) -> sqlx::Result<u64> {
    let statement = match dataset {
        None => Cow::Borrowed(
            "DELETE FROM rows WHERE id IN (SELECT id FROM rows WHERE id BETWEEN $1 AND $2 LIMIT $3)",
        ),
        Some(dataset) => {
            // An operator may have dropped the table, and the removal must still end.
            if !typed_tables::exists(connection, &dataset.key()).await? {
                return Ok(0);
            }
            Cow::Owned(typed_tables::delete_rows(&dataset.key()))
        }
    };
    let deleted = sqlx::query(&statement)
        .persistent(dataset.is_none())
        .bind(first_id(number))
        .bind(last_id(number))
        .bind(CHUNK_ROWS)
        .execute(connection)
        .await?;
    Ok(deleted.rows_affected())
}
