//! `kill -9` at the worst moment.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use carga_common::queue::SUSPECT_AFTER;
use carga_testkit::{Binary, Running, Scope};
use uuid::Uuid;

use crate::app::{App, TIMEOUT};
use crate::files::{FLIGHTS_BATCHES, FLIGHTS_ROWS, csv, flights, paced};
use crate::progress::poll;

#[tokio::test]
async fn a_killed_worker_loses_no_row_and_duplicates_no_row() -> Result<()> {
    // One batch per transaction and few prefetched, so that the kill interrupts storing.
    let scope = Scope::new()
        .await?
        .with("CARGA_GROUP_BATCHES", "1")
        .with("CARGA_STORE_SESSIONS", "1")
        .with("CARGA_PREFETCH", "8");
    let mut app = App::start(scope, 0).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, flights().await?).await?.status() == 202);
    let mut redelivered = false;
    for batches in [40, 120, 200] {
        app.add_worker().await?;
        app.wait_for_more_batches(id, batches).await?;
        app.workers[0].kill9()?;
        let killed = app.workers.remove(0);
        redelivered |= killed.log().contains("redelivered=true");
        ensure!(
            app.harness.count_batches(id).await? < FLIGHTS_BATCHES,
            "the worker was killed too late"
        );
    }
    app.add_worker().await?;
    app.expect_completed(id, FLIGHTS_ROWS).await?;
    redelivered |= app.workers[0].log().contains("redelivered=true");
    ensure!(
        redelivered,
        "no batch was redelivered, so the test proved nothing"
    );
    app.close().await
}

#[tokio::test]
async fn a_batch_whose_workers_were_killed_five_times_is_stored_alone() -> Result<()> {
    let mut app = App::start(Scope::new().await?, 0).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, csv(500)).await?.status() == 202);
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("alive").display().to_string();
    let mut env = app.harness.env();
    env.insert("CARGA_HEARTBEAT_FILE".to_owned(), file);
    // Without the archive, a worker holds the batch until it is killed.
    let nobody = "http://127.0.0.1:1".to_owned();
    env.insert("AWS_ENDPOINT_URL".to_owned(), nobody);
    for _ in 0..SUSPECT_AFTER {
        let mut worker = Running::spawn(Binary::Worker, &env)?;
        let waits = "retrying after a pause";
        worker.wait_for_log(waits, TIMEOUT).await?;
        worker.kill9()?;
    }
    app.add_worker().await?;
    app.expect_completed(id, 500).await?;
    let log = app.workers[0].log();
    ensure!(log.contains("a batch is a suspect"), "{log}");
    app.close().await
}

#[tokio::test]
async fn a_killed_api_leaves_a_failed_upload_without_rows() -> Result<()> {
    // Twenty times shorter than the defaults: a lease of 60 s and a sweep every 10 s.
    let scope = Scope::new()
        .await?
        .with("CARGA_LEASE_SECS", "3")
        .with("CARGA_SWEEP_MS", "500");
    let mut app = App::start(scope, 2).await?;
    let id = Uuid::now_v7();
    let sending = app.start_sending(id, paced(flights().await?, 4_000_000));
    app.wait_for_more_batches(id, 20).await?;
    // Another API answers the polls from now on. The figures shown by the first must not decrease.
    let mut killed_api = std::mem::replace(
        &mut app.api,
        Running::spawn(Binary::Api, &app.harness.env())?,
    );
    app.url = app.api.base_url(TIMEOUT).await?;
    let poller = poll(&app, id, &[("rows", "read"), ("bytes", "received")]);
    killed_api.kill9()?;
    let killed = Instant::now();
    ensure!(
        sending.await?.is_err(),
        "the client got an answer from the killed API"
    );
    let seen = poller.await??;
    ensure!(
        seen.statuses == ["receiving", "failed"],
        "{:?}",
        seen.statuses
    );
    let upload = app.expect_failed(id, "interrupted").await?;
    ensure!(
        killed.elapsed() < Duration::from_secs(30),
        "{:?}",
        killed.elapsed()
    );
    ensure!(
        upload["rows"]["discarded"] == upload["rows"]["read"] && upload["rows"]["inserted"] == 0,
        "{upload}"
    );
    app.close().await
}

#[tokio::test]
async fn the_sweeper_completes_an_upload_whose_worker_died_before_its_check() -> Result<()> {
    let scope = Scope::new().await?.with("CARGA_SWEEP_MS", "500");
    let pool = scope.pool();
    let app = App::start(scope, 1).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, csv(3000)).await?.status() == 202);
    app.expect_completed(id, 3000).await?;
    // The state after a worker's death between the last commit and the completion check.
    sqlx::query("UPDATE uploads SET status = 'processing', rows_inserted = NULL, finished_at = NULL WHERE id = $1")
        .bind(id)
        .execute(&pool)
        .await?;
    app.expect_completed(id, 3000).await?;
    app.close().await
}
