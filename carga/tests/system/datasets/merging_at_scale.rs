//! Merges of 200,000 rows, merges that are interrupted, and merges that meet in one table.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use carga_testkit::eventually;
use serde_json::{Value, json};
use uuid::Uuid;

use super::merging::{Outcome, PRODUCTS, declare_products, expect_merged, merge, send_accepted};
use super::undoing_merges::undo_merge;
use super::violations::rejected_rows;
use super::{options, send};
use crate::app::{App, TIMEOUT};
use crate::harness::Mode;
use crate::progress::poll;

in_both_modes! {
    an_atomic_upload_of_two_hundred_thousand_rows_becomes_visible_at_once,
    a_killed_update_changes_all_rows_or_none_and_its_undo_restores_the_table,
    a_killed_ignore_adds_all_rows_or_none_and_its_undo_restores_the_table,
    a_killed_atomic_append_adds_all_rows_or_none_and_its_undo_restores_the_table,
    uploads_that_merge_at_once_take_turns,
}

/// The rows of each large file.
const ROWS: u64 = 200_000;
/// The rows that are in the table before.
const HALF: u64 = ROWS / 2;
/// The batches of a large file.
const BATCHES: i64 = 200;

/// Rows with these keys. The note of a row begins with `version`.
fn rows(keys: impl IntoIterator<Item = u64>, version: &str) -> String {
    let row = |key: u64| format!("s{key:06},{key}.50,{version} {key}\n");
    keys.into_iter().map(row).collect()
}

fn file(rows: &[String]) -> String {
    format!("sku,price,note\n{}", rows.concat())
}

/// Starts Carga with half of the rows in the table.
async fn start(mode: Mode) -> Result<App> {
    let harness = mode.harness().await?;
    let harness = harness
        .with("CARGA_SWEEP_MS", "500")
        .with("CARGA_BATCH_ROWS", "1000");
    let app = App::start(harness, 1).await?;
    declare_products(&app).await?;
    let outcome = Outcome {
        inserted: HALF,
        ..Outcome::default()
    };
    let base = file(&[rows(0..HALF, "old")]);
    merge(&app, &[("mode", "ignore")], base, outcome).await?;
    Ok(app)
}

async fn an_atomic_upload_of_two_hundred_thousand_rows_becomes_visible_at_once(
    mode: Mode,
) -> Result<()> {
    let app = start(mode).await?;
    let before = app.harness.table(PRODUCTS).await?;
    let new = file(&[rows(0..ROWS, "new")]);
    let outcome = Outcome {
        inserted: HALF,
        updated: HALF,
        ..Outcome::default()
    };
    let id = Uuid::now_v7();
    let options = options(PRODUCTS, &[("mode", "update"), ("atomic", "true")]);
    let (sent, seen) = tokio::try_join!(
        send(&app, id, &options, new),
        visible_rows_until_the_end(&app, id)
    )?;
    ensure!(sent.status() == 202, "{}", sent.text().await?);
    expect_merged(&app, PRODUCTS, id, outcome).await?;
    let none = [HALF, 0];
    let none_or_all = BTreeSet::from([none, [ROWS, ROWS]]);
    ensure!(
        seen.contains(&none) && seen.is_subset(&none_or_all),
        "these numbers of rows and of new rows were visible: {seen:?}"
    );
    undo_merge(&app, id, [ROWS, 0, 0]).await?;
    let after = app.harness.table(PRODUCTS).await?;
    ensure!(after == before, "the undo did not restore the table");
    app.close().await
}

/// Polls until the upload has ended. Returns the numbers of all rows and of new rows that were
/// visible together.
async fn visible_rows_until_the_end(app: &App, id: Uuid) -> Result<BTreeSet<[u64; 2]>> {
    const COUNTS: &str = "count(*), count(*) FILTER (WHERE note LIKE 'new %')";
    let mut seen = BTreeSet::new();
    eventually(TIMEOUT * 2, "the upload to end", async || {
        let visible = app.harness.typed(PRODUCTS, COUNTS, COUNTS).await;
        seen.extend(visible.ok().and_then(|visible| {
            let counts = visible[0].clone();
            serde_json::from_value::<[u64; 2]>(counts).ok()
        }));
        has_ended(app, id).await
    })
    .await?;
    Ok(seen)
}

async fn has_ended(app: &App, id: Uuid) -> bool {
    let upload = app.upload(id).await.ok().flatten();
    upload.is_some_and(|upload| !upload["finished_at"].is_null())
}

/// An upload of 200,000 rows whose merge is interrupted a few times.
struct Killed {
    options: &'static [(&'static str, &'static str)],
    file: String,
    outcome: Outcome,
    /// How many notes in the table then begin with `old`, `new` and `second`.
    notes: [u64; 3],
    /// The numbers of polls in a row that must see the merge before its process is killed.
    polls: &'static [u32],
}

/// A file with the keys of all rows in the table. A thousand of these rows stay the same, and a
/// thousand keys are in the file twice.
fn repeating_file() -> String {
    file(&[
        rows(0..1000, "old"),
        rows(1000..199_000, "new"),
        rows(150_000..151_000, "second"),
    ])
}

async fn a_killed_update_changes_all_rows_or_none_and_its_undo_restores_the_table(
    mode: Mode,
) -> Result<()> {
    let killed = Killed {
        options: &[],
        file: repeating_file(),
        outcome: Outcome {
            inserted: 99_000,
            updated: 99_000,
            duplicate: 2000,
            rejected: 0,
        },
        notes: [1000, 197_000, 1000],
        polls: &[3, 10, 25],
    };
    kill_and_undo(mode, killed).await
}

async fn a_killed_ignore_adds_all_rows_or_none_and_its_undo_restores_the_table(
    mode: Mode,
) -> Result<()> {
    let killed = Killed {
        options: &[("mode", "ignore")],
        file: repeating_file(),
        outcome: Outcome {
            inserted: 99_000,
            duplicate: 101_000,
            ..Outcome::default()
        },
        notes: [HALF, 99_000, 0],
        polls: &[2, 8, 20],
    };
    kill_and_undo(mode, killed).await
}

/// Rows whose keys are in the table violate the key, and the others are inserted together. Postgres
/// finds 100,000 such rows at once. SQLite writes each of them alone before it is rejected, which
/// would take minutes, so there are only 500 of them.
async fn a_killed_atomic_append_adds_all_rows_or_none_and_its_undo_restores_the_table(
    mode: Mode,
) -> Result<()> {
    let taken = match mode {
        Mode::Distributed => HALF,
        Mode::Embedded => 500,
    };
    let first = HALF - taken;
    let killed = Killed {
        options: &[
            ("mode", "append"),
            ("atomic", "true"),
            ("max_rejects", "100%"),
        ],
        file: file(&[rows(first..first + ROWS, "new")]),
        outcome: Outcome {
            inserted: ROWS - taken,
            rejected: taken,
            ..Outcome::default()
        },
        notes: [HALF, ROWS - taken, 0],
        polls: &[2, 8, 20],
    };
    kill_and_undo(mode, killed).await
}

async fn kill_and_undo(mode: Mode, killed: Killed) -> Result<()> {
    let mut app = start(mode).await?;
    let before = app.harness.table(PRODUCTS).await?;
    // While no worker runs, the API cannot be the process that merges.
    if matches!(mode, Mode::Distributed) {
        app.storing_process().kill9()?;
    }
    let id = send_accepted(&app, PRODUCTS, killed.options, killed.file).await?;
    if matches!(mode, Mode::Distributed) {
        app.restart_storing_process().await?;
    }
    app.wait_for_more_batches(id, BATCHES - 1).await?;
    let tables = kill_merges(mode, &mut app, id, killed.polls).await?;
    expect_merged(&app, PRODUCTS, id, killed.outcome).await?;
    let after = app.harness.table(PRODUCTS).await?;
    let none = tables.iter().filter(|table| **table == before).count();
    let all = tables.iter().filter(|table| **table == after).count();
    ensure!(
        none > 0,
        "no merge was interrupted, so the test proved nothing"
    );
    ensure!(none + all == tables.len(), "a part of the rows was merged");

    let counts = ["old", "new", "second"]
        .map(|version| format!("count(*) FILTER (WHERE note LIKE '{version} %')"))
        .join(", ");
    let counts = app.harness.typed(PRODUCTS, &counts, &counts).await?;
    ensure!(counts == json!([killed.notes]), "{counts}");
    expect_first_rejected(&app, id, killed.outcome.rejected).await?;
    let written = killed.outcome.inserted + killed.outcome.updated;
    undo_merge(&app, id, [written, 0, 0]).await?;
    let undone = app.harness.table(PRODUCTS).await?;
    ensure!(undone == before, "the undo did not restore the table");
    app.close().await
}

/// Fails unless the report has the first rows of the file, because their keys are there.
async fn expect_first_rejected(app: &App, id: Uuid, rows: u64) -> Result<()> {
    let rejected = rejected_rows(app, id).await?;
    let numbers = rejected.iter().map(|row| row["row"].as_u64());
    ensure!(
        numbers.eq((1..=rows).map(Some)),
        "{} rejected rows instead of the first {rows}",
        rejected.len()
    );
    for row in &rejected {
        ensure!(
            row["code"] == "unique_violation" && row["column"] == "sku",
            "{row}"
        );
    }
    Ok(())
}

/// Kills the process that merges, a few times. Returns the table after each time.
async fn kill_merges(
    mode: Mode,
    app: &mut App,
    id: Uuid,
    polls: &[u32],
) -> Result<Vec<Vec<String>>> {
    let mut tables = Vec::new();
    for polls in polls {
        wait_for_merge(app, id, *polls).await?;
        app.storing_process().kill9()?;
        if matches!(mode, Mode::Distributed) {
            wait_for_rollback(app).await?;
        }
        // The new process merges again at once, so the table is read before it starts.
        tables.push(app.harness.table(PRODUCTS).await?);
        app.restart_storing_process().await?;
    }
    Ok(tables)
}

/// Polls until a merge has been seen in this number of polls in a row, or the upload has ended.
async fn wait_for_merge(app: &App, id: Uuid, polls: u32) -> Result<()> {
    let mut seen = 0;
    eventually(TIMEOUT, "the merge", async || {
        let is_merging = app.harness.is_locked(PRODUCTS).await.unwrap_or_default();
        seen = if is_merging { seen + 1 } else { 0 };
        seen >= polls || has_ended(app, id).await
    })
    .await
}

/// Polls until Postgres has ended the transaction of a killed worker.
async fn wait_for_rollback(app: &App) -> Result<()> {
    eventually(TIMEOUT, "the end of the transaction", async || {
        let is_locked = app.harness.is_locked(PRODUCTS).await;
        is_locked.is_ok_and(|is_locked| !is_locked)
    })
    .await
}

const WORKERS: usize = 4;

/// The rows of each of two uploads. Half of their keys are the same.
const SMALL: u64 = 4000;

/// Figures that must not decrease.
const FIGURES: &[(&str, &str)] = &[
    ("rows", "read"),
    ("rows", "inserted"),
    ("rows", "updated"),
    ("rows", "duplicate"),
    ("batches", "stored"),
];

async fn uploads_that_merge_at_once_take_turns(mode: Mode) -> Result<()> {
    let harness = mode.harness().await?.with("CARGA_BATCH_ROWS", "200");
    let app = App::start(harness, WORKERS).await?;
    declare_products(&app).await?;
    // The rows of the files are in opposite orders, so that locks of rows would cause a deadlock.
    for round in 0..3 {
        let first = round * 2 * SMALL;
        let one = rows(first..first + SMALL, "one");
        let other = rows((first + SMALL / 2..first + SMALL / 2 * 3).rev(), "other");
        let ids = [Uuid::now_v7(), Uuid::now_v7()];
        let pollers = ids.map(|id| poll(&app, id, FIGURES));
        let options = options(PRODUCTS, &[]);
        let (one, other) = tokio::try_join!(
            send(&app, ids[0], &options, file(&[one])),
            send(&app, ids[1], &options, file(&[other])),
        )?;
        for answer in [one, other] {
            ensure!(answer.status() == 202, "{}", answer.text().await?);
        }
        for poller in pollers {
            poller.await??;
        }
        check_turns(&app, ids).await?;
    }
    let counts = "count(*), count(DISTINCT sku)";
    let counts = app.harness.typed(PRODUCTS, counts, counts).await?;
    let all = 3 * (SMALL + SMALL / 2);
    ensure!(counts == json!([[all, all]]), "{counts}");
    app.close().await
}

/// Fails unless one of the uploads has replaced the rows of the other.
async fn check_turns(app: &App, ids: [Uuid; 2]) -> Result<()> {
    const SHARED: u64 = SMALL / 2;
    let mut updated = Vec::new();
    let mut in_table = Vec::new();
    for id in ids {
        let upload = app.wait_until_ended(id).await?;
        let rows: &Value = &upload["rows"];
        let replaced = rows["updated"].as_u64().context("no figure")?;
        let outcome = Outcome {
            inserted: SMALL - replaced,
            updated: replaced,
            ..Outcome::default()
        };
        outcome.check(&upload)?;
        updated.push(replaced);
        in_table.push(app.harness.count_typed(PRODUCTS, id).await?.0);
    }
    let [all, rest] = [SMALL, SMALL - SHARED].map(u64::cast_signed);
    let expected = match updated[0] {
        0 => (vec![0, SHARED], vec![rest, all]),
        _ => (vec![SHARED, 0], vec![all, rest]),
    };
    ensure!(
        (&updated, &in_table) == (&expected.0, &expected.1),
        "{updated:?} rows were updated, {in_table:?} are in the table"
    );
    Ok(())
}
