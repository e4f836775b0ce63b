//! Rows that are removed, and processes that are killed while they store rows.

use anyhow::{Result, ensure};
use serde_json::json;
use uuid::Uuid;

use super::{
    declare, expect_stored, flights_definition, import, options, put, send, start_sending,
};
use crate::app::App;
use crate::files::{FLIGHTS_ROWS, flights, paced};
use crate::harness::Mode;

in_both_modes! {
    an_undone_upload_leaves_no_row_in_the_table,
    a_cancelled_upload_leaves_no_row_in_the_table,
    a_killed_process_loses_no_row_and_doubles_no_row,
    a_killed_api_leaves_no_row_in_the_table,
}

/// Small batches, few prefetched and one per transaction, so that storing takes long.
pub(super) const SLOW_STORING: [(&str, &str); 4] = [
    ("CARGA_BATCH_ROWS", "250"),
    ("CARGA_GROUP_BATCHES", "1"),
    ("CARGA_STORE_SESSIONS", "1"),
    ("CARGA_PREFETCH", "2"),
];

/// Batches of the flights file with these settings; the last one is not full.
const BATCHES: i64 = FLIGHTS_ROWS / 250 + 1;

/// Starts Carga with these settings, and declares the dataset `flights`.
async fn start(mode: Mode, settings: &[(&str, &str)]) -> Result<App> {
    let mut harness = mode.harness().await?;
    for (key, value) in settings {
        harness = harness.with(key, value);
    }
    let app = App::start(harness, 1).await?;
    put(&app, "flights", &flights_definition(), 201).await?;
    Ok(app)
}

async fn an_undone_upload_leaves_no_row_in_the_table(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    declare(&app, "sales", json!([{ "name": "id", "type": "integer" }])).await?;
    let undone = import(&app, "sales", "id\n1\n2\n3\n", 3).await?;
    let kept = import(&app, "sales", "id\n4\n5\n", 2).await?;
    let undo = app
        .client
        .post(format!("{}/uploads/{undone}/undo", app.url));
    ensure!(undo.send().await?.status() == 202);
    // The view hides the rows at once, and the table loses them soon.
    let visible = app.harness.typed("sales", "id", "id").await?;
    ensure!(visible == json!([[4], [5]]), "{visible}");
    app.wait_until_cleaned(undone).await?;
    ensure!(app.harness.count_typed("sales", undone).await? == (0, 0));
    expect_stored(&app, "sales", kept, "completed", 2).await?;
    app.close().await
}

async fn a_cancelled_upload_leaves_no_row_in_the_table(mode: Mode) -> Result<()> {
    let app = start(mode, &SLOW_STORING).await?;
    let id = Uuid::now_v7();
    let file = paced(flights().await?, 2_000_000);
    let sent = start_sending(&app, id, "flights", file)?;
    app.wait_for_more_batches(id, 10).await?;
    let (stored, _) = app.harness.count_typed("flights", id).await?;
    ensure!(
        stored > 0,
        "no row was stored before the upload was cancelled"
    );
    let cancel = app.client.post(format!("{}/uploads/{id}/cancel", app.url));
    ensure!(cancel.send().await?.status() == 202);
    ensure!(sent.await??.status() == 409);
    app.wait_until_cleaned(id).await?;
    // This upload is queued behind the other's last batches, so those are settled when it ends.
    import(&app, "flights", first_flights(1000).await?, 1000).await?;
    ensure!(app.harness.count_typed("flights", id).await? == (0, 0));
    app.close().await
}

/// The flights file with its header and its first rows.
async fn first_flights(rows: usize) -> Result<String> {
    let file = String::from_utf8(flights().await?.to_vec())?;
    let lines = file.split_inclusive('\n').take(rows + 1);
    Ok(lines.collect())
}

async fn a_killed_process_loses_no_row_and_doubles_no_row(mode: Mode) -> Result<()> {
    let mut app = start(mode, &SLOW_STORING).await?;
    let id = Uuid::now_v7();
    let options = options("flights", &[]);
    let sent = send(&app, id, &options, flights().await?).await?;
    ensure!(sent.status() == 202, "{}", sent.text().await?);
    let mut redelivered = false;
    for _ in 0..3 {
        let stored = app.harness.count_batches(id).await?;
        app.wait_for_more_batches(id, stored + (BATCHES - stored) / 8)
            .await?;
        app.storing_process().kill9()?;
        let log = app.storing_process().log();
        redelivered |= log.contains("redelivered=true");
        ensure!(!log.contains("upload completed"), "killed too late");
        app.restart_storing_process().await?;
    }
    expect_stored(&app, "flights", id, "completed", FLIGHTS_ROWS).await?;
    redelivered |= app.storing_process().log().contains("redelivered=true");
    ensure!(
        redelivered,
        "no batch was redelivered, so the test proved nothing"
    );
    app.close().await
}

async fn a_killed_api_leaves_no_row_in_the_table(mode: Mode) -> Result<()> {
    // Twenty times shorter than the defaults: a lease of 60 s and a sweep every 10 s.
    let settings = [("CARGA_LEASE_SECS", "3"), ("CARGA_SWEEP_MS", "500")];
    let mut app = start(mode, &settings).await?;
    let id = Uuid::now_v7();
    let file = paced(flights().await?, 4_000_000);
    let sent = start_sending(&app, id, "flights", file)?;
    app.wait_for_more_batches(id, 20).await?;
    let (stored, _) = app.harness.count_typed("flights", id).await?;
    ensure!(stored > 0, "no row was stored before the API was killed");
    app.api.kill9()?;
    ensure!(
        sent.await?.is_err(),
        "the client got an answer from the killed API"
    );
    app.restart().await?;
    app.expect_failed(id, "interrupted").await?;
    ensure!(app.harness.count_typed("flights", id).await? == (0, 0));
    app.close().await
}
