//! The lock that guards the status of an upload, while another process holds it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use carga_common::batch::BatchId;
use carga_common::store::{
    DeadBatch, DeadLetterStore, Heartbeat, Parked, RejectStore, UploadStore,
};
use carga_common::upload::UploadId;
use carga_testkit::{Scope, eventually};
use sqlx::{PgPool, Postgres, Transaction};
use tokio::time::timeout;

use super::{connect, new_upload};

/// Long enough for a debug build on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Begins a transaction that holds the lock of an upload. `function` takes the lock.
async fn lock(
    pool: &PgPool,
    id: UploadId,
    function: &str,
) -> Result<Transaction<'static, Postgres>> {
    let mut transaction = pool.begin().await?;
    let (high, low) = id.as_uuid().as_u64_pair();
    sqlx::query(&format!("SELECT {function}($1)"))
        .bind((high ^ low).cast_signed())
        .execute(&mut *transaction)
        .await?;
    Ok(transaction)
}

/// How many calls wait for such a lock.
async fn waiting(pool: &PgPool) -> Result<i64> {
    let sql = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
               WHERE l.locktype = 'advisory' AND NOT l.granted AND d.datname = current_database()";
    Ok(sqlx::query_scalar(sql).fetch_one(pool).await?)
}

/// A worker is storing a batch while a copy of the same batch becomes a dead letter. If the dead
/// letter were kept, the upload would fail although no row is missing.
#[tokio::test]
async fn a_park_waits_for_the_fence() -> Result<()> {
    const STORE: &str = "INSERT INTO batches
            (upload_id, epoch, seq, first_row, rows, archive_bytes, archive_crc32, landing)
        VALUES ($1, 1, 1, 1, 1, 100, 0, true)";
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let store = connect(scope.database_url()).await?;
    let upload = store.create(&new_upload()).await?.key();
    let mut storing = lock(&pool, upload.id, "pg_advisory_xact_lock_shared").await?;
    sqlx::query(STORE)
        .bind(upload.id.as_uuid())
        .execute(&mut *storing)
        .await?;

    let letter = DeadBatch {
        id: Some(BatchId { upload, seq: 1 }),
        rows: None,
        attempts: 4,
        reason: "the worker ended".to_owned(),
        body: Bytes::from_static(b"{}"),
    };
    let parking = tokio::spawn(async move { store.park(&letter).await });
    // A park that does not wait has ended by then, with another outcome.
    eventually(TIMEOUT, "the park to wait", async || {
        parking.is_finished() || waiting(&pool).await.is_ok_and(|waiting| waiting == 1)
    })
    .await?;
    storing.commit().await?;
    let parked = parking.await??;
    ensure!(parked == Parked::AlreadyStored, "{parked:?}");
    scope.close().await
}

/// A lease that is not renewed in time ends its upload, however busy the other connections are.
#[tokio::test]
async fn a_lease_is_renewed_while_all_connections_wait_for_a_lock() -> Result<()> {
    /// Below the ten seconds that a call waits for a connection.
    const LIMIT: Duration = Duration::from_secs(5);
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let store = connect(scope.database_url()).await?;
    let upload = store.create(&new_upload()).await?.key();
    let ending = lock(&pool, upload.id, "pg_advisory_xact_lock").await?;
    // The store has two connections.
    let rejecting = [1, 2].map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.reject(upload, &[]).await })
    });
    eventually(TIMEOUT, "both connections to wait", async || {
        waiting(&pool).await.is_ok_and(|waiting| waiting == 2)
    })
    .await?;

    let beat = Heartbeat {
        upload: upload.id,
        rows_read: 1,
        rows_rejected: 0,
        bytes_received: 10,
    };
    let renewed = timeout(LIMIT, store.heartbeat(&[beat])).await;
    let renewed = renewed.context("the renewal waited for a connection")??;
    ensure!(renewed == [upload.id], "{renewed:?}");
    ending.rollback().await?;
    for rejected in rejecting {
        ensure!(rejected.await??, "the upload is not receiving");
    }
    scope.close().await
}
