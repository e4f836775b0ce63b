//! A table that was altered after its dataset was declared is compared again before a file is read.

use anyhow::{Context, Result, ensure};
use reqwest::Body;
use tokio::time::timeout;
use uuid::Uuid;

use super::catalog::Catalog;
use super::{HEADER, IMPORTS, SHOP, declare_imports, execute, merge, rows_of, start};
use crate::answers::problem;
use crate::app::{App, TIMEOUT};
use crate::datasets::merging::{Outcome, send_accepted};
use crate::datasets::{detail, options, send, sending};
use crate::files::paced;

/// An alteration, the code of the refusal, and texts of its message.
type Altered = (&'static str, &'static str, &'static [&'static str]);

const ALTERED: [Altered; 9] = [
    (
        "DROP TABLE shop.products",
        "table_not_found",
        &["shop.products"],
    ),
    (
        "ALTER TABLE shop.products RENAME TO hidden;
         CREATE VIEW shop.products AS SELECT * FROM shop.hidden",
        "table_kind",
        &["shop.products"],
    ),
    (
        "ALTER TABLE shop.products DROP COLUMN note;
         ALTER TABLE shop.products RENAME stock TO quantity",
        "column_not_found",
        &["`note`", "`stock`"],
    ),
    (
        "ALTER TABLE shop.products DROP COLUMN total;
         ALTER TABLE shop.products DROP CONSTRAINT stock_in_range;
         ALTER TABLE shop.products ALTER COLUMN stock TYPE text",
        "column_type",
        &["`stock` is text"],
    ),
    (
        "ALTER TABLE shop.products DROP COLUMN note,
             ADD COLUMN note text GENERATED ALWAYS AS ('none') STORED",
        "column_generated",
        &["`note`"],
    ),
    (
        "ALTER TABLE shop.products ADD COLUMN owner text, ADD COLUMN colour integer;
         UPDATE shop.products SET owner = 'x', colour = 1;
         ALTER TABLE shop.products ALTER COLUMN owner SET NOT NULL, ALTER COLUMN colour SET NOT NULL",
        "column_missing",
        &["`owner`", "`colour`"],
    ),
    (
        "ALTER TABLE shop.products ALTER COLUMN supplier DROP DEFAULT",
        "column_missing",
        &["`supplier`"],
    ),
    (
        "ALTER TABLE shop.products DROP CONSTRAINT sku_once",
        "key_not_unique",
        &["`sku`"],
    ),
    (
        "ALTER TABLE shop.products DROP CONSTRAINT sku_once;
         CREATE UNIQUE INDEX sku_once ON shop.products (sku) WHERE price > 0",
        "key_not_unique",
        &["`sku`"],
    ),
];

#[tokio::test]
async fn a_file_for_a_table_that_was_altered_is_refused_before_its_rows_are_read() -> Result<()> {
    let app = start(1).await?;
    declare_imports(&app).await?;
    for (alteration, code, parts) in ALTERED {
        execute(&app, &format!("DROP SCHEMA shop CASCADE; {SHOP}")).await?;
        execute(&app, alteration).await?;
        let catalog = Catalog::read(&app, "shop").await?;
        // The whole file would take hours.
        let file = format!("{HEADER}{}", "a,1.50,1,x\n".repeat(1 << 20));
        expect_refused(&app, paced(file, 1000), code, parts)
            .await
            .context(alteration)?;
        catalog.expect_unaltered(&app, alteration).await?;
    }
    // The dataset is as it was, and takes rows again.
    execute(&app, &format!("DROP SCHEMA shop CASCADE; {SHOP}")).await?;
    let outcome = Outcome {
        inserted: 1,
        duplicate: 1,
        ..Outcome::default()
    };
    let file = format!("{HEADER}a,1.50,1,x\nd,4.50,4,NA\n");
    merge(&app, &[], file, outcome).await?;
    app.close().await
}

/// Fails unless the file is refused and leaves no upload.
async fn expect_refused(app: &App, file: Body, code: &str, parts: &[&str]) -> Result<()> {
    let id = Uuid::now_v7();
    let request = sending(app, id, &options(IMPORTS, &[]), file)?;
    let answer = timeout(TIMEOUT, request.send()).await;
    let answer = answer.context("the file was read")??;
    let refused = problem(answer, 422, code).await?;
    for part in parts {
        ensure!(detail(&refused)?.contains(part), "no {part:?}: {refused}");
    }
    ensure!(app.upload(id).await?.is_none(), "{code} left an upload");
    let stored = app.harness.count_rows(id).await?;
    ensure!(stored == (0, 0), "{stored:?} rows are stored");
    Ok(())
}

#[tokio::test]
async fn a_file_without_a_column_that_the_table_needs_is_refused() -> Result<()> {
    let app = start(1).await?;
    execute(
        &app,
        "UPDATE shop.products SET note = '' WHERE note IS NULL;
         ALTER TABLE shop.products ALTER COLUMN note SET NOT NULL,
             ALTER COLUMN stock DROP DEFAULT",
    )
    .await?;
    let before = rows_of(&app, "shop.products").await?;
    // The columns are not required by the definition, but by the table.
    declare_imports(&app).await?;
    let file = "sku,price\na,1.75\n";
    for mode in ["update", "ignore", "append"] {
        let id = Uuid::now_v7();
        let options = options(IMPORTS, &[("mode", mode)]);
        let answer = send(&app, id, &options, file).await?;
        let refused = problem(answer, 422, "column_missing").await?;
        for part in ["shop.products", "`stock`", "`note`"] {
            ensure!(detail(&refused)?.contains(part), "no {part:?}: {refused}");
        }
        ensure!(app.upload(id).await?.is_none(), "{mode} left an upload");
    }
    ensure!(rows_of(&app, "shop.products").await? == before);
    app.close().await
}

#[tokio::test]
async fn a_table_that_was_altered_before_the_merge_fails_the_upload() -> Result<()> {
    let mut app = start(0).await?;
    declare_imports(&app).await?;
    let file = format!("{HEADER}a,1.75,1,x\nd,4.50,4,NA\n");
    let id = send_accepted(&app, IMPORTS, &[], file).await?;
    execute(&app, "ALTER TABLE shop.products RENAME price TO cost").await?;
    let before = rows_of(&app, "shop.products").await?;
    let catalog = Catalog::read(&app, "shop").await?;
    app.add_worker().await?;
    let upload = app.expect_failed(id, "merge_failed").await?;
    let message = upload["error"]["message"].as_str().context("no message")?;
    ensure!(message.contains("`price`"), "{message}");
    ensure!(rows_of(&app, "shop.products").await? == before);
    catalog.expect_unaltered(&app, "the failure").await?;
    app.close().await
}
