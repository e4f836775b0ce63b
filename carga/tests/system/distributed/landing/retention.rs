//! Workers remove rows and archives that were kept for long enough.

use anyhow::{Result, ensure};
use carga_testkit::{Scope, eventually};
use uuid::Uuid;

use crate::app::{App, TIMEOUT};
use crate::files::csv;

#[tokio::test]
async fn a_worker_removes_rows_and_archive_of_an_old_upload_and_keeps_its_record() -> Result<()> {
    const ROWS: i64 = 2500;
    let scope = Scope::new().await?.with("CARGA_RETENTION_DAYS", "30");
    let pool = scope.pool();
    let mut app = App::start(scope, 1).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, csv(ROWS as usize)).await?.status() == 202);
    let upload = app.expect_completed(id, ROWS).await?;
    ensure!(upload["expired_at"].is_null(), "{upload}");
    let set_back = "UPDATE uploads SET finished_at = now() - interval '31 days' WHERE id = $1";
    sqlx::query(set_back).bind(id).execute(&pool).await?;

    // A worker looks for old uploads when it starts, and then every hour.
    app.add_worker().await?;
    let has_expired = async || {
        let upload = app.upload(id).await.ok().flatten();
        upload.is_some_and(|upload| upload["expired_at"].is_string())
    };
    eventually(TIMEOUT, "the rows to expire", has_expired).await?;
    app.wait_until_cleaned(id).await?;
    let is_unarchived = async || {
        let objects = app.harness.objects().await;
        objects.is_ok_and(|objects| objects.is_empty())
    };
    eventually(TIMEOUT, "the archive to be deleted", is_unarchived).await?;

    let url = format!("{}/uploads/{id}/rows", app.url);
    let answer = app.client.get(url).send().await?;
    ensure!(answer.status() == 409, "{}", answer.status());
    let problem = answer.text().await?;
    ensure!(problem.contains("CARGA_RETENTION_DAYS"), "{problem}");
    let (_, upload) = app.get(&format!("/uploads/{id}")).await?;
    ensure!(
        upload["status"] == "completed" && upload["rows"]["inserted"] == ROWS,
        "{upload}"
    );
    ensure!(app.harness.count_batches(id).await? == 0);
    app.close().await
}
