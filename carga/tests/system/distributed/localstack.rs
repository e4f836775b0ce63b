//! An upload that is archived in the real LocalStack.

use anyhow::{Result, ensure};
use carga_testkit::{LocalStack, Scope};
use uuid::Uuid;

use crate::app::App;
use crate::files::{FLIGHTS_ROWS, flights};

#[tokio::test]
async fn an_upload_is_archived_on_localstack() -> Result<()> {
    let localstack = LocalStack::start().await?;
    // The bucket does not exist; with a custom endpoint Carga creates it.
    let app = App::start(Scope::new().await?.with_localstack(&localstack)?, 2).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, flights().await?).await?.status() == 202);
    app.expect_completed(id, FLIGHTS_ROWS).await?;
    let objects = app.harness.objects().await?;
    ensure!(objects.len() == 338, "{} objects", objects.len());
    let first = app
        .harness
        .object(&format!("uploads/{id}/batch-000001.json"))
        .await?;
    let first: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(&first)?;
    ensure!(
        first.len() == 1000 && first[0]["carrier"] == "UA",
        "{:?}",
        first[0]
    );
    app.close().await
}
