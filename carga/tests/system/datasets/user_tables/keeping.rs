//! The table of the user is never altered, and its other rows stay as they are.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use uuid::Uuid;

use super::catalog::Catalog;
use super::{
    HEADER, IMPORTS, declare_imports, execute, expect_merged, imports, merge, products, start,
    versions,
};
use crate::answers::problem;
use crate::app::App;
use crate::datasets::merging::{Outcome, send_accepted};
use crate::datasets::undoing_merges::undo_merge;
use crate::datasets::{delete, detail, put, putting};

/// Rows of the application that are in no file.
const OWN: [&str; 2] = ["own", "void"];

/// Updates two rows, and adds one.
const FILE: &str = "sku,price,stock,note\na,1.75,1,x\nb,2.50,2,new\nd,4.50,4,NA\n";

const TWO_UPDATED: Outcome = Outcome {
    inserted: 1,
    updated: 2,
    duplicate: 0,
    rejected: 0,
};

#[tokio::test]
async fn the_table_is_never_altered_and_its_other_rows_stay() -> Result<()> {
    let app = start(1).await?;
    let catalog = Catalog::read(&app, "shop").await?;
    let own = versions(&app, &OWN).await?;
    let before = products(&app).await?;
    declare_imports(&app).await?;
    catalog.expect_unaltered(&app, "PUT").await?;

    let updated = merge(&app, &[], FILE, TWO_UPDATED).await?;
    catalog.expect_unaltered(&app, "an update").await?;
    let [ignoring, appended] = upload_in_other_modes(&app, &catalog).await?;

    undo_merge(&app, appended, [1, 0, 0]).await?;
    undo_merge(&app, ignoring, [1, 0, 0]).await?;
    catalog.expect_unaltered(&app, "two undos").await?;
    let merged = products(&app).await?;
    ensure!(merged != before, "the update has no row");
    ensure!(delete(&app, IMPORTS).await?.status() == 204);
    catalog.expect_unaltered(&app, "DELETE").await?;
    let rows = products(&app).await?;
    ensure!(rows == merged, "DELETE has changed rows: {rows}");

    // The table can be named again, and the rows of the first dataset are rows like all others.
    declare_imports(&app).await?;
    let outcome = Outcome {
        duplicate: 3,
        ..Outcome::default()
    };
    merge(&app, &[], FILE, outcome).await?;
    catalog.expect_unaltered(&app, "the second PUT").await?;
    ensure!(
        versions(&app, &OWN).await? == own,
        "other rows have changed"
    );
    let upload = app.upload(updated).await?.context("no upload")?;
    ensure!(upload["status"] == "completed", "{upload}");
    app.close().await
}

/// Sends files that add one row each, and a file that fails. Returns the uploads of the former.
async fn upload_in_other_modes(app: &App, catalog: &Catalog) -> Result<[Uuid; 2]> {
    let outcome = Outcome {
        inserted: 1,
        duplicate: 1,
        ..Outcome::default()
    };
    let file = format!("{HEADER}a,9.75,1,x\ne,5.50,5,NA\n");
    let ignoring = merge(app, &[("mode", "ignore")], file, outcome).await?;
    catalog.expect_unaltered(app, "an ignore").await?;
    let outcome = Outcome {
        inserted: 1,
        rejected: 1,
        ..Outcome::default()
    };
    let file = format!("{HEADER}a,9.75,1,x\nf,6.50,6,NA\n");
    let appended = merge(app, &[("mode", "append")], file.clone(), outcome).await?;
    catalog.expect_unaltered(app, "an append").await?;
    let abort = [("mode", "append"), ("on_error", "abort")];
    let failed = send_accepted(app, IMPORTS, &abort, file).await?;
    app.expect_failed(failed, "unique_violation").await?;
    catalog.expect_unaltered(app, "a failure").await?;
    Ok([ignoring, appended])
}

#[tokio::test]
async fn a_dataset_is_deleted_although_the_table_has_its_rows() -> Result<()> {
    let mut app = start(0).await?;
    declare_imports(&app).await?;
    let id = send_accepted(&app, IMPORTS, &[], FILE).await?;
    let refused = problem(delete(&app, IMPORTS).await?, 409, "dataset_in_use").await?;
    ensure!(detail(&refused)?.contains(IMPORTS), "{refused}");
    app.add_worker().await?;
    expect_merged(&app, id, TWO_UPDATED).await?;
    let merged = products(&app).await?;
    ensure!(delete(&app, IMPORTS).await?.status() == 204);
    problem(delete(&app, IMPORTS).await?, 404, "dataset_not_found").await?;
    let rows = products(&app).await?;
    ensure!(rows == merged, "DELETE has changed rows: {rows}");
    app.close().await
}

#[tokio::test]
async fn a_changed_definition_is_compared_with_the_table_again() -> Result<()> {
    let app = start(0).await?;
    let catalog = Catalog::read(&app, "shop").await?;
    declare_imports(&app).await?;
    let again = put(&app, IMPORTS, &imports(), 200).await?;
    ensure!(again["columns"].as_array().map(Vec::len) == Some(4));

    // A new column of the definition must be in the table already.
    let added = [
        ("colour", Some("column_not_found")),
        ("total", Some("column_generated")),
        ("supplier", None),
    ];
    for (name, fault) in added {
        let answer = putting(&app, IMPORTS, &with_column(name))?.send().await?;
        let columns = match fault {
            Some(code) => {
                let refused = problem(answer, 422, code).await?;
                ensure!(detail(&refused)?.contains(name), "{refused}");
                4
            }
            None => {
                ensure!(answer.status() == 200, "{}", answer.text().await?);
                5
            }
        };
        let (_, shown) = app.get("/datasets/imports").await?;
        let found = shown["columns"].as_array().map(Vec::len);
        ensure!(found == Some(columns), "{name}: {shown}");
        catalog.expect_unaltered(&app, name).await?;
    }

    let mut other = with_column("supplier");
    for table in [json!("shop.history"), Value::Null] {
        other["table"] = table;
        let answer = putting(&app, IMPORTS, &other)?.send().await?;
        problem(answer, 409, "dataset_conflict").await?;
    }
    execute(&app, "DROP TABLE shop.products").await?;
    ensure!(delete(&app, IMPORTS).await?.status() == 204);
    app.close().await
}

/// The definition of `imports` with one more column at the end.
fn with_column(name: &str) -> Value {
    let mut definition = imports();
    if let Some(columns) = definition["columns"].as_array_mut() {
        let column = json!({ "name": name, "type": "text" });
        columns.push(column);
    }
    definition
}

#[tokio::test]
async fn a_download_of_the_rows_in_a_table_of_the_user_is_refused() -> Result<()> {
    let app = start(1).await?;
    declare_imports(&app).await?;
    let id = merge(&app, &[], FILE, TWO_UPDATED).await?;
    for format in ["csv", "ndjson"] {
        let url = format!("{}/uploads/{id}/rows?format={format}", app.url);
        let answer = app.client.get(url).send().await?;
        let refused = problem(answer, 409, "rows_in_user_table").await?;
        ensure!(detail(&refused)?.contains("shop.products"), "{refused}");
    }
    let unknown = format!("{}/uploads/{}/rows", app.url, Uuid::now_v7());
    let answer = app.client.get(unknown).send().await?;
    problem(answer, 404, "upload_not_found").await?;
    app.close().await
}
