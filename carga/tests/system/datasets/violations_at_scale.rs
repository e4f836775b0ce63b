//! Two uploads with the same unique values are stored at the same time by several workers.

use anyhow::{Context, Result, ensure};
use carga_testkit::Running;
use serde_json::json;
use uuid::Uuid;

use super::removing::SLOW_STORING;
use super::violations::{CODES, check_taken, create_codes, rejected_rows};
use super::{options, send};
use crate::app::App;
use crate::harness::Mode;
use crate::progress::poll;

in_both_modes! {
    simultaneous_uploads_with_the_same_codes_store_each_code_once,
    simultaneous_uploads_store_each_code_once_although_a_process_is_killed,
}

const WORKERS: usize = 4;

/// The rows of each file. Half of its codes are also in the other file.
const ROWS: usize = 12_000;
/// The codes of both files together.
const ALL_CODES: u64 = ROWS as u64 / 2 * 3;
/// The rows of a batch. The settings for slow storing have the same number.
const BATCH_ROWS: usize = 250;

/// Figures that must not decrease.
const FIGURES: &[(&str, &str)] = &[
    ("rows", "inserted"),
    ("rows", "rejected"),
    ("batches", "stored"),
];

/// A file whose odd rows have codes of its own. If it is `mixed`, every eighth batch is in reverse
/// order, so that some transactions wait for each other's codes.
fn file(name: &str, mixed: bool) -> String {
    let mut rows: Vec<usize> = (0..ROWS).collect();
    if mixed {
        let batches = rows.chunks_mut(BATCH_ROWS).step_by(8);
        batches.for_each(<[usize]>::reverse);
    }
    let mut file = "code,number\n".to_owned();
    for row in rows {
        match row % 2 {
            0 => file.push_str(&format!("shared-{row},{row}\n")),
            _ => file.push_str(&format!("{name}-{row},{row}\n")),
        }
    }
    file
}

/// Sends both files at once.
async fn send_both(app: &App, ids: [Uuid; 2]) -> Result<()> {
    let options = options(CODES, &[]);
    let (one, other) = tokio::try_join!(
        send(app, ids[0], &options, file("one", false)),
        send(app, ids[1], &options, file("other", true)),
    )?;
    for answer in [one, other] {
        ensure!(answer.status() == 202, "{}", answer.text().await?);
    }
    Ok(())
}

async fn simultaneous_uploads_with_the_same_codes_store_each_code_once(mode: Mode) -> Result<()> {
    let harness = mode.harness().await?;
    let harness = harness.with("CARGA_BATCH_ROWS", &BATCH_ROWS.to_string());
    let app = App::start(harness, WORKERS).await?;
    create_codes(&app).await?;
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    let pollers = ids.map(|id| poll(&app, id, FIGURES));
    send_both(&app, ids).await?;
    for poller in pollers {
        poller.await??;
    }
    ensure!(
        app.harness.have_overlapped().await?,
        "the uploads were stored one after the other, so the test proved nothing"
    );
    check(mode, &app, ids).await?;
    app.close().await
}

async fn simultaneous_uploads_store_each_code_once_although_a_process_is_killed(
    mode: Mode,
) -> Result<()> {
    let mut harness = mode.harness().await?;
    for (key, value) in SLOW_STORING {
        harness = harness.with(key, value);
    }
    let mut app = App::start(harness, WORKERS).await?;
    create_codes(&app).await?;
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    send_both(&app, ids).await?;
    let all = 2 * ROWS.div_ceil(BATCH_ROWS) as i64;
    app.wait_for_more_batches(ids[0], 5).await?;
    app.storing_process().kill9()?;
    let one = app.harness.count_batches(ids[0]).await?;
    let other = app.harness.count_batches(ids[1]).await?;
    ensure!(one + other < all, "killed too late");
    app.restart_storing_process().await?;
    check(mode, &app, ids).await?;
    ensure!(
        was_redelivered(&app),
        "no batch was redelivered, so the test proved nothing"
    );
    app.close().await
}

/// Whether a process got a batch that another process, or an earlier one, had in hand.
fn was_redelivered(app: &App) -> bool {
    let mut logs = app.workers.iter().chain([&app.api]).map(Running::log);
    logs.any(|log| log.contains("redelivered=true"))
}

/// Waits until both uploads have ended. Fails unless each code is in the table once, and each other
/// row is rejected because its code is taken.
async fn check(mode: Mode, app: &App, ids: [Uuid; 2]) -> Result<()> {
    let mut inserted = 0;
    for id in ids {
        let upload = app.wait_until_ended(id).await?;
        let figure = |name: &str| upload["rows"][name].as_u64().context("no figure");
        let (stored, rejected) = (figure("inserted")?, figure("rejected")?);
        let status = match rejected {
            0 => "completed",
            _ => "partial",
        };
        ensure!(
            upload["status"] == status && stored + rejected == ROWS as u64,
            "{upload}"
        );
        let in_table = app.harness.count_typed(CODES, id).await?;
        let stored_rows = stored.cast_signed();
        ensure!(in_table == (stored_rows, stored_rows), "{in_table:?}");
        let rows = rejected_rows(app, id).await?;
        ensure!(rows.len() as u64 == rejected, "{} rejected", rows.len());
        check_taken(mode, &rows)?;
        for row in rows {
            let code = row["fields"][0].as_str().context("no code")?;
            ensure!(code.starts_with("shared-"), "{row}");
        }
        inserted += stored;
    }
    ensure!(inserted == ALL_CODES, "{inserted} rows are stored");
    let counts = "count(*), count(DISTINCT code)";
    let counts = app.harness.typed(CODES, counts, counts).await?;
    ensure!(counts == json!([[ALL_CODES, ALL_CODES]]), "{counts}");
    Ok(())
}
