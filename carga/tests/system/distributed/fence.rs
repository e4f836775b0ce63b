//! A failed upload stores no more rows, even if its batches are still in flight.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use carga_testkit::{Scope, eventually};
use uuid::Uuid;

use crate::app::{App, TIMEOUT};
use crate::files::{concatenated, csv, paced_pieces};

/// Limit from the first byte sent to the last row removed.
const MAX_DURATION: Duration = Duration::from_secs(2);
const ROUNDS: usize = 50;

#[tokio::test]
async fn a_failed_upload_leaves_no_row_within_two_seconds_even_of_batches_in_flight() -> Result<()>
{
    let scope = Scope::new()
        .await?
        .with("CARGA_BATCH_ROWS", "100")
        .with("CARGA_GROUP_BATCHES", "4")
        .with("CARGA_LOG", "carga_worker=debug,info");
    let pool = scope.pool();
    let app = App::start(scope, 4).await?;
    let rows = Bytes::from(csv(12_000));
    let mut ids = Vec::new();
    let mut slowest = Duration::ZERO;
    for _ in 0..ROUNDS {
        let id = Uuid::now_v7();
        ids.push(id);
        // The good rows are slow enough that workers are storing them when the bad row arrives.
        let good = paced_pieces(rows.clone(), 6_000_000);
        let bad = futures::stream::iter([Ok(Bytes::from_static(b"one,two\n"))]);
        let started = Instant::now();
        let answer = app
            .put_with(id, "on_error=abort", concatenated(good, bad))
            .await?;
        ensure!(answer.status() == 422, "{}", answer.text().await?);
        let (finished,): (f64,) = sqlx::query_as(
            "SELECT extract(epoch FROM clock_timestamp() - finished_at)::float8 FROM uploads WHERE id = $1",
        )
        .bind(id)
        .fetch_one(&pool)
        .await?;
        app.wait_until_cleaned(id).await?;
        // This time covers sending (0.1 s), failing the upload, and removing its rows.
        slowest = slowest.max(started.elapsed());
        ensure!(
            finished < MAX_DURATION.as_secs_f64() && started.elapsed() < MAX_DURATION,
            "{:?}",
            started.elapsed()
        );
    }
    // The batches of the failed uploads come first in the queue, so they are settled when this
    // upload completes.
    let last = Uuid::now_v7();
    ensure!(app.put(last, rows).await?.status() == 202);
    app.expect_completed(last, 12_000).await?;
    for id in ids {
        let (left, _) = app.harness.count_rows(id).await?;
        ensure!(
            left == 0,
            "{left} rows of upload {id} were stored after it had failed"
        );
        ensure!(app.harness.count_batches(id).await? == 0);
    }
    let fenced: usize = app
        .workers
        .iter()
        .map(|worker| worker.log().matches("fenced").count())
        .sum();
    ensure!(
        fenced > 0,
        "no batch was fenced, so the test proved nothing (slowest round {slowest:?})"
    );
    app.close().await
}

/// A host that vanished while it stored rows still holds its lock. A change of the status of that
/// upload waits for the lock, but the other uploads do not.
#[tokio::test]
async fn a_locked_upload_does_not_delay_the_others() -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(10);
    let scope = Scope::new().await?.with("CARGA_STORE_SESSIONS", "1");
    let pool = scope.pool();
    let mut app = App::start(scope, 0).await?;
    let [locked, other] = [Uuid::now_v7(), Uuid::now_v7()];
    let rows = Bytes::from(csv(5_000));
    ensure!(app.put(locked, rows.clone()).await?.status() == 202);
    let mut vanished = pool.begin().await?;
    let (high, low) = locked.as_u64_pair();
    sqlx::query("SELECT pg_advisory_xact_lock_shared($1)")
        .bind((high ^ low).cast_signed())
        .execute(&mut *vanished)
        .await?;
    let cancel = app
        .client
        .post(format!("{}/uploads/{locked}/cancel", app.url));
    let cancelling = tokio::spawn(cancel.send());
    let is_waiting = async || {
        let waiting = sqlx::query_scalar(
            "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
             WHERE NOT granted AND datname = current_database()",
        );
        let waiting: sqlx::Result<i64> = waiting.fetch_one(&pool).await;
        waiting.is_ok_and(|waiting| waiting > 0)
    };
    eventually(TIMEOUT, "the cancellation to wait", is_waiting).await?;
    ensure!(app.put(other, rows).await?.status() == 202);
    app.add_worker().await?;
    let started = Instant::now();
    app.expect_completed(other, 5_000).await?;
    ensure!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
    vanished.rollback().await?;
    ensure!(cancelling.await??.status() == 202);
    app.wait_until_cleaned(locked).await?;
    app.close().await
}
