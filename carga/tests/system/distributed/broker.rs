//! RabbitMQ goes away in the middle of an upload.

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_testkit::{Rabbit, Scope, eventually};
use uuid::Uuid;

use crate::answers::problem;
use crate::app::App;
use crate::files::{FLIGHTS_ROWS, csv, flights, paced};

#[tokio::test]
async fn unconfirmed_batches_are_published_again_after_the_broker_is_killed() -> Result<()> {
    let mut rabbit = Rabbit::start().await?;
    let app = App::start(Scope::new().await?.with_rabbit(&rabbit), 2).await?;
    let id = Uuid::now_v7();
    let sending = app.start_sending(id, paced(flights().await?, 8_000_000));
    app.wait_for_more_batches(id, 60).await?;
    rabbit.kill()?;
    rabbit.restart().await?;
    ensure!(sending.await??.status() == 202);
    app.expect_completed(id, FLIGHTS_ROWS).await?;
    ensure!(
        app.api.log().contains("retrying after a pause"),
        "nothing was published again"
    );
    app.close().await
}

#[tokio::test]
async fn an_upload_fails_with_503_and_no_rows_if_the_broker_stays_away() -> Result<()> {
    let mut rabbit = Rabbit::start().await?;
    let scope = Scope::new()
        .await?
        .with_rabbit(&rabbit)
        .with("CARGA_PUBLISH_DEADLINE_SECS", "2");
    let app = App::start(scope, 1).await?;
    let id = Uuid::now_v7();
    let sending = app.start_sending(id, paced(csv(20_000), 400_000));
    app.wait_for_more_batches(id, 2).await?;
    rabbit.kill()?;
    let answer = sending.await??;
    ensure!(answer.headers().contains_key("retry-after"));
    problem(answer, 503, "queue_unavailable").await?;
    app.expect_failed(id, "queue_unavailable").await?;
    let (status, ready) = app.get("/readyz").await?;
    ensure!(
        status == 503 && ready["dependencies"]["queue"] == "unavailable",
        "{ready}"
    );
    // After the broker's restart the same API and worker continue.
    rabbit.restart().await?;
    let id = Uuid::now_v7();
    let accepted = eventually(
        Duration::from_secs(60),
        "an upload to be accepted",
        async || {
            app.put(id, csv(3000))
                .await
                .is_ok_and(|answer| answer.status() == 202)
        },
    );
    accepted.await?;
    app.expect_completed(id, 3000).await?;
    app.close().await
}
