//! Other writers of the table, and the rows that a trial would have to wait for.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use carga_common::dataset::Mode;
use carga_common::error::ErrorKind;
use carga_common::store::{MaintenanceStore, Removal, Tried, UploadStore, ValidationStore};
use carga_testkit::eventually;
use futures::{StreamExt, stream};
use sqlx::PgPool;

use super::{Cells, Prices, good, row};

/// What an application does while the batches are read. Fails if it would have to wait, or if Carga
/// has a transaction open.
async fn write(pool: &PgPool) -> sqlx::Result<()> {
    const STAGED: &str = "SELECT count(*) FROM pg_class WHERE relname = 'carga_trial'";
    const OPEN: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'servers' AND xact_start IS NOT NULL";
    for (count, expected) in [(STAGED, 1), (OPEN, 0)] {
        let found: i64 = sqlx::query_scalar(count).fetch_one(pool).await?;
        if found != expected {
            return Err(sqlx::Error::Protocol(format!("{count}: {found}")));
        }
    }
    sqlx::raw_sql(
        "BEGIN; LOCK TABLE shop.prices IN ACCESS EXCLUSIVE MODE NOWAIT;
         UPDATE shop.prices SET price = 1.5, note = 'new' WHERE sku = 'a1'; COMMIT",
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// The rows are compared with the table as it is after they were read.
#[tokio::test]
async fn no_lock_is_held_while_batches_are_read() -> Result<()> {
    const STORED: &str = "INSERT INTO shop.prices VALUES ('a1', 1, 1, 'old'), ('a2', 1, 1, 'old')";
    let prices = Prices::of_user(STORED).await?;
    let rows: Vec<Cells> = (1..=150).map(good).collect();
    let mut messages = prices.batches(&rows)?;
    let first = messages.next().await.context("there is no batch")?;
    let second = messages.next().await.context("there is one batch")?;
    let pool = prices.scope.pool();
    let second = stream::once(async move {
        write(&pool).await.map_err(io::Error::other)?;
        second
    });
    let batches = stream::iter([first]).chain(second).chain(messages).boxed();
    let trial = prices.trial(Mode::Update, rows.len())?;
    let tried = prices.store.validate(&trial, batches).await?;
    let Tried::Difference(difference) = tried else {
        bail!("{tried:?}");
    };
    let counts = (
        difference.inserted,
        difference.updated,
        difference.duplicate,
    );
    ensure!(counts == (148, 1, 1), "{difference:?}");
    prices.close().await
}

/// Tries a row while another transaction has locked the table with this statement. Checks that the
/// trial gives up before its time is over.
async fn check_gives_up(prices: Prices, lock: &str) -> Result<()> {
    let mut other = prices.scope.pool().begin().await?;
    sqlx::query(lock).execute(&mut *other).await?;
    let started = Instant::now();
    let mut trial = prices.trial(Mode::Update, 1)?;
    trial.time_limit = Duration::from_secs(10);
    let tried = prices.store.validate(&trial, prices.batches(&[good(1)])?);
    let error = tried.await.err().context("the rows are tried")?;
    let waited = started.elapsed();
    ensure!(error.kind() == ErrorKind::Unavailable, "{error:?}");
    ensure!(waited < trial.time_limit, "{waited:?}");
    other.rollback().await?;
    let difference = prices.try_rows(Mode::Update, &[good(1)]).await?;
    ensure!(difference.inserted == 1, "{difference:?}");
    prices.close().await
}

/// Other writers of the table queue behind a trial that waits, so it gives up soon.
#[tokio::test]
async fn a_trial_waits_briefly_for_a_table_that_an_application_has_locked() -> Result<()> {
    let prices = Prices::of_user("").await?;
    check_gives_up(prices, "LOCK TABLE shop.prices IN ROW EXCLUSIVE MODE").await
}

/// A merge may keep the lock for minutes.
#[tokio::test]
async fn a_trial_waits_briefly_for_a_table_that_a_merge_has_locked() -> Result<()> {
    const MERGE: &str = "LOCK TABLE datasets.prices IN SHARE ROW EXCLUSIVE MODE";
    check_gives_up(Prices::own().await?, MERGE).await
}

/// Tries a row while another transaction has locked this table, and runs the statements of the
/// deletion in that transaction as soon as the trial waits. Checks that the dataset is not found.
async fn check_deleted(prices: Prices, table: &str, deletion: &str) -> Result<()> {
    const WAITING: &str = "SELECT mode FROM pg_locks WHERE NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let mut other = prices.scope.pool().begin().await?;
    let lock = format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
    sqlx::raw_sql(&lock).execute(&mut *other).await?;
    let trial = prices.trial(Mode::Update, 1)?;
    let trying = prices.store.validate(&trial, prices.batches(&[good(1)])?);
    let deleting = async {
        eventually(Duration::from_secs(10), "a trial that waits", async || {
            let waiting = prices.texts(WAITING).await;
            waiting.is_ok_and(|locks| !locks.is_empty())
        })
        .await?;
        sqlx::raw_sql(deletion).execute(&mut *other).await?;
        other.commit().await?;
        anyhow::Ok(())
    };
    let (tried, deleted) = tokio::join!(trying, deleting);
    deleted?;
    let error = tried.err().context("the rows are tried")?;
    ensure!(error.kind() == ErrorKind::NotFound, "{error:?}");
    prices.close().await
}

/// The trial has found the dataset before it waits for the lock.
#[tokio::test]
async fn a_trial_whose_dataset_is_deleted_meanwhile_is_not_found() -> Result<()> {
    const RECORD: &str = "DELETE FROM datasets WHERE name = 'prices'";
    check_deleted(Prices::of_user("").await?, "shop.prices", RECORD).await?;
    let with_table = format!("{RECORD}; DROP TABLE datasets.prices CASCADE");
    check_deleted(Prices::own().await?, "datasets.prices", &with_table).await
}

/// An upload would wait for the removal.
#[tokio::test]
async fn a_trial_is_unavailable_until_rows_with_its_keys_are_removed() -> Result<()> {
    let prices = Prices::own().await?;
    let upload = prices.upload(None, &[good(1), good(2)]).await?;
    ensure!(prices.store.undo(upload.key()).await?, "it is not undone");
    let rows = [row(["a2", "3", "1", "new"]), good(3)];
    let trial = prices.trial(Mode::Ignore, 2)?;
    let tried = prices.store.validate(&trial, prices.batches(&rows)?);
    let error = tried.await.err().context("the rows are tried")?;
    ensure!(error.kind() == ErrorKind::Unavailable, "{error:?}");
    // An update replaces such rows, also by equal ones, and changes no column then.
    let rows = [good(2), good(3)];
    let difference = prices.try_rows(Mode::Update, &rows).await?;
    ensure!((difference.inserted, difference.updated) == (1, 1));
    ensure!(difference.changed_columns.is_empty(), "{difference:?}");
    while prices.store.remove_rows(upload.id).await? != Removal::Done {}
    let difference = prices.try_rows(Mode::Ignore, &rows).await?;
    ensure!(difference.inserted == 2, "{difference:?}");
    prices.close().await
}
