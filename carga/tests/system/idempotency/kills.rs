//! `kill -9` of the process that receives a file. The key of the file is free afterwards.

use anyhow::{Result, ensure};
use carga_testkit::eventually;

use super::{accepted, listed, post};
use crate::app::{App, TIMEOUT};
use crate::files::{csv, paced};
use crate::harness::Mode;

in_both_modes! {
    a_file_is_accepted_with_the_same_key_after_its_api_was_killed,
    an_answer_that_a_kill_prevents_is_given_to_the_next_request,
}

const ROWS: usize = 20_000;

/// Twenty times shorter than the defaults: a lease of 60 s and a sweep every 10 s.
async fn start(mode: Mode) -> Result<App> {
    let harness = mode.harness().await?.with("CARGA_LEASE_SECS", "3");
    App::start(harness.with("CARGA_SWEEP_MS", "500"), 1).await
}

async fn a_file_is_accepted_with_the_same_key_after_its_api_was_killed(mode: Mode) -> Result<()> {
    let mut app = start(mode).await?;
    let file = csv(ROWS);
    let sending = tokio::spawn(post(&app, "k", "", paced(file.clone(), 100_000)).send());
    let begun = async || listed(&app).await.ok()?.first().map(|(id, _)| *id);
    let killed = eventually(TIMEOUT, "the upload to exist", begun).await?;
    app.api.kill9()?;
    ensure!(
        sending.await?.is_err(),
        "the killed process answered the client"
    );
    app.restart().await?;
    // Until the lease has expired, the answer is 409.
    let answer = eventually(TIMEOUT, "the file to be accepted", async || {
        let answer = post(&app, "k", "", file.clone()).send().await.ok()?;
        (answer.status() != 409).then_some(answer)
    });
    let (id, is_repeated) = accepted(answer.await?).await?;
    ensure!(id != killed && !is_repeated);
    app.expect_completed(id, ROWS as i64).await?;
    app.expect_failed(killed, "interrupted").await?;
    let again = post(&app, "k", "", file).send().await?;
    ensure!(accepted(again).await? == (id, true));
    app.close().await
}

async fn an_answer_that_a_kill_prevents_is_given_to_the_next_request(mode: Mode) -> Result<()> {
    let mut app = start(mode).await?;
    let file = csv(ROWS);
    // The client leaves before it reads its answer, and the process dies after the seal.
    let sending = tokio::spawn(post(&app, "k", "", file.clone()).send());
    let sealed = async || {
        let (id, status) = listed(&app).await.ok()?.first()?.clone();
        (status != "receiving").then_some(id)
    };
    let id = eventually(TIMEOUT, "the upload to be sealed", sealed).await?;
    sending.abort();
    app.api.kill9()?;
    app.restart().await?;
    let again = post(&app, "k", "", file).send().await?;
    ensure!(accepted(again).await? == (id, true));
    app.expect_completed(id, ROWS as i64).await?;
    app.close().await
}
