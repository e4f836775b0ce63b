//! The work that remains after an upload has ended or a process has crashed. All of it can be
//! interrupted and resumed.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::connections::LONG;
use super::removal::{REMOVAL_LOOKAHEAD, Removable, RowTable, Step, step_of};
use super::rows::READ_BY_INDEX;
use super::uploads::record_end;
use super::{
    PostgresStore, datasets, dead_letters, key, landing, lock_status, previous_rows, try_lock_rows,
    undoing, written_rows,
};
use crate::dataset::DatasetKey;
use crate::error::PortResult;
use crate::store::rules::{
    EXPIRY_LIMIT, ROW_EXPIRY_LIMIT, SWEEP_LIMIT, UNARCHIVE_AGAIN, UNFINISHED_AFTER, interrupted,
    unarchive_last,
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
        self.call("store.leftovers", LONG, async |connection| {
            Ok(Leftovers {
                expired: expired(connection, lease).await?,
                unfinished: unfinished(connection).await?,
                to_remove: to_remove(connection).await?,
                to_unarchive: to_unarchive(connection, archive_grace).await?,
            })
        })
        .await
    }

    async fn expire(&self, key: UploadKey, lease: Duration) -> PortResult<bool> {
        self.call("store.expire", LONG, async |connection| {
            expire(connection, key, lease).await
        })
        .await
    }

    async fn expire_rows(&self, older_than: Duration) -> PortResult<u64> {
        self.call("store.expire_rows", LONG, async |connection| {
            // Postgres checks the outer conditions again for an upload that is undone meanwhile.
            let expired = sqlx::query(
                "UPDATE uploads SET expired_at = now(), updated_at = now(), cleanup_pending = true, archive_pending = true,
                                    is_reversible = is_reversible AND coalesce(rows_updated, 0) = 0 AND written_columns IS NULL
                 WHERE id = ANY (ARRAY (SELECT id FROM uploads
                                        WHERE status IN ('completed', 'partial') AND expired_at IS NULL
                                          AND finished_at < now() - make_interval(secs => $1)
                                        ORDER BY finished_at LIMIT $2))
                   AND status IN ('completed', 'partial') AND expired_at IS NULL",
            )
            .bind(older_than.as_secs_f64())
            .bind(ROW_EXPIRY_LIMIT)
            .execute(connection)
            .await?;
            Ok(expired.rows_affected())
        })
        .await
    }

    async fn remove_rows(&self, id: UploadId) -> PortResult<Removal> {
        const OPERATION: &str = "store.remove_rows";
        let step = self.call(OPERATION, LONG, async |connection| {
            remove_rows(connection, id).await
        });
        let (removal, first_of_many) = step.await?;
        // This runs once per removal, after its first step, so that small removals do without it.
        if let Some(Pending { number, dataset }) = first_of_many {
            self.summarize(OPERATION, number, dataset.as_ref()).await;
        }
        Ok(removal)
    }

    async fn archive_removed(&self, id: UploadId) -> PortResult<()> {
        self.call("store.archive_removed", LONG, async |connection| {
            sqlx::query(
                "UPDATE uploads
                 SET archive_pending = status IN ('cancelled', 'undone') AND finished_at > now() - make_interval(secs => $2)
                 WHERE id = $1",
            )
            .bind(id.as_uuid())
            .bind(unarchive_last().as_secs_f64())
            .execute(connection)
            .await?;
            Ok(())
        })
        .await
    }

    async fn forget_previous(&self, older_than: Duration) -> PortResult<u64> {
        undoing::forget(self, "store.forget_previous", older_than).await
    }

    async fn extend_landing(&self) -> PortResult<()> {
        self.call("store.extend_landing", LONG, async |connection| {
            landing::extend(connection).await
        })
        .await
    }

    async fn shrink_landing(&self) -> PortResult<bool> {
        self.call("store.shrink_landing", LONG, async |connection| {
            landing::shrink(connection).await
        })
        .await
    }
}

async fn expired(connection: &mut PgConnection, lease: Duration) -> sqlx::Result<Vec<UploadKey>> {
    // In a fixed order, so that two sweeps find the same uploads when more than the limit have
    // expired.
    let found: Vec<(Uuid, i32)> = sqlx::query_as(select_expired!("ORDER BY u.id LIMIT $2"))
        .bind(lease.as_secs_f64())
        .bind(EXPIRY_LIMIT)
        .fetch_all(connection)
        .await?;
    let found = found.into_iter().map(|(id, epoch)| key(id, epoch));
    Ok(found.collect())
}

async fn expire(
    connection: &mut PgConnection,
    key: UploadKey,
    lease: Duration,
) -> sqlx::Result<bool> {
    let mut transaction = connection.begin().await?;
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

async fn unfinished(connection: &mut PgConnection) -> sqlx::Result<Vec<UploadId>> {
    let found: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM uploads
         WHERE status = 'processing' AND updated_at < now() - make_interval(secs => $1)
         ORDER BY random() LIMIT $2",
    )
    .bind(UNFINISHED_AFTER.as_secs_f64())
    .bind(SWEEP_LIMIT)
    .fetch_all(connection)
    .await?;
    Ok(found.into_iter().map(UploadId::from).collect())
}

async fn to_remove(connection: &mut PgConnection) -> sqlx::Result<Vec<UploadId>> {
    let found: Vec<Uuid> =
        // The random order lets several workers share the work. Expired uploads come last, so that
        // many of them do not hold up the others.
        sqlx::query_scalar(
            "SELECT id FROM uploads WHERE cleanup_pending
             ORDER BY expired_at IS NOT NULL, random() LIMIT $1",
        )
        .bind(SWEEP_LIMIT)
        .fetch_all(connection)
        .await?;
    Ok(found.into_iter().map(UploadId::from).collect())
}

async fn to_unarchive(
    connection: &mut PgConnection,
    archive_grace: Duration,
) -> sqlx::Result<Vec<UploadId>> {
    let found: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM uploads
         WHERE archive_pending
           AND (expired_at IS NOT NULL OR finished_at < now() - make_interval(secs => $1)
                OR status IN ('cancelled', 'undone')
                   AND (finished_at > now() - make_interval(secs => $3)
                        OR finished_at < now() - make_interval(secs => $4)))
         ORDER BY finished_at LIMIT $2",
    )
    .bind(archive_grace.as_secs_f64())
    .bind(SWEEP_LIMIT)
    .bind(UNARCHIVE_AGAIN.as_secs_f64())
    .bind(unarchive_last().as_secs_f64())
    .fetch_all(connection)
    .await?;
    Ok(found.into_iter().map(UploadId::from).collect())
}

/// An upload whose rows are to be removed.
#[derive(Debug)]
struct Pending {
    /// The number of the upload in `landing`.
    number: i64,
    dataset: Option<DatasetKey>,
}

/// Removes the rows of the next batches in the ledger together with their entries, so that a
/// removal goes on where an earlier one stopped. Also returns the upload if this was the first step
/// and more follow.
async fn remove_rows(
    connection: &mut PgConnection,
    id: UploadId,
) -> sqlx::Result<(Removal, Option<Pending>)> {
    let mut transaction = connection.begin().await?;
    if !try_lock_rows(&mut transaction, id).await? {
        return Ok((Removal::Busy, None));
    }
    let pending: Option<(i64, String, Option<String>)> = sqlx::query_as(
        "SELECT number, tenant, dataset ->> 'name' FROM uploads
         WHERE id = $1 AND cleanup_pending
           AND (status IN ('failed', 'cancelled', 'undone') OR expired_at IS NOT NULL)",
    )
    .bind(id.as_uuid())
    .fetch_optional(&mut *transaction)
    .await?;
    let Some((number, tenant, name)) = pending else {
        return Ok((Removal::Done, None));
    };
    let dataset = name.map(|name| datasets::key(&tenant, &name)).transpose()?;
    let pending = Pending { number, dataset };
    let step = step_of(&removable(&mut transaction, id).await?);
    if let Some(step) = &step {
        remove_step(&mut transaction, id, &pending, step).await?;
    }
    let removal = match &step {
        Some(step) if !step.is_last => Removal::More,
        _ => {
            end_removal(&mut transaction, id).await?;
            Removal::Done
        }
    };
    transaction.commit().await?;
    let is_first = step.is_some_and(|step| step.first_seq == 1 && !step.is_last);
    Ok((removal, is_first.then_some(pending)))
}

/// The next entries of the ledger. Their number is limited, so that a step stays small.
async fn removable(connection: &mut PgConnection, id: UploadId) -> sqlx::Result<Vec<Removable>> {
    let found: Vec<(i32, i32, i64, i32, bool, bool)> = sqlx::query_as(
        "SELECT epoch, seq, first_row, rows, landing, dataset FROM batches
         WHERE upload_id = $1 ORDER BY epoch, seq LIMIT $2",
    )
    .bind(id.as_uuid())
    .bind(REMOVAL_LOOKAHEAD as i64)
    .fetch_all(connection)
    .await?;
    let removable = |(epoch, seq, first_row, rows, is_in_landing, is_in_dataset)| Removable {
        epoch,
        seq,
        first_row,
        rows,
        table: RowTable::of(is_in_landing, is_in_dataset),
    };
    Ok(found.into_iter().map(removable).collect())
}

async fn remove_step(
    connection: &mut PgConnection,
    id: UploadId,
    pending: &Pending,
    step: &Step,
) -> sqlx::Result<()> {
    sqlx::query(READ_BY_INDEX).execute(&mut *connection).await?;
    if step.in_landing {
        sqlx::query("DELETE FROM landing WHERE upload = $1 AND row_number BETWEEN $2 AND $3")
            .bind(pending.number)
            .bind(step.first_row)
            .bind(step.last_row)
            .execute(&mut *connection)
            .await?;
    }
    if step.in_rows {
        sqlx::query("DELETE FROM rows WHERE upload_id = $1 AND row_number BETWEEN $2 AND $3")
            .bind(id.as_uuid())
            .bind(step.first_row)
            .bind(step.last_row)
            .execute(&mut *connection)
            .await?;
    }
    if let Some(dataset) = &pending.dataset {
        let (first, last) = (step.first_row, step.last_row);
        if step.in_dataset {
            datasets::remove_rows(connection, dataset, id, first..=last).await?;
            previous_rows::delete_pointers(connection, id, first, last).await?;
        } else {
            previous_rows::delete(connection, pending.number, first, last).await?;
            written_rows::delete_step(connection, pending.number, step.is_last).await?;
        }
    }
    // Triggers keep entries whose rows are in `landing` or in the table of a dataset, so that a
    // version which does not know these tables cannot delete them.
    for statement in [
        "UPDATE batches SET landing = false, dataset = false
         WHERE upload_id = $1 AND epoch = $2 AND seq <= $3 AND (landing OR dataset)",
        "DELETE FROM batches WHERE upload_id = $1 AND epoch = $2 AND seq <= $3",
    ] {
        sqlx::query(statement)
            .bind(id.as_uuid())
            .bind(step.epoch)
            .bind(step.last_seq)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Records that no row and no ledger entry is left. The dead letters have rows, too.
async fn end_removal(connection: &mut PgConnection, id: UploadId) -> sqlx::Result<()> {
    dead_letters::forget_all(connection, id).await?;
    sqlx::query("UPDATE uploads SET cleanup_pending = false, updated_at = now() WHERE id = $1")
        .bind(id.as_uuid())
        .execute(connection)
        .await?;
    Ok(())
}
