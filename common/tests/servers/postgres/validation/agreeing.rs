//! A trial has the outcome of the upload that follows.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use carga_common::dataset::Mode;
use carga_common::error::ErrorKind;
use carga_common::store::{
    DatasetStore, DeleteOutcome, Difference, TRIAL_REJECTS, Tried, ValidationStore,
};
use carga_common::upload::Upload;
use serde_json::{Map, Value};

use super::{Cells, Prices, good, row};
use crate::postgres::random;

const ROWS: usize = 300;

/// Rows with few keys. About one row in `bad_in` has each fault: a value that violates a
/// constraint, or that the table of the user does not hold.
fn mixed_rows(seed: &mut u64, bad_in: u64) -> Vec<Cells> {
    let row = |_| {
        let sku = match random(seed, 3 * bad_in) {
            0 => "a longer key".to_owned(),
            _ => format!("a{}", random(seed, 250)),
        };
        let price = match random(seed, bad_in) {
            0 => "-1",
            1 => "1.555",
            2 => "NULL",
            3 => "2.5",
            _ => "1.5",
        };
        let shop = match random(seed, bad_in) {
            0 => "9",
            1 => "NULL",
            _ => "1",
        };
        let note = match random(seed, 3) {
            0 => "NULL",
            1 => "",
            _ => "new",
        };
        row([&sku, price, shop, note])
    };
    (0..ROWS).map(row).collect()
}

/// The rows of a table by their keys.
async fn stored(prices: &Prices, table: &str) -> Result<BTreeMap<String, Map<String, Value>>> {
    let texts = format!("SELECT to_jsonb(p)::text FROM {table} AS p");
    let mut rows = BTreeMap::new();
    for text in prices.texts(&texts).await? {
        let row: Map<String, Value> = serde_json::from_str(&text)?;
        let sku = row.get("sku").and_then(Value::as_str);
        rows.insert(sku.context("a row has no key")?.to_owned(), row);
    }
    Ok(rows)
}

/// How many rows have another value in each column of the file.
fn changed(
    before: &BTreeMap<String, Map<String, Value>>,
    after: &BTreeMap<String, Map<String, Value>>,
) -> BTreeMap<String, u64> {
    let mut changed = BTreeMap::new();
    for (sku, row) in before {
        for name in ["price", "shop", "note"] {
            let now = after.get(sku).and_then(|row| row.get(name));
            if now != row.get(name) {
                *changed.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
    changed
}

fn check_counts(difference: &Difference, upload: &Upload) -> Result<()> {
    let expected = [
        upload.rows_inserted,
        upload.rows_updated,
        upload.rows_duplicate,
        upload.rows_violating,
    ];
    let found = [
        difference.inserted,
        difference.updated,
        difference.duplicate,
        difference.rejected,
    ];
    // An upload whose rows are not staged counts neither updates nor duplicates.
    let expected = expected.map(Option::unwrap_or_default);
    ensure!(found == expected, "{found:?} instead of {expected:?}");
    Ok(())
}

/// Deletes some rows, so that an append into the table has rows to insert.
async fn delete_short_keys(prices: &Prices, table: &str) -> Result<()> {
    let delete = format!("DELETE FROM {table} WHERE length(sku) < 4");
    prices.execute(&delete).await
}

/// Tries rows, merges them, and compares.
async fn compare(prices: &Prices, table: &str, mode: Mode, rows: &[Cells]) -> Result<Difference> {
    delete_short_keys(prices, table).await?;
    let before = stored(prices, table).await?;
    let difference = prices.try_rows(mode, rows).await?;
    ensure!(stored(prices, table).await? == before, "the table changes");
    let upload = prices.upload(Some(mode), rows).await?;
    check_counts(&difference, &upload)?;
    let mut rejected = prices.rejected(upload.id).await?;
    rejected.truncate(TRIAL_REJECTS);
    ensure!(
        difference.rejects == rejected,
        "{:?} instead of {rejected:?}",
        difference.rejects
    );
    let expected = changed(&before, &stored(prices, table).await?);
    let found = &difference.changed_columns;
    ensure!(*found == expected, "{found:?} instead of {expected:?}");
    Ok(difference)
}

async fn compare_all(prices: &Prices, table: &str) -> Result<()> {
    let mut seed = 11;
    let mut total = Difference::default();
    for bad_in in [1000, 40, 6] {
        for mode in [Mode::Append, Mode::Update, Mode::Ignore, Mode::Update] {
            let rows = mixed_rows(&mut seed, bad_in);
            let compared = compare(prices, table, mode, &rows).await;
            let difference = compared.with_context(|| format!("{mode:?}, {bad_in}"))?;
            total.inserted += difference.inserted;
            total.updated += difference.updated;
            total.duplicate += difference.duplicate;
            total.rejected += difference.rejected;
        }
    }
    let totals = [
        total.inserted,
        total.updated,
        total.duplicate,
        total.rejected,
    ];
    ensure!(totals.iter().all(|count| *count > 0), "{totals:?}");
    Ok(())
}

#[tokio::test]
async fn a_trial_on_a_table_of_the_user_has_the_outcome_of_the_upload_that_follows() -> Result<()> {
    let prices = Prices::of_user("").await?;
    compare_all(&prices, "shop.prices").await?;
    prices.close().await
}

#[tokio::test]
async fn a_trial_on_a_table_of_carga_has_the_outcome_of_the_upload_that_follows() -> Result<()> {
    let prices = Prices::own().await?;
    compare_all(&prices, "datasets.prices").await?;
    prices.close().await
}

/// The codes are not compared: a row that violates several constraints may have another code.
#[tokio::test]
async fn a_trial_has_the_outcome_of_an_upload_that_appends_its_rows_at_once() -> Result<()> {
    let prices = Prices::own().await?;
    let mut seed = 5;
    for bad_in in [1000, 40, 6] {
        delete_short_keys(&prices, "datasets.prices").await?;
        let rows = mixed_rows(&mut seed, bad_in);
        let difference = prices.try_rows(Mode::Append, &rows).await?;
        let upload = prices.upload(None, &rows).await?;
        check_counts(&difference, &upload)?;
        let rejected = prices.rejected(upload.id).await?;
        let expected = rejected.iter().map(|row| row.row).take(TRIAL_REJECTS);
        let found = difference.rejects.iter().map(|row| row.row);
        ensure!(found.eq(expected), "{:?}", difference.rejects);
        ensure!(difference.changed_columns.is_empty(), "{difference:?}");
    }
    prices.close().await
}

/// Only the row that is updated changes a column.
#[tokio::test]
async fn a_column_of_a_row_that_is_rejected_does_not_count_as_changed() -> Result<()> {
    const STORED: &str = "INSERT INTO shop.prices VALUES ('a', 1, 1, 'old'), ('b', 1, 1, 'old')";
    let prices = Prices::of_user(STORED).await?;
    let rows = [row(["a", "1", "2", "old"]), row(["b", "-1", "2", "new"])];
    let difference = prices.try_rows(Mode::Update, &rows).await?;
    let changed = BTreeMap::from([("shop".to_owned(), 1)]);
    ensure!(difference.changed_columns == changed, "{difference:?}");
    ensure!((difference.updated, difference.rejected) == (1, 1));
    prices.close().await
}

#[tokio::test]
async fn a_trial_without_rows_changes_nothing() -> Result<()> {
    let prices = Prices::of_user("").await?;
    let difference = prices.try_rows(Mode::Update, &[]).await?;
    ensure!(difference == Difference::default(), "{difference:?}");
    prices.close().await
}

/// The rows that were rejected while the file was read count, too.
#[tokio::test]
async fn a_trial_with_more_rejected_rows_than_allowed_has_too_many() -> Result<()> {
    let prices = Prices::of_user("").await?;
    let mut rows: Vec<Cells> = (0..10).map(good).collect();
    rows[3][1] = Some("-1".to_owned());
    let mut trial = prices.trial(Mode::Update, 12)?;
    trial.rows_rejected = 2;
    trial.dataset.reject_limit.rows = Some(3);
    let tried = prices.run(&trial, &rows).await?;
    ensure!(matches!(tried, Tried::Difference(_)), "{tried:?}");
    trial.dataset.reject_limit.rows = Some(2);
    let tried = prices.run(&trial, &rows).await?;
    let Tried::TooManyRejects { rejected, first } = tried else {
        bail!("{tried:?}");
    };
    let first = first.context("no row is rejected")?;
    ensure!((rejected, first.row, first.code.as_str()) == (3, 4, "check_violation"));
    prices.close().await
}

#[tokio::test]
async fn a_trial_of_a_dataset_that_was_deleted_is_not_found() -> Result<()> {
    let prices = Prices::of_user("").await?;
    let key = prices.dataset(None)?.key();
    let deleted = prices.store.delete_dataset(&key).await?;
    ensure!(deleted == DeleteOutcome::Deleted, "{deleted:?}");
    let trial = prices.trial(Mode::Update, 1)?;
    let tried = prices.store.validate(&trial, prices.batches(&[good(1)])?);
    let error = tried.await.err().context("the rows are tried")?;
    ensure!(error.kind() == ErrorKind::NotFound, "{error:?}");
    prices.close().await
}
