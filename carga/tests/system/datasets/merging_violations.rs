//! Rows that violate another constraint of a table are rejected from a merge.

use std::ops::RangeInclusive;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::merging::{
    Outcome, PRODUCTS, declare_products, expect_merged, merge, products, send_accepted,
};
use super::undoing_merges::undo_merge;
use super::violations::rejected_rows;
use super::{expect_stored, undo};
use crate::app::App;
use crate::harness::Mode;

in_both_modes! {
    rows_that_violate_a_constraint_are_rejected_from_a_merge,
    a_merge_with_too_many_rejects_changes_nothing,
    rows_whose_keys_are_there_are_rejected_if_rows_are_appended,
}

/// What an operator adds to the table: prices are positive, and each note is there once.
pub(super) const IN_POSTGRES: &str = "
    ALTER TABLE datasets.products
        ADD CONSTRAINT positive_price CHECK (price > 0),
        ADD CONSTRAINT note_once UNIQUE (note);
";

/// The same for SQLite, which cannot add a CHECK to a table.
pub(super) const IN_SQLITE: &str = "
    CREATE UNIQUE INDEX note_once ON datasets_products (note);
    CREATE TRIGGER positive_new_price BEFORE INSERT ON datasets_products
        WHEN CAST(NEW.price AS real) <= 0
        BEGIN SELECT RAISE(ABORT, 'the price is not positive'); END;
    CREATE TRIGGER positive_price BEFORE UPDATE ON datasets_products
        WHEN CAST(NEW.price AS real) <= 0
        BEGIN SELECT RAISE(ABORT, 'the price is not positive'); END;
";

/// The keys of the first file, and those of the second file. They share 100 keys.
const BASE: RangeInclusive<u64> = 1..=200;
const MERGED: RangeInclusive<u64> = 101..=300;

/// The faults of the second file: five prices, and five notes.
const FAULTY: usize = 10;

/// A row of the second file, and whether it violates a constraint.
fn row(key: u64) -> (String, bool) {
    match key % 40 {
        0 => (format!("s{key},-1.0,new {key},red\n"), true),
        20 => (format!("s{key},2.50,old 1,red\n"), true),
        _ => (format!("s{key},2.50,new {key},red\n"), false),
    }
}

pub(super) fn second_file() -> String {
    let rows: String = MERGED.map(|key| row(key).0).collect();
    format!("sku,price,note,colour\n{rows}")
}

/// Starts Carga with a table that has the first rows and the constraints.
pub(super) async fn start(mode: Mode) -> Result<App> {
    let app = App::start(mode.harness().await?, 1).await?;
    declare_products(&app).await?;
    app.harness.execute(IN_POSTGRES, IN_SQLITE).await?;
    let rows: String = BASE.map(|key| format!("s{key},1.50,old {key}\n")).collect();
    let outcome = Outcome {
        inserted: 200,
        ..Outcome::default()
    };
    merge(&app, &[], format!("sku,price,note\n{rows}"), outcome).await?;
    Ok(app)
}

pub(super) const LENIENT: (&str, &str) = ("unknown_columns", "ignore");

async fn rows_that_violate_a_constraint_are_rejected_from_a_merge(mode: Mode) -> Result<()> {
    let app = start(mode).await?;
    let before = app.harness.table(PRODUCTS).await?;
    let outcome = Outcome {
        inserted: 95,
        updated: 95,
        rejected: 10,
        ..Outcome::default()
    };
    let id = merge(&app, &[LENIENT], second_file(), outcome).await?;
    let rejected = rejected_rows(&app, id).await?;
    check_rejected(mode, &rejected)?;
    let expected = |key: u64| match (MERGED.contains(&key), row(key)) {
        (true, (_, false)) => Some(json!([format!("s{key}"), "2.50", format!("new {key}")])),
        _ if BASE.contains(&key) => Some(json!([format!("s{key}"), "1.50", format!("old {key}")])),
        _ => None,
    };
    let mut expected: Vec<Value> = (1..=300).filter_map(expected).collect();
    expected.sort_by_key(Value::to_string);
    let rows = products(&app).await?;
    ensure!(rows == json!(expected), "{rows}");

    undo_merge(&app, id, [190, 0, 0]).await?;
    let after = app.harness.table(PRODUCTS).await?;
    ensure!(after == before, "the undo did not restore the table");
    app.close().await
}

/// Fails unless these are the faulty rows of the second file, with their original texts.
fn check_rejected(mode: Mode, rejected: &[Value]) -> Result<()> {
    let [price, note] = match mode {
        Mode::Distributed => [
            json!(["check_violation", "price", "positive_price"]),
            json!(["unique_violation", "note", "note_once"]),
        ],
        Mode::Embedded => [
            json!(["trigger_exception", null, null]),
            json!(["unique_violation", "note", "datasets_products.note"]),
        ],
    };
    ensure!(rejected.len() == FAULTY, "{rejected:?}");
    let mut offset = "sku,price,note,colour\n".len();
    let mut found = rejected.iter();
    for (number, key) in (1..).zip(MERGED) {
        let (text, is_faulty) = row(key);
        if is_faulty {
            let found = found.next().context("a row is missing")?;
            let position = ["row", "line", "offset"].map(|field| found[field].clone());
            ensure!(
                json!(position) == json!([number, number + 1, offset]),
                "{found} instead of row {number}"
            );
            let cells: Vec<&str> = text.trim_end().split(',').collect();
            ensure!(found["fields"] == json!(cells), "{found}");
            let reason = ["code", "column", "constraint"].map(|field| found[field].clone());
            let expected = if key % 40 == 0 { &price } else { &note };
            ensure!(json!(reason) == *expected, "{found}");
        }
        offset += text.len();
    }
    Ok(())
}

async fn a_merge_with_too_many_rejects_changes_nothing(mode: Mode) -> Result<()> {
    let app = start(mode).await?;
    let before = app.harness.table(PRODUCTS).await?;
    for (option, code) in [
        (("max_rejects", "3"), Some("too_many_rejects")),
        (("max_rejects", "1%"), Some("too_many_rejects")),
        // The code is that of the first row on record.
        (("on_error", "abort"), None),
    ] {
        let id = send_accepted(&app, PRODUCTS, &[LENIENT, option], second_file()).await?;
        let upload = app.wait_until_ended(id).await?;
        let rejected = rejected_rows(&app, id).await?;
        ensure!(!rejected.is_empty(), "no row is reported");
        let first = rejected[0]["code"].as_str().context("no code")?;
        app.expect_failed(id, code.unwrap_or(first)).await?;
        let rows = &upload["rows"];
        ensure!(
            rows["read"] == 200 && rows["inserted"] == 0 && rows["updated"] == 0,
            "{upload}"
        );
        let after = app.harness.table(PRODUCTS).await?;
        ensure!(after == before, "{option:?} changed the table");
    }
    let id = send_accepted(&app, PRODUCTS, &[], "sku,price,note\ns1,-1.0,x\n").await?;
    app.expect_failed(id, "no_row_fits").await?;
    ensure!(app.harness.table(PRODUCTS).await? == before);

    let outcome = Outcome {
        inserted: 95,
        updated: 95,
        rejected: 10,
        ..Outcome::default()
    };
    merge(
        &app,
        &[LENIENT, ("max_rejects", "10")],
        second_file(),
        outcome,
    )
    .await?;
    app.close().await
}

async fn rows_whose_keys_are_there_are_rejected_if_rows_are_appended(mode: Mode) -> Result<()> {
    let app = start(mode).await?;
    let before = app.harness.table(PRODUCTS).await?;
    // The last row has the key of another row in the file.
    let rows: String = MERGED
        .map(|key| format!("s{key},3.50,new {key}\n"))
        .collect();
    let file = format!("sku,price,note\n{rows}s300,4.50,other\n");
    let append = ("mode", "append");
    let outcome = Outcome {
        inserted: 100,
        rejected: 101,
        ..Outcome::default()
    };
    for atomic in ["true", "false"] {
        let options = [append, ("atomic", atomic)];
        let id = send_accepted(&app, PRODUCTS, &options, file.clone()).await?;
        match atomic {
            "true" => expect_merged(&app, PRODUCTS, id, outcome).await?,
            _ => outcome.check(&expect_stored(&app, PRODUCTS, id, "partial", 100).await?)?,
        }
        let rejected = rejected_rows(&app, id).await?;
        let numbers = rejected.iter().map(|row| row["row"].as_u64());
        ensure!(numbers.eq((1..=100).chain([201]).map(Some)), "{rejected:?}");
        for row in &rejected {
            ensure!(
                row["code"] == "unique_violation" && row["column"] == "sku",
                "{row}"
            );
        }
        match atomic {
            "true" => undo_merge(&app, id, [100, 0, 0]).await?,
            _ => undo(&app, id).await?,
        }
        let after = app.harness.table(PRODUCTS).await?;
        ensure!(after == before, "the undo did not restore the table");
    }
    app.close().await
}
