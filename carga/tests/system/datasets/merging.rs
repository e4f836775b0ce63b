//! Rows are merged into the table of a dataset at the end of their upload, by a key or all at once.

use anyhow::{Context, Result, ensure};
use reqwest::Body;
use serde_json::{Value, json};
use uuid::Uuid;

use super::removing::SLOW_STORING;
use super::undoing_merges::undo_merge;
use super::{declare, detail, options, put, send, sending};
use crate::answers::problem;
use crate::app::App;
use crate::files::paced;
use crate::harness::Mode;

in_both_modes! {
    update_replaces_rows_and_counts_exactly,
    ignore_keeps_the_rows_that_are_there,
    columns_that_the_file_lacks_keep_their_values,
    the_rows_of_an_atomic_upload_become_visible_together,
    a_cancelled_upload_leaves_no_staged_row,
    options_that_do_not_fit_are_refused_before_the_file_is_read,
}

pub(super) const PRODUCTS: &str = "products";

/// The first rows of `products` in these tests.
pub(super) const BASE: &str = "sku,price,note\na,1.50,x\nb,2.50,NA\nc,3.50,z\n";

/// Declares a dataset whose rows have the key `sku`. An empty text is not NULL.
pub(super) async fn declare_products(app: &App) -> Result<()> {
    let definition = json!({
        "columns": [
            { "name": "sku", "type": "text" },
            { "name": "price", "type": "numeric" },
            { "name": "note", "type": "text" },
        ],
        "key": ["sku"],
        "null": ["NA"],
    });
    let created = put(app, PRODUCTS, &definition, 201).await?;
    ensure!(
        created["mode"] == "update"
            && created["key"] == json!(["sku"])
            && created["columns"][0]["required"] == true,
        "{created}"
    );
    Ok(())
}

/// The figures of an upload that ended well.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outcome {
    pub(super) inserted: u64,
    pub(super) updated: u64,
    pub(super) duplicate: u64,
    pub(super) rejected: u64,
}

impl Outcome {
    /// Fails unless the upload ended well with these figures.
    pub(super) fn check(self, upload: &Value) -> Result<()> {
        let Self {
            inserted,
            updated,
            duplicate,
            rejected,
        } = self;
        let status = match rejected {
            0 => "completed",
            _ => "partial",
        };
        let rows = json!({
            "read": inserted + updated + duplicate + rejected,
            "inserted": inserted,
            "updated": updated,
            "duplicate": duplicate,
            "rejected": rejected,
            "dead": 0,
            "discarded": 0,
            "pending": 0,
        });
        ensure!(
            upload["status"] == status && upload["rows"] == rows,
            "expected {status} with {rows}, found {upload}"
        );
        ensure!(
            upload["percent"] == 100.0
                && upload["batches"]["dead"] == 0
                && upload["error"].is_null()
                && upload["reversible"] == true
                && upload["undone"].is_null(),
            "{upload}"
        );
        Ok(())
    }
}

/// Sends a file for `products`. Fails unless its rows end like this.
pub(super) async fn merge(
    app: &App,
    further: &[(&str, &str)],
    file: impl Into<Body>,
    outcome: Outcome,
) -> Result<Uuid> {
    let id = send_accepted(app, PRODUCTS, further, file).await?;
    expect_merged(app, PRODUCTS, id, outcome).await?;
    Ok(id)
}

/// Sends a file with options. Fails unless it is accepted.
pub(super) async fn send_accepted(
    app: &App,
    dataset: &str,
    further: &[(&str, &str)],
    file: impl Into<Body>,
) -> Result<Uuid> {
    let id = Uuid::now_v7();
    let answer = send(app, id, &options(dataset, further), file).await?;
    ensure!(answer.status() == 202, "{}", answer.text().await?);
    Ok(id)
}

/// Polls until the upload has ended. Fails unless it ended like this, its rows are in the table,
/// and no staged row is left.
pub(super) async fn expect_merged(
    app: &App,
    dataset: &str,
    id: Uuid,
    outcome: Outcome,
) -> Result<()> {
    outcome.check(&app.wait_until_ended(id).await?)?;
    let rows = (outcome.inserted + outcome.updated).cast_signed();
    let in_table = app.harness.count_typed(dataset, id).await?;
    ensure!(
        in_table == (rows, rows),
        "{in_table:?} instead of {rows} rows"
    );
    let staged = app.harness.count_rows(id).await?;
    ensure!(staged == (0, 0), "{staged:?} staged rows are left");
    Ok(())
}

/// The visible rows of `products`, in the order of their keys.
pub(super) async fn products(app: &App) -> Result<Value> {
    let (postgres, sqlite) = ("sku, price::text, note", "sku, price, note");
    let rows = app.harness.typed(PRODUCTS, postgres, sqlite).await?;
    let mut rows = rows.as_array().context("no rows")?.clone();
    rows.sort_by_key(Value::to_string);
    Ok(Value::Array(rows))
}

const THREE_INSERTED: Outcome = Outcome {
    inserted: 3,
    updated: 0,
    duplicate: 0,
    rejected: 0,
};

async fn update_replaces_rows_and_counts_exactly(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    declare_products(&app).await?;
    merge(&app, &[], BASE, THREE_INSERTED).await?;
    // In order: an equal row, an empty text instead of NULL, a new row, two rows with one key, of
    // which the last wins, and a row that is rejected before the merge.
    let file = "sku,price,note\na,1.50,x\nb,2.50,\nd,9.00,y\nc,7.00,z\nc,8.00,z\ne,cheap,z\n";
    let outcome = Outcome {
        inserted: 1,
        updated: 2,
        duplicate: 2,
        rejected: 1,
    };
    let id = merge(&app, &[], file, outcome).await?;
    let expected = json!([
        ["a", "1.50", "x"],
        ["b", "2.50", ""],
        ["c", "8.00", "z"],
        ["d", "9.00", "y"],
    ]);
    let rows = products(&app).await?;
    ensure!(rows == expected, "{rows}");

    // The rows of the upload are those that it inserted or replaced, in the order of the file.
    let url = format!("{}/uploads/{id}/rows?format=ndjson", app.url);
    let stored = app.client.get(url).send().await?.text().await?;
    let stored: Vec<Value> = stored
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let keys: Vec<&Value> = stored.iter().map(|row| &row["sku"]).collect();
    ensure!(keys == ["b", "d", "c"], "{stored:?}");

    // The same file again changes nothing.
    let before = app.harness.table(PRODUCTS).await?;
    let outcome = Outcome {
        duplicate: 5,
        rejected: 1,
        ..Outcome::default()
    };
    merge(&app, &[("mode", "update")], file, outcome).await?;
    let after = app.harness.table(PRODUCTS).await?;
    ensure!(after == before, "{after:?} instead of {before:?}");
    app.close().await
}

async fn ignore_keeps_the_rows_that_are_there(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    declare_products(&app).await?;
    merge(&app, &[("mode", "ignore")], BASE, THREE_INSERTED).await?;
    // Two keys are there, and of two rows with one key the first wins.
    let file = "sku,price,note\na,5.00,q\nd,1.00,first\nd,2.00,second\nb,2.50,NA\ne,1.00,NA\n";
    let outcome = Outcome {
        inserted: 2,
        duplicate: 3,
        ..Outcome::default()
    };
    let id = merge(&app, &[("mode", "ignore")], file, outcome).await?;
    let rows = products(&app).await?;
    let base = [
        json!(["a", "1.50", "x"]),
        json!(["b", "2.50", null]),
        json!(["c", "3.50", "z"]),
    ];
    let new = [json!(["d", "1.00", "first"]), json!(["e", "1.00", null])];
    let expected = Value::Array([&base[..], &new].concat());
    ensure!(rows == expected, "{rows}");
    undo_merge(&app, id, [2, 0, 0]).await?;
    let rows = products(&app).await?;
    ensure!(rows == json!(base), "{rows}");
    app.close().await
}

async fn columns_that_the_file_lacks_keep_their_values(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    declare_products(&app).await?;
    merge(&app, &[], BASE, THREE_INSERTED).await?;
    let file = "price,sku\n1.50,a\n8.00,c\n9.00,d\n";
    let outcome = Outcome {
        inserted: 1,
        updated: 1,
        duplicate: 1,
        ..Outcome::default()
    };
    merge(&app, &[], file, outcome).await?;
    let rows = products(&app).await?;
    let expected = json!([
        ["a", "1.50", "x"],
        ["b", "2.50", null],
        ["c", "8.00", "z"],
        ["d", "9.00", null],
    ]);
    ensure!(rows == expected, "{rows}");

    let without_key = "price,note\n1.50,a\n";
    let options = options(PRODUCTS, &[]);
    let answer = send(&app, Uuid::now_v7(), &options, without_key).await?;
    let refused = problem(answer, 422, "columns_do_not_match").await?;
    ensure!(detail(&refused)?.contains("`sku`"), "{refused}");
    app.close().await
}

/// A file of a single column with numbers.
fn numbers(rows: u64) -> String {
    let lines: String = (1..=rows).map(|number| format!("{number}\n")).collect();
    "id\n".to_owned() + &lines
}

async fn the_rows_of_an_atomic_upload_become_visible_together(mode: Mode) -> Result<()> {
    const ROWS: u64 = 20_000;
    let harness = mode.harness().await?.with("CARGA_BATCH_ROWS", "100");
    let app = App::start(harness, 2).await?;
    declare(
        &app,
        "numbers",
        json!([{ "name": "id", "type": "integer" }]),
    )
    .await?;
    let id = Uuid::now_v7();
    let atomic = options("numbers", &[("atomic", "true")]);
    let request = sending(&app, id, &atomic, paced(numbers(ROWS), 30_000))?;
    let sent = tokio::spawn(request.send());
    app.wait_for_more_batches(id, 10).await?;
    let upload = app.upload(id).await?.context("no upload")?;
    let rows = &upload["rows"];
    ensure!(
        upload["finished_at"].is_null() && rows["inserted"] == 0 && rows["pending"] == rows["read"],
        "{upload}"
    );
    ensure!(app.harness.count_typed("numbers", id).await? == (0, 0));
    ensure!(sent.await??.status() == 202);
    let outcome = Outcome {
        inserted: ROWS,
        ..Outcome::default()
    };
    expect_merged(&app, "numbers", id, outcome).await?;
    let visible = app.harness.typed("numbers", "sum(id)", "sum(id)").await?;
    ensure!(visible == json!([[ROWS * (ROWS + 1) / 2]]), "{visible}");
    undo_merge(&app, id, [ROWS, 0, 0]).await?;
    ensure!(app.harness.table("numbers").await?.is_empty());
    app.close().await
}

async fn a_cancelled_upload_leaves_no_staged_row(mode: Mode) -> Result<()> {
    let mut harness = mode.harness().await?;
    for (key, value) in SLOW_STORING {
        harness = harness.with(key, value);
    }
    let app = App::start(harness, 1).await?;
    declare_products(&app).await?;
    merge(&app, &[], BASE, THREE_INSERTED).await?;
    let before = app.harness.table(PRODUCTS).await?;
    let rows: String = (0..20_000).map(|row| format!("{row},a\n")).collect();
    let file = paced(format!("price,sku\n{rows}"), 60_000);
    let id = Uuid::now_v7();
    let request = sending(&app, id, &options(PRODUCTS, &[]), file)?;
    let sent = tokio::spawn(request.send());
    app.wait_for_more_batches(id, 3).await?;
    let (staged, _) = app.harness.count_rows(id).await?;
    ensure!(staged > 0, "no row was staged before the cancellation");
    let cancel = app.client.post(format!("{}/uploads/{id}/cancel", app.url));
    ensure!(cancel.send().await?.status() == 202);
    ensure!(sent.await??.status() == 409);
    app.wait_until_cleaned(id).await?;
    // This upload is queued behind the other's last batches, so those are settled when it ends.
    let outcome = Outcome {
        duplicate: 3,
        ..Outcome::default()
    };
    merge(&app, &[], BASE, outcome).await?;
    ensure!(app.harness.count_rows(id).await? == (0, 0));
    ensure!(app.harness.table(PRODUCTS).await? == before);
    app.close().await
}

async fn options_that_do_not_fit_are_refused_before_the_file_is_read(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    declare(
        &app,
        "numbers",
        json!([{ "name": "id", "type": "integer" }]),
    )
    .await?;
    let dataset = Some(("dataset", "numbers"));
    let no_key = (422, "no_key", "dataset `numbers` has no key");
    let malformed = |text| (400, "malformed_option", text);
    for (dataset, option, (status, code, text)) in [
        (dataset, ("mode", "update"), no_key),
        (dataset, ("mode", "ignore"), no_key),
        (dataset, ("mode", "upsert"), malformed("`mode`")),
        (dataset, ("atomic", "yes"), malformed("`atomic`")),
        (None, ("mode", "append"), malformed("`dataset`")),
        (None, ("atomic", "true"), malformed("`dataset`")),
    ] {
        let id = Uuid::now_v7();
        let options: Vec<_> = dataset.into_iter().chain([option]).collect();
        let answer = send(&app, id, &options, numbers(3)).await?;
        let refused = problem(answer, status, code).await?;
        ensure!(detail(&refused)?.contains(text), "{text}: {refused}");
        ensure!(app.upload(id).await?.is_none(), "{option:?} left an upload");
    }
    app.close().await
}
