//! Rows that violate several constraints, or that several workers store.

use std::collections::HashSet;

use anyhow::{Result, bail, ensure};
use carga_common::error::ErrorKind;
use carga_common::store::{BatchStore, PostgresStore, StoreOutcome};
use carga_testkit::Scope;

use super::{Cells, REFUSE_AFTERWARDS, ROWS, begin, declare, good, store, stored};
use crate::postgres::{connect, random};

/// The first row with a value does not keep out the second one if it is not stored itself.
#[tokio::test]
async fn a_duplicate_of_a_rejected_row_is_stored() -> Result<()> {
    let scope = Scope::new().await?;
    let sql = format!("{REFUSE_AFTERWARDS}; CREATE UNIQUE INDEX one_sku ON datasets.prices (sku)");
    let prices = declare(&scope, &sql).await?;
    let mut rows = vec![good(1), good(1), good(1), good(2)];
    rows[0][1] = Some("-1".to_owned());
    for _ in 0..2 {
        let rejected = store(&prices, &rows).await?;
        let found = rejected.iter().map(|row| (row.row, row.code.as_str()));
        let expected = [(1, "trigger_exception"), (3, "unique_violation")];
        ensure!(found.eq(expected), "{rejected:?}");
        ensure!(stored(&scope).await? == [2, 4]);
        sqlx::query("DELETE FROM datasets.prices")
            .execute(&scope.pool())
            .await?;
    }
    scope.close().await
}

const MIXED: &str = "CREATE TABLE days (day date PRIMARY KEY);
    INSERT INTO days VALUES ('1001-01-01'), ('1002-01-01'), ('1003-01-01');
    ALTER TABLE datasets.prices
        ALTER COLUMN day SET NOT NULL,
        ADD CONSTRAINT positive CHECK (price > 0),
        ADD CONSTRAINT one_sku UNIQUE (sku),
        ADD CONSTRAINT known_day FOREIGN KEY (day) REFERENCES days";

/// Rows that may violate several constraints, also of which the first with a value is not stored.
fn mixed_rows(seed: &mut u64, bad_in: u64) -> Vec<Cells> {
    let row = |_| {
        let sku = (random(seed, 20) > 0).then(|| format!("a{}", random(seed, 400)));
        let price = if random(seed, bad_in) == 0 {
            "-1"
        } else {
            "1.5"
        };
        let day = match random(seed, bad_in) {
            0 => None,
            1 => Some("2024-01-01"),
            2 => Some("1001-01-01"),
            _ => Some("1003-01-01"),
        };
        [sku, Some(price.to_owned()), day.map(str::to_owned)]
    };
    (0..ROWS).map(row).collect()
}

/// The numbers of the rows that are stored if they are inserted one after another.
fn expected(rows: &[Cells]) -> Vec<i64> {
    let mut skus = HashSet::new();
    let is_stored = |[sku, price, day]: &Cells| {
        let is_good =
            price.as_deref() != Some("-1") && !matches!(day.as_deref(), None | Some("2024-01-01"));
        is_good && sku.as_ref().is_none_or(|sku| skus.insert(sku.clone()))
    };
    let numbered = (1..).zip(rows.iter().map(is_stored));
    numbered
        .filter(|(_, is_stored)| *is_stored)
        .map(|(number, _)| number)
        .collect()
}

#[tokio::test]
async fn the_same_rows_are_stored_as_if_they_were_inserted_one_by_one() -> Result<()> {
    let scope = Scope::new().await?;
    let prices = declare(&scope, MIXED).await?;
    let mut seed = 7;
    for bad_in in [4, 4, 1000, 60, 5] {
        let rows = mixed_rows(&mut seed, bad_in);
        let rejected = store(&prices, &rows).await?;
        let found = stored(&scope).await?;
        ensure!(found == expected(&rows), "{found:?}: {rejected:?}");
        ensure!(found.len() + rejected.len() == ROWS);
        sqlx::query("DELETE FROM datasets.prices")
            .execute(&scope.pool())
            .await?;
    }
    scope.close().await
}

/// The transactions may deadlock. Postgres then ends one of them, and it is run again.
#[tokio::test]
async fn two_workers_store_each_unique_value_once() -> Result<()> {
    const SQL: &str = "CREATE UNIQUE INDEX one_sku ON datasets.prices (sku)";
    let scope = Scope::new().await?;
    let first = declare(&scope, SQL).await?;
    let second = connect(scope.database_url()).await?;
    let rows: Vec<Cells> = (1..=ROWS).map(good).collect();
    let reversed: Vec<Cells> = rows.iter().rev().cloned().collect();
    let (left, right) = tokio::join!(store_again(&first, &rows), store_again(&second, &reversed));
    let rejected = left? + right?;
    ensure!(rejected == ROWS as u32, "{rejected} rows are rejected");
    let distinct: i64 = sqlx::query_scalar("SELECT count(DISTINCT sku) FROM datasets.prices")
        .fetch_one(&scope.pool())
        .await?;
    ensure!(distinct == ROWS as i64, "{distinct} values are stored");
    ensure!(stored(&scope).await?.len() == ROWS);
    scope.close().await
}

/// Stores rows as one batch, until there is no deadlock. Returns how many are rejected.
async fn store_again(store: &PostgresStore, rows: &[Cells]) -> Result<u32> {
    let archived = begin(store, rows).await?;
    loop {
        match store.store(std::slice::from_ref(&archived)).await {
            Ok(outcomes) => match outcomes[..] {
                [StoreOutcome::Stored { rejected }] => return Ok(rejected),
                _ => bail!("{outcomes:?}"),
            },
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            Err(error) => return Err(error.into()),
        }
    }
}
