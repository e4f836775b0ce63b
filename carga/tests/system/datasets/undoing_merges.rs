//! The undo of a merge restores the rows that nobody has changed since.

use anyhow::{Context, Result, ensure};
use carga_testkit::eventually;
use reqwest::Response;
use serde_json::json;
use uuid::Uuid;

use super::merging::{
    BASE, Outcome, PRODUCTS, declare_products, expect_merged, merge, products, send_accepted,
};
use super::{delete, detail, put, undo};
use crate::answers::problem;
use crate::app::{App, TIMEOUT};
use crate::harness::Mode;

in_both_modes! {
    an_undo_restores_values_of_every_type_byte_for_byte,
    rows_that_were_changed_or_deleted_since_are_kept,
    uploads_that_replaced_the_same_row_are_undone_in_any_order,
    a_row_that_another_table_refers_to_stays,
    previous_values_are_kept_for_some_days_and_then_the_upload_is_not_reversible,
}

/// Undoes a merged upload. Fails unless these numbers of rows are reversed, kept and errored.
pub(super) async fn undo_merge(app: &App, id: Uuid, rows: [u64; 3]) -> Result<()> {
    undo(app, id).await?;
    let upload = app.upload(id).await?.context("no upload")?;
    let [reversed, kept, errored] = rows;
    let undone = json!({ "reversed": reversed, "kept": kept, "errored": errored });
    ensure!(
        upload["status"] == "undone" && upload["undone"] == undone,
        "expected {undone}, found {upload}"
    );
    let rows = &upload["rows"];
    ensure!(rows["inserted"] == 0 && rows["updated"] == 0, "{upload}");
    Ok(())
}

const fn inserted(rows: u64) -> Outcome {
    Outcome {
        inserted: rows,
        updated: 0,
        duplicate: 0,
        rejected: 0,
    }
}

const HEADER: &str = "id,day,price,weight,active,seen_at,token,details,note\n";

/// The rows of the first file. The last cell of the second row is an empty text, and that of the
/// third row is NULL.
const FIRST: &str = r#"1,2024-02-29,12345678901234567890.1234567890,0.1,true,2024-12-24T18:30:00.123456+02:00,6f9619ff-8b86-d011-b42d-00cf4fc964ff,"{""a"": [1, null]}","two
lines, ""ç"""
2,2024-02-29,-0.10,1e300,false,1969-12-31T23:59:59Z,,[],
3,2024-03-01,,5e-324,,,,,NA
4,2024-03-01,1.0,0.30000000000000004,true,,,,same
"#;

/// Replaces the first three rows, repeats the fourth, and adds one.
const SECOND: &str = "\
1,2024-02-29,1,-0.5,false,,,7,NA
2,2024-02-29,,,,,,,NA
3,2024-03-01,2.50,1,true,2024-01-01T00:00:00Z,6f9619ff-8b86-d011-b42d-00cf4fc964ff,null,
4,2024-03-01,1.0,0.30000000000000004,true,,,,same
4,2024-03-02,1.0,0.30000000000000004,true,,,,new
";

async fn an_undo_restores_values_of_every_type_byte_for_byte(mode: Mode) -> Result<()> {
    const TYPED: &str = "typed";
    let app = App::start(mode.harness().await?, 1).await?;
    let definition = json!({
        "columns": [
            { "name": "id", "type": "integer" },
            { "name": "day", "type": "date" },
            { "name": "price", "type": "numeric" },
            { "name": "weight", "type": "float" },
            { "name": "active", "type": "boolean" },
            { "name": "seen_at", "type": "timestamp" },
            { "name": "token", "type": "uuid" },
            { "name": "details", "type": "json" },
            { "name": "note", "type": "text", "null": ["NA"] },
        ],
        "key": ["id", "day"],
    });
    put(&app, TYPED, &definition, 201).await?;
    let base = send_accepted(&app, TYPED, &[], format!("{HEADER}{FIRST}")).await?;
    expect_merged(&app, TYPED, base, inserted(4)).await?;
    let before = app.harness.table(TYPED).await?;
    let outcome = Outcome {
        inserted: 1,
        updated: 3,
        duplicate: 1,
        rejected: 0,
    };
    // An undone file can be sent again.
    for _ in 0..2 {
        let id = send_accepted(&app, TYPED, &[], format!("{HEADER}{SECOND}")).await?;
        expect_merged(&app, TYPED, id, outcome).await?;
        ensure!(app.harness.table(TYPED).await? != before);
        undo_merge(&app, id, [4, 0, 0]).await?;
        let after = app.harness.table(TYPED).await?;
        ensure!(after == before, "{after:?} instead of {before:?}");
    }
    problem(delete(&app, TYPED).await?, 409, "dataset_in_use").await?;
    undo_merge(&app, base, [4, 0, 0]).await?;
    ensure!(app.harness.table(TYPED).await?.is_empty());
    ensure!(delete(&app, TYPED).await?.status() == 204);
    app.close().await
}

/// Replaces two of the first rows, and adds two.
const LATER: &str = "sku,price,note\na,2.00,x\nb,3.00,y\nd,4.00,z\ne,5.00,q\n";

const TWO_UPDATED: Outcome = Outcome {
    inserted: 2,
    updated: 2,
    duplicate: 0,
    rejected: 0,
};

async fn rows_that_were_changed_or_deleted_since_are_kept(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    declare_products(&app).await?;
    merge(&app, &[], BASE, inserted(3)).await?;
    let later = merge(&app, &[], LATER, TWO_UPDATED).await?;
    let last = "sku,price,note\na,6.00,x\nd,7.00,z\n";
    let outcome = Outcome {
        updated: 2,
        ..Outcome::default()
    };
    merge(&app, &[], last, outcome).await?;
    app.harness
        .execute(
            "DELETE FROM datasets.products WHERE sku = 'e'",
            "DELETE FROM datasets_products WHERE sku = 'e'",
        )
        .await?;
    undo_merge(&app, later, [1, 3, 0]).await?;
    let rows = products(&app).await?;
    let expected = json!([
        ["a", "6.00", "x"],
        ["b", "2.50", null],
        ["c", "3.50", "z"],
        ["d", "7.00", "z"],
    ]);
    ensure!(rows == expected, "{rows}");
    app.close().await
}

async fn uploads_that_replaced_the_same_row_are_undone_in_any_order(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    declare_products(&app).await?;
    merge(&app, &[], BASE, inserted(3)).await?;
    let before = app.harness.table(PRODUCTS).await?;
    let file = "sku,price,note\na,6.00,x\nd,7.00,z\n";
    let outcome = Outcome {
        updated: 2,
        ..Outcome::default()
    };
    for later_first in [true, false] {
        let earlier = merge(&app, &[], LATER, TWO_UPDATED).await?;
        let between = app.harness.table(PRODUCTS).await?;
        let later = merge(&app, &[], file, outcome).await?;
        if later_first {
            undo_merge(&app, later, [2, 0, 0]).await?;
            ensure!(app.harness.table(PRODUCTS).await? == between);
            undo_merge(&app, earlier, [4, 0, 0]).await?;
        } else {
            undo_merge(&app, earlier, [2, 2, 0]).await?;
            // The values of the undone upload do not come back.
            undo_merge(&app, later, [2, 0, 0]).await?;
        }
        let after = app.harness.table(PRODUCTS).await?;
        ensure!(after == before, "{after:?} instead of {before:?}");
    }
    app.close().await
}

async fn a_row_that_another_table_refers_to_stays(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    declare_products(&app).await?;
    merge(&app, &[], BASE, inserted(3)).await?;
    let later = merge(&app, &[], LATER, TWO_UPDATED).await?;
    app.harness
        .execute(
            "CREATE TABLE orders (sku text REFERENCES datasets.products (sku));
             INSERT INTO orders VALUES ('a'), ('e');",
            "CREATE TABLE orders (sku text REFERENCES datasets_products (sku));
             INSERT INTO orders VALUES ('a'), ('e');",
        )
        .await?;
    undo_merge(&app, later, [3, 0, 1]).await?;
    let (postgres, sqlite) = ("datasets.products", "datasets_products");
    let rows = app.harness.table(PRODUCTS).await?;
    ensure!(rows.len() == 4, "{rows:?}");
    // The row can be deleted as soon as nothing refers to it.
    let delete = |table: &str| format!("DROP TABLE orders; DELETE FROM {table} WHERE sku = 'e'");
    app.harness
        .execute(&delete(postgres), &delete(sqlite))
        .await?;
    let rows = products(&app).await?;
    let expected = json!([["a", "1.50", "x"], ["b", "2.50", null], ["c", "3.50", "z"]]);
    ensure!(rows == expected, "{rows}");
    app.close().await
}

async fn previous_values_are_kept_for_some_days_and_then_the_upload_is_not_reversible(
    mode: Mode,
) -> Result<()> {
    let harness = mode.harness().await?.with("CARGA_UNDO_DAYS", "1");
    let mut app = App::start(harness, 1).await?;
    declare_products(&app).await?;
    let base = merge(&app, &[], BASE, inserted(3)).await?;
    let later = merge(&app, &[], LATER, TWO_UPDATED).await?;
    let before = app.harness.table(PRODUCTS).await?;

    // A worker looks for old uploads when it starts.
    app.storing_process().kill9()?;
    let age = "UPDATE uploads SET finished_at = '2024-01-01T00:00:00.000000Z'";
    app.harness.execute(age, age).await?;
    app.restart_storing_process().await?;
    eventually(TIMEOUT, "the previous values to be forgotten", async || {
        let upload = app.upload(later).await.ok().flatten();
        upload.is_some_and(|upload| upload["reversible"] == false)
    })
    .await?;
    let refused = problem(post_undo(&app, later).await?, 409, "not_reversible").await?;
    ensure!(detail(&refused)?.contains("CARGA_UNDO_DAYS"), "{refused}");
    ensure!(refused["upload_status"] == "completed", "{refused}");
    let upload = app.upload(later).await?.context("no upload")?;
    ensure!(
        upload["status"] == "completed" && upload["undone"].is_null(),
        "{upload}"
    );
    ensure!(app.harness.table(PRODUCTS).await? == before);

    // This upload has replaced no row, so nothing is missing for its undo.
    let upload = app.upload(base).await?.context("no upload")?;
    ensure!(upload["reversible"] == true, "{upload}");
    undo_merge(&app, base, [1, 2, 0]).await?;
    app.close().await
}

async fn post_undo(app: &App, id: Uuid) -> Result<Response> {
    let undo = app.client.post(format!("{}/uploads/{id}/undo", app.url));
    Ok(undo.send().await?)
}
