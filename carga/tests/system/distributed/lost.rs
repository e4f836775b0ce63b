//! Batches whose messages are gone are noticed, and their upload ends.

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::queue::{BatchQueue, Prefetch};
use carga_testkit::{Scope, eventually};
use uuid::Uuid;

use super::dead_letters::queue;
use crate::app::{App, TIMEOUT};
use crate::files::csv;

/// The time until a quiet upload is reported, and then until it fails. Long enough for a busy
/// machine to see the report.
const LOST_SECS: u64 = 30;

/// Acknowledges all batches, so that they are gone as after a broker that lost its disk.
async fn lose_batches(app: &App, batches: usize) -> Result<()> {
    let queue = queue(app).await?;
    let mut deliveries = queue.consume(Prefetch::of_batches(1)).await?;
    for _ in 0..batches {
        deliveries.next().await?.ack().await?;
    }
    queue.close().await;
    Ok(())
}

#[tokio::test]
async fn an_upload_whose_batches_are_lost_is_reported_and_fails() -> Result<()> {
    let scope = Scope::new()
        .await?
        .with("CARGA_LOST_SECS", LOST_SECS.to_string())
        .with("CARGA_SWEEP_MS", "1000");
    let mut app = App::start(scope, 0).await?;
    let lost = Uuid::now_v7();
    ensure!(app.put(lost, csv(5_000)).await?.status() == 202);
    lose_batches(&app, 5).await?;
    // The batches of this upload stay in the queue, so they are not lost.
    let waiting = Uuid::now_v7();
    ensure!(app.put(waiting, csv(5_000)).await?.status() == 202);
    tokio::time::sleep(Duration::from_secs(LOST_SECS + 1)).await;
    app.add_worker().await?;
    let is_told = async || {
        let upload = app.upload(lost).await.ok().flatten()?;
        (upload["degraded"] == serde_json::json!(["batches_missing"])).then_some(upload)
    };
    let upload = eventually(TIMEOUT, "the upload to report its missing batches", is_told).await?;
    ensure!(upload["status"] == "processing", "{upload}");
    app.expect_completed(waiting, 5_000).await?;
    app.expect_failed(lost, "batches_lost").await?;
    for worker in &app.workers {
        ensure!(worker.log().contains("an upload misses batches"));
    }
    app.close().await
}
