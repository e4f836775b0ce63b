//! S3 is away: receiving goes on, and what is received is stored once S3 is back.

use anyhow::{Result, ensure};
use carga_testkit::{S3, Scope, eventually};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::app::{App, TIMEOUT};
use crate::files::csv;

#[tokio::test]
async fn an_api_without_its_archive_is_degraded_and_accepts_uploads() -> Result<()> {
    let mut s3 = S3::start().await?;
    let app = App::start(Scope::new().await?.with_s3(&s3)?, 1).await?;
    s3.stop().await?;
    expect_degraded(&app).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, csv(3000)).await?.status() == 202);
    s3.restart().await?;
    app.expect_completed(id, 3000).await?;
    app.close().await
}

#[tokio::test]
async fn programs_start_without_their_archive_and_create_its_bucket_later() -> Result<()> {
    let mut s3 = S3::start().await?;
    let scope = Scope::new().await?.with_s3(&s3)?;
    let scope = scope.with("ARCHIVE_URL", "s3://made-later");
    s3.stop().await?;
    let app = App::start(scope, 1).await?;
    ensure!(app.api.log().contains("starting without the archive"));
    expect_degraded(&app).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, csv(3000)).await?.status() == 202);
    s3.restart().await?;
    app.expect_completed(id, 3000).await?;
    let manifest = format!("uploads/{id}/manifest.json");
    ensure!(s3.objects("made-later")?.contains(&manifest));
    expect_ready(&app).await?;
    app.close().await
}

#[tokio::test]
async fn the_readiness_check_creates_a_missing_bucket() -> Result<()> {
    let mut s3 = S3::start().await?;
    let scope = Scope::new().await?.with_s3(&s3)?;
    let scope = scope.with("ARCHIVE_URL", "s3://made-later");
    s3.stop().await?;
    let app = App::start(scope, 0).await?;
    s3.restart().await?;
    expect_ready(&app).await?;
    ensure!(s3.objects("made-later")?.is_empty());
    app.close().await
}

#[tokio::test]
async fn an_api_starts_although_its_archive_never_answers() -> Result<()> {
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", silent.local_addr()?);
    let scope = Scope::new().await?.with("AWS_ENDPOINT_URL", endpoint);
    let app = App::start(scope, 0).await?;
    expect_degraded(&app).await?;
    ensure!(app.put(Uuid::now_v7(), csv(10)).await?.status() == 202);
    app.close().await
}

async fn expect_degraded(app: &App) -> Result<()> {
    let (status, ready) = app.get("/readyz").await?;
    let archive = &ready["dependencies"]["archive"];
    ensure!(
        status == 200 && ready["status"] == "degraded" && archive == "unavailable",
        "{status}: {ready}"
    );
    Ok(())
}

async fn expect_ready(app: &App) -> Result<()> {
    eventually(TIMEOUT, "the API to be ready", async || {
        let ready = app.get("/readyz").await;
        ready.is_ok_and(|(status, ready)| status == 200 && ready["status"] == "ready")
    })
    .await
}
