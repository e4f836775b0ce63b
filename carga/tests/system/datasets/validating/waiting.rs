//! A client that sends a file slowly keeps no other writer waiting.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reqwest::Body;

use super::{figures, read, validating};
use crate::app::{App, Sending};
use crate::datasets::merging::{BASE, Outcome, PRODUCTS, declare_products, merge};
use crate::datasets::options;
use crate::datasets::user_tables::catalog::Catalog;
use crate::datasets::user_tables::{self, HEADER, IMPORTS, declare_imports, execute, rows_of};
use crate::files::paced;
use crate::harness::Mode;

in_both_modes! {
    uploads_are_merged_while_a_slow_client_sends_a_file_to_validate,
}

/// The rows of the slow file.
const ROWS: usize = 20_000;

/// How many seconds the slow file takes, and how long others work meanwhile.
const SENDING_SECS: usize = 25;
const WORKING: Duration = Duration::from_secs(10);

/// The longest wait of another writer, on a busy machine.
const LONGEST: Duration = Duration::from_secs(8);

/// A body of new rows that takes [`SENDING_SECS`].
fn slow(header: &str, row: impl Fn(usize) -> String) -> Body {
    let rows: String = (0..ROWS).map(row).collect();
    let file = header.to_owned() + &rows;
    let rate = file.len() / SENDING_SECS;
    paced(file, rate)
}

/// Sends the slow file in the background.
fn start_validating(app: &App, dataset: &str, file: Body) -> Result<Sending> {
    let request = validating(app, &options(dataset, &[]), file)?;
    Ok(tokio::spawn(request.send()))
}

/// Fails unless the slow file was sent to its end only now, and all of its rows are new.
async fn expect_all_new(sent: Sending) -> Result<()> {
    ensure!(
        !sent.is_finished(),
        "the file was sent too fast, so the test proved nothing"
    );
    let validation = read(sent.await??).await?;
    ensure!(
        validation["rows"] == figures([ROWS, ROWS, 0, 0, 0]),
        "{validation}"
    );
    Ok(())
}

async fn uploads_are_merged_while_a_slow_client_sends_a_file_to_validate(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    declare_products(&app).await?;
    let inserted = |rows| Outcome {
        inserted: rows,
        ..Outcome::default()
    };
    merge(&app, &[], BASE, inserted(3)).await?;
    let file = slow("sku,price,note\n", |row| format!("slow {row},1.50,x\n"));
    let sent = start_validating(&app, PRODUCTS, file)?;
    let begun = Instant::now();
    let mut merged = 0;
    while begun.elapsed() < WORKING {
        let started = Instant::now();
        let row = format!("sku,price,note\nother {merged},1.50,x\n");
        merge(&app, &[], row, inserted(1)).await?;
        merged += 1;
        let waited = started.elapsed();
        ensure!(waited < LONGEST, "an upload has waited {waited:?}");
    }
    expect_all_new(sent).await?;
    let rows = app.harness.table(PRODUCTS).await?;
    ensure!(rows.len() == 3 + merged, "{} rows", rows.len());
    app.close().await
}

/// The strongest lock, which any other lock on the table would delay.
const LOCK: &str = "
    BEGIN;
    SET LOCAL lock_timeout = '4s';
    LOCK TABLE shop.products IN ACCESS EXCLUSIVE MODE;
    UPDATE shop.products SET stock = stock + 1 WHERE sku = 'own';
    COMMIT";

#[tokio::test]
async fn the_application_locks_its_table_while_a_client_sends_a_file_slowly() -> Result<()> {
    let app = user_tables::start(1).await?;
    declare_imports(&app).await?;
    let catalog = Catalog::read(&app, "shop").await?;
    let file = slow(HEADER, |row| format!("s{row},1.50,1,x\n"));
    let sent = start_validating(&app, IMPORTS, file)?;
    let begun = Instant::now();
    while begun.elapsed() < WORKING {
        let started = Instant::now();
        execute(&app, LOCK).await?;
        let waited = started.elapsed();
        ensure!(waited < LONGEST, "the application has waited {waited:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = rows_of(&app, "shop.products").await?;
    expect_all_new(sent).await?;
    let after = rows_of(&app, "shop.products").await?;
    ensure!(after == before, "{after:?} instead of {before:?}");
    catalog.expect_unaltered(&app, "the validation").await?;
    app.close().await
}
