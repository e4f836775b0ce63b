//! Cancelling an upload before it has ended, and undoing it afterwards.

use anyhow::{Context, Result, ensure};
use carga_testkit::eventually;
use reqwest::Response;
use serde_json::Value;
use uuid::Uuid;

use crate::answers::problem;
use crate::app::{App, TIMEOUT};
use crate::files::{csv, flights, paced};
use crate::harness::Mode;

in_both_modes! {
    an_upload_can_be_cancelled_while_it_is_sent_and_while_it_is_stored,
    undoing_an_upload_removes_its_rows_and_its_archive,
    a_reversal_in_the_wrong_state_is_refused_with_409_and_changes_nothing,
}

async fn post(app: &App, id: Uuid, verb: &str) -> Result<Response> {
    let post = app.client.post(format!("{}/uploads/{id}/{verb}", app.url));
    Ok(post.send().await?)
}

/// Cancels or undoes the upload. Fails unless the answer is 202, the upload's status is
/// `status` and no row is left.
async fn expect_reversed(app: &App, id: Uuid, verb: &str, status: &str) -> Result<Value> {
    let answer = post(app, id, verb).await?;
    ensure!(answer.status() == 202, "{}", answer.text().await?);
    let upload: Value = answer.json().await?;
    ensure!(upload["status"] == status, "{upload}");
    app.wait_until_cleaned(id).await?;
    let upload = app.upload(id).await?.context("no upload")?;
    ensure!(
        upload["rows"]["discarded"] == upload["rows"]["read"],
        "{upload}"
    );
    ensure!(
        upload["rows"]["inserted"] == 0 && upload["error"].is_null(),
        "{upload}"
    );
    Ok(upload)
}

async fn an_upload_can_be_cancelled_while_it_is_sent_and_while_it_is_stored(
    mode: Mode,
) -> Result<()> {
    let harness = mode
        .harness()
        .await?
        .with("CARGA_BATCH_ROWS", "250")
        .with("CARGA_GROUP_BATCHES", "1")
        .with("CARGA_STORE_SESSIONS", "1")
        .with("CARGA_PREFETCH", "2");
    let app = App::start(harness, 1).await?;
    let sent = Uuid::now_v7();
    let sending = app.start_sending(sent, paced(flights().await?, 2_000_000));
    app.wait_for_more_batches(sent, 3).await?;
    expect_reversed(&app, sent, "cancel", "cancelled").await?;
    problem(sending.await??, 409, "cancelled").await?;

    let stored = Uuid::now_v7();
    ensure!(app.put(stored, flights().await?).await?.status() == 202);
    app.wait_for_more_batches(stored, 3).await?;
    expect_reversed(&app, stored, "cancel", "cancelled").await?;
    // Cancelling twice has the same effect as once.
    expect_reversed(&app, stored, "cancel", "cancelled").await?;

    // This upload is queued behind their last batches, so those are settled when it completes.
    let last = Uuid::now_v7();
    ensure!(app.put(last, csv(1000)).await?.status() == 202);
    app.expect_completed(last, 1000).await?;
    for id in [sent, stored] {
        ensure!(app.harness.count_rows(id).await? == (0, 0));
        ensure!(app.harness.count_batches(id).await? == 0);
    }
    app.close().await
}

async fn undoing_an_upload_removes_its_rows_and_its_archive(mode: Mode) -> Result<()> {
    let harness = mode.harness().await?.with("CARGA_SWEEP_MS", "500");
    let app = App::start(harness, 1).await?;
    let (id, other) = (Uuid::now_v7(), Uuid::now_v7());
    for id in [id, other] {
        ensure!(app.put(id, csv(2500)).await?.status() == 202);
        app.expect_completed(id, 2500).await?;
    }
    for _ in 0..2 {
        let upload = expect_reversed(&app, id, "undo", "undone").await?;
        ensure!(
            upload["epoch"] == 2 && upload["rows"]["read"] == 2500,
            "{upload}"
        );
    }
    eventually(TIMEOUT, "its archive to be deleted", async || {
        let objects = app.harness.objects().await.unwrap_or_default();
        let of = |id: Uuid| objects.iter().any(|key| key.contains(&id.to_string()));
        of(other) && !of(id)
    })
    .await?;
    app.expect_completed(other, 2500).await?;
    app.close().await
}

async fn a_reversal_in_the_wrong_state_is_refused_with_409_and_changes_nothing(
    mode: Mode,
) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let (completed, failed) = (Uuid::now_v7(), Uuid::now_v7());
    ensure!(app.put(completed, csv(10)).await?.status() == 202);
    app.expect_completed(completed, 10).await?;
    let bad = app.put_with(failed, "on_error=abort", "a,b\n1\n").await?;
    ensure!(bad.status() == 422);
    for (id, verb, status) in [
        (completed, "cancel", "completed"),
        (failed, "cancel", "failed"),
        (failed, "undo", "failed"),
    ] {
        let refused = problem(post(&app, id, verb).await?, 409, "wrong_state").await?;
        ensure!(refused["upload_status"] == status, "{refused}");
    }
    let unknown = Uuid::now_v7();
    problem(post(&app, unknown, "undo").await?, 404, "upload_not_found").await?;
    app.expect_completed(completed, 10).await?;
    app.close().await
}
