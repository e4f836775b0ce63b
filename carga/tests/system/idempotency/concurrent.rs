//! Requests with one key at the same time.

use anyhow::{Context, Result, ensure};
use carga_testkit::eventually;
use futures::future::try_join_all;
use serde_json::json;
use uuid::Uuid;

use super::{accepted, listed, post};
use crate::answers::problem;
use crate::app::{App, TIMEOUT};
use crate::files::{csv, paced};
use crate::harness::Mode;

in_both_modes! {
    twenty_concurrent_requests_with_one_key_make_one_upload,
    a_request_is_refused_at_once_while_the_first_one_is_running,
}

/// Sends the file until it is accepted, as a client does that gets a 409.
async fn send_until_accepted(app: &App, file: &str) -> Result<(Uuid, bool)> {
    let answer = eventually(TIMEOUT, "the file to be accepted", async || {
        let sent = post(app, "k", "", file.to_owned()).send().await;
        let answer = sent.ok()?;
        (answer.status() != 409).then_some(answer)
    });
    accepted(answer.await?).await
}

async fn twenty_concurrent_requests_with_one_key_make_one_upload(mode: Mode) -> Result<()> {
    const ROWS: usize = 5000;
    let app = App::start(mode.harness().await?, 2).await?;
    let file = csv(ROWS);
    let sending = (0..20).map(|_| send_until_accepted(&app, &file));
    let answers = try_join_all(sending).await?;
    let id = answers[0].0;
    ensure!(answers.iter().all(|(other, _)| *other == id), "{answers:?}");
    let first = answers.iter().filter(|(_, is_repeated)| !is_repeated);
    ensure!(first.count() == 1, "{answers:?}");
    app.expect_completed(id, ROWS as i64).await?;
    let uploads = listed(&app).await?;
    ensure!(uploads == [(id, "completed".to_owned())], "{uploads:?}");
    app.close().await
}

async fn a_request_is_refused_at_once_while_the_first_one_is_running(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    // Sending takes more than a minute.
    let sending = post(&app, "k", "", paced(csv(50_000), 20_000)).send();
    let sending = tokio::spawn(sending);
    let begun = async || listed(&app).await.ok()?.first().map(|(id, _)| *id);
    let id = eventually(TIMEOUT, "the upload to exist", begun).await?;
    let refused = post(&app, "k", "", csv(3)).send().await?;
    let retry_after = refused.headers().get("retry-after").cloned();
    let refused = problem(refused, 409, "idempotency_in_progress").await?;
    ensure!(refused["upload"] == json!(id), "{refused}");
    ensure!(refused["upload_status"] == "receiving", "{refused}");
    ensure!(retry_after.context("no retry-after")? == "5");

    let cancel = app.client.post(format!("{}/uploads/{id}/cancel", app.url));
    ensure!(cancel.send().await?.status() == 202);
    problem(sending.await??, 409, "cancelled").await?;
    let (other, is_repeated) = accepted(post(&app, "k", "", csv(3)).send().await?).await?;
    ensure!(other != id && !is_repeated);
    app.expect_completed(other, 3).await?;
    app.close().await
}
