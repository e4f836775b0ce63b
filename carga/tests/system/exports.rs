//! Rows as they are downloaded.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_testkit::eventually;
use uuid::Uuid;

use crate::answers::problem;
use crate::app::{App, TIMEOUT};
use crate::files::{FLIGHTS_ROWS, csv, flights, read};
use crate::harness::Mode;

in_both_modes! {
    stored_rows_are_downloaded_in_the_order_of_the_file,
    only_an_upload_that_ended_well_has_rows_to_download,
    a_client_that_disconnects_ends_the_download,
}

async fn stored_rows_are_downloaded_in_the_order_of_the_file(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 2).await?;
    let file = flights().await?;
    let id = import(&app, file.clone()).await?;
    let answer = app.client.get(rows_url(&app, id)).send().await?;
    ensure!(answer.status() == 200);
    ensure!(answer.headers()["content-type"] == "text/csv; charset=utf-8");
    let disposition = answer.headers()["content-disposition"].to_str()?.to_owned();
    ensure!(
        disposition.contains(&format!("{id}-rows.csv")),
        "{disposition}"
    );
    // Nothing in it is quoted, so the file comes back byte for byte.
    ensure!(answer.bytes().await? == file);

    let text = csv(2500);
    let id = import(&app, text.clone()).await?;
    let asked = [
        app.client.get(rows_url(&app, id) + "?format=ndjson"),
        app.client
            .get(rows_url(&app, id))
            .header("accept", "application/x-ndjson"),
    ];
    let (columns, rows) = read(text.as_bytes())?;
    for request in asked {
        let answer = request.send().await?;
        ensure!(answer.headers()["content-type"] == "application/x-ndjson");
        let answer = answer.text().await?;
        ensure!(answer.lines().count() == rows.len());
        for (line, row) in answer.lines().zip(&rows) {
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line)?;
            for (column, cell) in columns.iter().zip(row) {
                ensure!(object[column] == cell, "{line}");
            }
        }
    }
    app.close().await
}

async fn only_an_upload_that_ended_well_has_rows_to_download(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let get = async |path: String| app.client.get(app.url.clone() + &path).send().await;
    let id = Uuid::now_v7();
    let unknown = get(format!("/uploads/{id}/rows")).await?;
    problem(unknown, 404, "upload_not_found").await?;

    let failed = app.put_with(id, "on_error=abort", "a,b\n1,2\n3\n").await?;
    ensure!(failed.status() == 422);
    let refused = get(format!("/uploads/{id}/rows")).await?;
    let refused = problem(refused, 409, "wrong_state").await?;
    ensure!(refused["upload_status"] == "failed", "{refused}");

    let id = import(&app, "a,b\n1,2\n").await?;
    for (query, code) in [
        ("format=xml", "malformed_option"),
        ("format=csv&format=csv", "repeated_option"),
        ("limit=1", "unknown_option"),
    ] {
        let refused = get(format!("/uploads/{id}/rows?{query}")).await?;
        problem(refused, 400, code).await?;
    }
    let undone = app.client.post(format!("{}/uploads/{id}/undo", app.url));
    ensure!(undone.send().await?.status() == 202);
    let refused = get(format!("/uploads/{id}/rows")).await?;
    problem(refused, 409, "wrong_state").await?;
    app.close().await
}

async fn a_client_that_disconnects_ends_the_download(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let id = import(&app, flights().await?).await?;
    let whole = processor_time(&app, async || {
        let answer = app.client.get(rows_url(&app, id)).send().await?;
        let lines = answer.text().await?.lines().count();
        ensure!(lines as i64 == FLIGHTS_ROWS + 1);
        Ok(())
    });
    let whole = whole.await?;
    let abandoned = processor_time(&app, async || {
        let mut answer = app.client.get(rows_url(&app, id)).send().await?;
        answer.chunk().await?.context("no first page")?;
        Ok(())
    });
    let abandoned = abandoned.await?;
    ensure!(abandoned < whole / 4, "{abandoned:?} of {whole:?}");
    app.close().await
}

/// What the API spends on a request and on what the request leaves behind.
async fn processor_time(app: &App, request: impl AsyncFnOnce() -> Result<()>) -> Result<Duration> {
    const WINDOW: Duration = Duration::from_millis(500);
    let before = app.api.id().tree_cpu();
    request().await?;
    eventually(TIMEOUT, "the API to be idle", async || {
        let start = app.api.id().tree_cpu();
        tokio::time::sleep(WINDOW).await;
        app.api.id().tree_cpu() - start < WINDOW / 10
    })
    .await?;
    Ok(app.api.id().tree_cpu() - before)
}

async fn import(app: &App, file: impl Into<reqwest::Body>) -> Result<Uuid> {
    let id = Uuid::now_v7();
    let answer = app.put(id, file).await?;
    ensure!(answer.status() == 202, "{}", answer.text().await?);
    ensure!(app.wait_until_ended(id).await?["status"] == "completed");
    Ok(id)
}

fn rows_url(app: &App, id: Uuid) -> String {
    format!("{}/uploads/{id}/rows", app.url)
}
