//! Leases are renewed whatever else is slow.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use carga_testkit::{DataDir, eventually};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use uuid::Uuid;

use crate::app::App;
use crate::files::{csv, paced};

/// Another process holds the lock of the live counters, so every report to them waits.
#[tokio::test]
async fn leases_are_renewed_while_the_live_counters_do_not_answer() -> Result<()> {
    const ROWS: usize = 12_000;
    let app = App::start(DataDir::new()?, 0).await?;
    let id = Uuid::now_v7();
    // The file takes about 15 s.
    let file = csv(ROWS);
    let rate = file.len() / 15;
    let sending = app.start_sending(id, paced(file, rate));
    app.wait_until_begun(id).await?;

    let counters = app.harness.directory()?.path().join("progress.db");
    let options = SqliteConnectOptions::new().filename(counters);
    let mut holder = options.connect().await?;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut holder).await?;
    // A call waits 10 s for the lock. Four renewals a second are due.
    let mut renewals = BTreeSet::new();
    let renewed = eventually(Duration::from_secs(8), "eight renewals", async || {
        renewals.extend(renewed_at(&app, id).await.ok());
        renewals.len() > 8
    });
    renewed.await?;
    holder.close().await?;

    ensure!(sending.await??.status() == 202);
    app.expect_completed(id, ROWS as i64).await?;
    app.close().await
}

/// When the upload's lease was last renewed.
async fn renewed_at(app: &App, id: Uuid) -> Result<String> {
    let mut carga = app.harness.directory()?.open("carga.db").await?;
    let (renewed_at,) = sqlx::query_as("SELECT renewed_at FROM upload_leases WHERE upload_id = $1")
        .bind(id.to_string())
        .fetch_one(&mut carga)
        .await?;
    carga.close().await?;
    Ok(renewed_at)
}
