//! `carga cancel` and `carga undo` never write beside another process.

use std::process::Stdio;

use anyhow::{Result, ensure};
use carga_testkit::{Binary, DataDir, command, eventually};
use uuid::Uuid;

use crate::app::{App, TIMEOUT};
use crate::files::{csv, paced};
use crate::harness::Harness;

/// Runs `carga` with the settings of the app. Returns whether it succeeded, and its output.
fn run(harness: &Harness, arguments: &[&str]) -> Result<(bool, String)> {
    let output = command(Binary::Carga)?
        .args(arguments)
        .envs(harness.env())
        .output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(text)?))
}

#[tokio::test]
async fn a_running_server_cancels_and_undoes() -> Result<()> {
    let app = App::start(DataDir::new()?, 0).await?;
    let [stored, receiving] = [Uuid::now_v7(), Uuid::now_v7()];
    ensure!(app.put(stored, csv(2_000)).await?.status() == 202);
    app.expect_completed(stored, 2_000).await?;
    let sending = app.start_sending(receiving, paced(csv(20_000), 50_000));
    app.wait_until_begun(receiving).await?;
    for (action, id, status) in [
        ("undo", stored, "undone"),
        ("cancel", receiving, "cancelled"),
    ] {
        let (ok, output) = run(&app.harness, &[action, &id.to_string()])?;
        ensure!(ok && output.contains(&format!("is {status}")), "{output}");
        app.wait_until_cleaned(id).await?;
        // The refusal of the server is the command's error.
        let (ok, output) = run(&app.harness, &["undo", &id.to_string()])?;
        let expected = "only uploads that are completed or partial can be undone";
        ensure!(
            status == "undone" || !ok && output.contains(expected),
            "{output}"
        );
    }
    ensure!(sending.await??.status() == 409);
    app.close().await
}

#[tokio::test]
async fn nothing_is_reversed_beside_an_import() -> Result<()> {
    let mut app = App::start(DataDir::new()?, 0).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, csv(2_000)).await?.status() == 202);
    app.expect_completed(id, 2_000).await?;
    app.api.terminate()?;
    app.api.wait(TIMEOUT).await?;
    let mut import = command(Binary::Carga)?
        .args(["import", "-"])
        .envs(app.harness.env())
        .stdin(Stdio::piped())
        .spawn()?;
    let lock = app.harness.directory()?.path().join("carga.lock");
    let is_importing =
        async || std::fs::read_to_string(&lock).is_ok_and(|holder| holder.contains("carga import"));
    let importing = eventually(TIMEOUT, "the import to start", is_importing).await;
    let refused = run(&app.harness, &["undo", &id.to_string()]);
    import.kill()?;
    import.wait()?;
    importing?;
    let (ok, output) = refused?;
    ensure!(!ok && output.contains("in use by process"), "{output}");
    let (ok, output) = run(&app.harness, &["undo", &id.to_string()])?;
    ensure!(
        ok && output.contains("all of its rows are removed"),
        "{output}"
    );
    app.restart().await?;
    app.wait_until_cleaned(id).await?;
    app.close().await
}
