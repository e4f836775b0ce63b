//! Deletes what an undo needs, once an upload has ended long enough ago.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::error::PortResult;
use crate::store::postgres::connections::{LONG, MERGE, MERGE_STATEMENT};
use crate::store::postgres::{PostgresStore, previous_rows, try_lock_rows, written_rows};
use crate::store::rules::FORGET_LIMIT;
use crate::upload::UploadId;

/// Uploads that ended more than `$1` seconds ago, and of which previous values or written rows are
/// kept. At most `$2` are taken. A previous version that runs beside this one makes an upload
/// irreversible without deleting its written rows.
const TO_FORGET: &str = "SELECT id FROM uploads
    WHERE (is_reversible AND rows_updated > 0 OR written_columns <> '{}')
      AND status IN ('completed', 'partial')
      AND finished_at < now() - make_interval(secs => $1)
    ORDER BY finished_at LIMIT $2";

/// Makes an upload irreversible. `$1`: its id.
const FORGET: &str = "UPDATE uploads
    SET is_reversible = false, updated_at = now(),
        written_columns = CASE WHEN written_columns IS NOT NULL THEN '{}'::text[] END
    WHERE id = $1 AND (is_reversible OR written_columns <> '{}')
      AND status IN ('completed', 'partial')
    RETURNING number";

/// Forgets how uploads that ended more than `older_than` ago are undone. Returns how many uploads
/// these are.
pub(in crate::store::postgres) async fn forget(
    store: &PostgresStore,
    operation: &'static str,
    older_than: Duration,
) -> PortResult<u64> {
    let found = store.call(operation, LONG, async |connection| {
        let found: Vec<Uuid> = sqlx::query_scalar(TO_FORGET)
            .bind(older_than.as_secs_f64())
            .bind(FORGET_LIMIT)
            .fetch_all(connection)
            .await?;
        Ok(found)
    });
    let mut forgotten = 0;
    for id in found.await? {
        let is_forgotten = store.call(operation, MERGE, async |connection| {
            forget_upload(connection, id.into()).await
        });
        forgotten += u64::from(is_forgotten.await?);
    }
    Ok(forgotten)
}

/// Returns false if another process is undoing the upload, or has undone it.
async fn forget_upload(connection: &mut PgConnection, id: UploadId) -> sqlx::Result<bool> {
    let mut transaction = connection.begin().await?;
    sqlx::query(MERGE_STATEMENT)
        .execute(&mut *transaction)
        .await?;
    if !try_lock_rows(&mut transaction, id).await? {
        return Ok(false);
    }
    let number: Option<i64> = sqlx::query_scalar(FORGET)
        .bind(id.as_uuid())
        .fetch_optional(&mut *transaction)
        .await?;
    if let Some(number) = number {
        previous_rows::delete(&mut transaction, number, 0, i64::MAX).await?;
        written_rows::delete(&mut transaction, number).await?;
    }
    transaction.commit().await?;
    Ok(number.is_some())
}
