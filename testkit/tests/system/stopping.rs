//! SIGTERM.

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_testkit::{Scope, eventually};
use uuid::Uuid;

use crate::app::{App, FLIGHTS_ROWS, PATIENCE, Sending, csv, flights, paced};
use crate::bad_input::problem;

#[tokio::test]
async fn a_worker_told_to_stop_gives_back_what_it_has_and_exits_0() -> Result<()> {
    let mut app = App::start(
        Scope::new()
            .await?
            .with("CARGA_GROUP_BATCHES", "1")
            .with("CARGA_LOG", "carga_worker=debug,info"),
        1,
    )
    .await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, flights().await?).await?.status() == 202);
    app.stored_more_than(id, 20).await?;
    app.workers[0].terminate()?;
    let exit = app.workers[0].wait(Duration::from_secs(30)).await?;
    ensure!(exit.code() == Some(0), "{exit}");
    ensure!(app.batches_of(id).await? < 337, "it was told too late");
    // What it had begun it finished, acknowledgements included.
    let log = app.workers[0].log();
    ensure!(
        !log.contains("will come again"),
        "a stored batch was not acknowledged"
    );
    app.add_worker().await?;
    app.completed(id, FLIGHTS_ROWS).await?;
    app.scope.close().await
}

#[tokio::test]
async fn an_api_told_to_stop_finishes_the_upload_in_flight_takes_no_other_and_exits_0() -> Result<()>
{
    let mut app = App::start(Scope::new().await?, 1).await?;
    let id = Uuid::now_v7();
    let sending = send_slowly(&app, id, 20_000, 400_000).await?;
    app.api.terminate()?;
    eventually(PATIENCE, "the API to drain", async || {
        let ready = app.get("/readyz").await;
        ready.is_ok_and(|(status, ready)| status == 503 && ready["status"] == "draining")
    })
    .await?;
    problem(app.put(Uuid::now_v7(), csv(10)).await?, 503, "stopping").await?;
    ensure!(sending.await??.status() == 202);
    let exit = app.api.wait(Duration::from_secs(30)).await?;
    ensure!(exit.code() == Some(0), "{exit}");

    let workers = std::mem::take(&mut app.workers);
    let mut app = App::start(app.scope, 0).await?;
    app.workers = workers;
    app.completed(id, 20_000).await?;
    app.scope.close().await
}

#[tokio::test]
async fn an_upload_that_outlasts_the_grace_period_fails_as_interrupted() -> Result<()> {
    let mut app = App::start(Scope::new().await?.with("CARGA_GRACE_SECS", "1"), 1).await?;
    let id = Uuid::now_v7();
    let sending = send_slowly(&app, id, 40_000, 100_000).await?;
    app.api.terminate()?;
    problem(sending.await??, 503, "interrupted").await?;
    let exit = app.api.wait(Duration::from_secs(30)).await?;
    ensure!(exit.code() == Some(0), "{exit}");

    let workers = std::mem::take(&mut app.workers);
    let mut app = App::start(app.scope, 0).await?;
    app.workers = workers;
    app.failed(id, "interrupted").await?;
    app.scope.close().await
}

/// An upload on its way, of which something has arrived.
async fn send_slowly(app: &App, id: Uuid, rows: usize, bytes_per_second: usize) -> Result<Sending> {
    let sending = app.sending(id, paced(csv(rows), bytes_per_second));
    eventually(PATIENCE, "some rows to be read", async || {
        let upload = app.upload(id).await.ok().flatten();
        upload.is_some_and(|upload| upload["rows"]["read"].as_u64() > Some(0))
    })
    .await?;
    Ok(sending)
}
