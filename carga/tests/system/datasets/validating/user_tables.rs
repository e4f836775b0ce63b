//! A validation for a table of the user changes nothing in it.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::refusing::{refused_upload, refused_validation};
use super::state::State;
use super::{FIRST_REJECTS, IDENTITY, figures, validate, validate_then_send};
use crate::datasets::options;
use crate::datasets::user_tables::catalog::Catalog;
use crate::datasets::user_tables::rejecting::{File, declare_readings};
use crate::datasets::user_tables::{
    HEADER, IMPORTS, declare_imports, execute, products, rows_of, start,
};

/// In order: an equal row, an empty text instead of NULL, a new row, two rows with one key, of
/// which the last wins, a row that is rejected before the merge, and two rows that violate
/// constraints of the table.
const FILE: &str = "\
sku,price,stock,note
a,1.50,1,x
b,2.50,2,
d,9.00,4,y
c,7.00,7,z
c,8.00,8,z
e,cheap,1,z
f,1.00,10000,z
g,-1.00,9,z
";

#[tokio::test]
async fn a_validation_changes_no_row_and_no_object_of_the_user() -> Result<()> {
    let app = start(0).await?;
    declare_imports(&app).await?;
    let catalog = Catalog::read(&app, "shop").await?;
    let before = rows_of(&app, "shop.products").await?;
    // The trigger writes to another table.
    let history = rows_of(&app, "shop.history").await?;
    let state = State::read_without(&app, IDENTITY).await?;
    for (mode, rows, changed) in [
        (
            "update",
            [8, 1, 2, 2, 3],
            json!({ "note": 1, "price": 1, "stock": 1 }),
        ),
        ("ignore", [8, 1, 0, 4, 3], json!({})),
        ("append", [8, 1, 0, 0, 7], json!({})),
    ] {
        let validation = validate(&app, IMPORTS, &[("mode", mode)], FILE).await?;
        ensure!(
            validation["rows"] == figures(rows)
                && validation["changed_columns"] == changed
                && validation["warnings"] == json!([]),
            "{mode}: {validation}"
        );
        state.expect_unchanged(&app).await?;
        catalog.expect_unaltered(&app, mode).await?;
        ensure!(rows_of(&app, "shop.products").await? == before, "{mode}");
        ensure!(rows_of(&app, "shop.history").await? == history, "{mode}");
    }
    app.close().await
}

#[tokio::test]
async fn an_upload_into_a_table_of_the_user_ends_as_its_validation_says() -> Result<()> {
    let app = start(1).await?;
    declare_imports(&app).await?;
    let expected = [("ignore", [8, 1, 0, 4, 3]), ("update", [8, 0, 2, 3, 3])];
    for (mode, rows) in expected {
        let further = [("mode", mode)];
        let sent = validate_then_send(&app, IMPORTS, &further, FILE, IDENTITY).await;
        let (validation, _) = sent.context(mode)?;
        ensure!(validation["rows"] == figures(rows), "{mode}: {validation}");
    }
    // Columns that the file lacks keep their values, or get their defaults.
    let file = "price,sku\n1.50,a\n8.50,c\n9.00,g\nNA,own\n";
    let (validation, _) = validate_then_send(&app, IMPORTS, &[], file, IDENTITY).await?;
    ensure!(
        validation["rows"] == figures([4, 1, 2, 1, 0])
            && validation["changed_columns"] == json!({ "price": 2 }),
        "{validation}"
    );
    let append = [("mode", "append")];
    let file = format!("{HEADER}h,1.00,1,NA\na,1.00,1,NA\nh,2.00,1,NA\n");
    let (validation, _) = validate_then_send(&app, IMPORTS, &append, file, IDENTITY).await?;
    ensure!(
        validation["rows"] == figures([3, 1, 0, 0, 2]),
        "{validation}"
    );
    app.close().await
}

/// The application changes rows, and the next validation compares with them.
#[tokio::test]
async fn a_validation_sees_what_the_application_has_changed_since_the_last_one() -> Result<()> {
    let app = start(0).await?;
    declare_imports(&app).await?;
    let file = format!("{HEADER}a,1.50,1,x\nb,2.50,2,NA\nz,1.00,1,NA\n");
    let validation = validate(&app, IMPORTS, &[], file.clone()).await?;
    ensure!(
        validation["rows"] == figures([3, 1, 0, 2, 0]),
        "{validation}"
    );
    execute(
        &app,
        "UPDATE shop.products SET stock = 77 WHERE sku = 'a';
         DELETE FROM shop.products WHERE sku = 'b';
         INSERT INTO shop.products (sku, price, stock) VALUES ('z', 1.00, 1);",
    )
    .await?;
    let before = products(&app).await?;
    let validation = validate(&app, IMPORTS, &[], file).await?;
    ensure!(
        validation["rows"] == figures([3, 1, 1, 1, 0])
            && validation["changed_columns"] == json!({ "stock": 1 }),
        "{validation}"
    );
    ensure!(products(&app).await? == before);
    app.close().await
}

#[tokio::test]
async fn rows_that_the_table_does_not_hold_are_rejected_as_the_upload_rejects_them() -> Result<()> {
    let app = start(1).await?;
    declare_readings(&app).await?;
    let catalog = Catalog::read(&app, "shop").await?;
    let File { text, rejects, .. } = File::mixed();
    let (validation, _) = validate_then_send(&app, IMPORTS, &[], text, IDENTITY).await?;
    let rejected = validation["rejected"].as_array().context("no rejects")?;
    ensure!(
        rejected.len() == rejects.len() && rejects.len() < FIRST_REJECTS,
        "{rejected:?}"
    );
    for (found, expected) in rejected.iter().zip(&rejects) {
        expected.check(found)?;
    }
    catalog.expect_unaltered(&app, "the upload").await?;
    app.close().await
}

#[tokio::test]
async fn a_file_for_an_altered_table_is_refused_as_by_an_upload() -> Result<()> {
    let app = start(0).await?;
    declare_imports(&app).await?;
    let options = options(IMPORTS, &[]);
    for (alteration, repair, code) in [
        (
            "ALTER COLUMN supplier DROP DEFAULT",
            "ALTER COLUMN supplier SET DEFAULT 's1'",
            "column_missing",
        ),
        (
            "DROP CONSTRAINT sku_once",
            "ADD CONSTRAINT sku_once UNIQUE (sku)",
            "key_not_unique",
        ),
        (
            "DROP COLUMN note",
            "ADD COLUMN note text",
            "column_not_found",
        ),
        ("RENAME TO renamed", "", "table_not_found"),
    ] {
        execute(&app, &format!("ALTER TABLE shop.products {alteration}")).await?;
        let found = refused_validation(&app, &options, FILE, (422, code)).await?;
        let expected = refused_upload(&app, &options, FILE, (422, code)).await?;
        ensure!(found == expected, "{found} instead of {expected}");
        if !repair.is_empty() {
            execute(&app, &format!("ALTER TABLE shop.products {repair}")).await?;
            validate(&app, IMPORTS, &[], FILE).await?;
        }
    }
    app.close().await
}
