//! SIGTERM: uploads in flight may finish, new ones are refused, and no row is lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_testkit::eventually;
use uuid::Uuid;

use crate::answers::problem;
use crate::app::{App, Sending, TIMEOUT};
use crate::files::{FLIGHTS_BATCHES, FLIGHTS_ROWS, csv, flights, paced};
use crate::harness::Mode;

in_both_modes! {
    sigterm_while_storing_returns_unstarted_batches_and_exits_0,
    sigterm_finishes_the_upload_in_flight_refuses_others_and_exits_0,
    an_upload_that_outlasts_the_grace_period_fails_as_interrupted,
}

async fn sigterm_while_storing_returns_unstarted_batches_and_exits_0(mode: Mode) -> Result<()> {
    let harness = mode
        .harness()
        .await?
        .with("CARGA_GROUP_BATCHES", "1")
        .with("CARGA_STORE_SESSIONS", "1")
        .with("CARGA_PREFETCH", "8")
        .with("CARGA_LOG", "carga_worker=debug,info");
    let mut app = App::start(harness, 0).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, flights().await?).await?.status() == 202);
    app.add_worker().await?;
    app.wait_for_more_batches(id, 20).await?;
    app.storing_process().terminate()?;
    let exit = app.storing_process().wait(Duration::from_secs(30)).await?;
    ensure!(exit.code() == Some(0), "{exit}");
    let stored = app.harness.count_batches(id).await?;
    ensure!(
        stored < FLIGHTS_BATCHES,
        "SIGTERM came too late: every batch was stored"
    );
    // It stored and acknowledged every batch that it had begun.
    let log = app.storing_process().log();
    ensure!(
        !log.contains("will be redelivered"),
        "a stored batch was not acknowledged"
    );
    app.restart_storing_process().await?;
    app.expect_completed(id, FLIGHTS_ROWS).await?;
    app.close().await
}

async fn sigterm_finishes_the_upload_in_flight_refuses_others_and_exits_0(
    mode: Mode,
) -> Result<()> {
    let mut app = App::start(mode.harness().await?, 1).await?;
    let id = Uuid::now_v7();
    let sending = send_slowly(&app, id, 20_000, 400_000).await?;
    app.api.terminate()?;
    eventually(TIMEOUT, "the API to drain", async || {
        let ready = app.get("/readyz").await;
        ready.is_ok_and(|(status, ready)| status == 503 && ready["status"] == "draining")
    })
    .await?;
    problem(app.put(Uuid::now_v7(), csv(10)).await?, 503, "stopping").await?;
    ensure!(sending.await??.status() == 202);
    let exit = app.api.wait(Duration::from_secs(30)).await?;
    ensure!(exit.code() == Some(0), "{exit}");

    app.restart().await?;
    app.expect_completed(id, 20_000).await?;
    app.close().await
}

async fn an_upload_that_outlasts_the_grace_period_fails_as_interrupted(mode: Mode) -> Result<()> {
    let harness = mode.harness().await?.with("CARGA_GRACE_SECS", "1");
    let mut app = App::start(harness, 1).await?;
    let id = Uuid::now_v7();
    let sending = send_slowly(&app, id, 40_000, 100_000).await?;
    app.api.terminate()?;
    problem(sending.await??, 503, "interrupted").await?;
    let exit = app.api.wait(Duration::from_secs(30)).await?;
    ensure!(exit.code() == Some(0), "{exit}");

    app.restart().await?;
    app.expect_failed(id, "interrupted").await?;
    app.close().await
}

/// Starts to send an upload, and waits until its first rows have been read.
async fn send_slowly(app: &App, id: Uuid, rows: usize, bytes_per_second: usize) -> Result<Sending> {
    let sending = app.start_sending(id, paced(csv(rows), bytes_per_second));
    eventually(TIMEOUT, "some rows to be read", async || {
        let upload = app.upload(id).await.ok().flatten();
        upload.is_some_and(|upload| upload["rows"]["read"].as_u64() > Some(0))
    })
    .await?;
    Ok(sending)
}
