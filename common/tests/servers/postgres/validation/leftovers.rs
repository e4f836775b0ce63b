//! A trial leaves nothing behind.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use carga_common::dataset::Mode;
use carga_common::error::ErrorKind;
use carga_common::store::{Tried, ValidationStore};
use carga_testkit::eventually;
use futures::{StreamExt, stream};

use super::{Cells, Prices, good};

/// Everything that a trial could change: the rows of the tables, the relations with their columns,
/// and the sequences but those of the user.
const STATE: &str = "
    SELECT format('%s %s', c.oid, c.relname) || coalesce((
        SELECT string_agg(a.attname, ',' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid), '')
    FROM pg_class c
    UNION ALL
    SELECT format('%s %s %s', schemaname, sequencename, last_value) FROM pg_sequences
    WHERE schemaname <> 'shop'
    UNION ALL SELECT format('shop.prices %s', p) FROM shop.prices p
    UNION ALL SELECT format('uploads %s', count(*)) FROM uploads
    UNION ALL SELECT format('upload_leases %s', count(*)) FROM upload_leases
    UNION ALL SELECT format('batches %s', count(*)) FROM batches
    UNION ALL SELECT format('landing %s', count(*)) FROM landing
    UNION ALL SELECT format('rejected_rows %s', count(*)) FROM rejected_rows
    UNION ALL SELECT format('previous_rows %s', count(*)) FROM previous_rows
    UNION ALL SELECT format('written_rows %s', count(*)) FROM written_rows
    ORDER BY 1";

pub(super) const TEMPORARY: &str = "SELECT relname::text FROM pg_class WHERE relpersistence = 't'";

/// Rows that are inserted, updated, duplicates and rejected.
fn rows() -> Vec<Cells> {
    let mut rows: Vec<Cells> = (1..=100).map(good).collect();
    rows[70][1] = Some("-1".to_owned());
    rows[80] = good(7);
    rows
}

async fn open() -> Result<Prices> {
    let prices = Prices::of_user(
        "ALTER TABLE shop.prices ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY;
         INSERT INTO shop.prices VALUES ('a1', 1, 1, 'old'), ('a2', 1.5, 1, 'new')",
    )
    .await?;
    // An earlier upload has made rows in every table of Carga.
    prices.upload(Some(Mode::Update), &[good(90)]).await?;
    Ok(prices)
}

#[tokio::test]
async fn a_trial_leaves_every_table_and_the_catalog_as_they_were() -> Result<()> {
    let prices = open().await?;
    let before = prices.texts(STATE).await?;
    for mode in [Mode::Update, Mode::Ignore, Mode::Append] {
        let difference = prices.try_rows(mode, &rows()).await?;
        ensure!(difference.inserted > 90 && difference.rejected > 0);
        let after = prices.texts(STATE).await?;
        ensure!(after == before, "{mode:?}: {after:?}");
    }
    let mut trial = prices.trial(Mode::Update, 100)?;
    trial.dataset.reject_limit.abort = true;
    let tried = prices.run(&trial, &rows()).await?;
    ensure!(matches!(tried, Tried::TooManyRejects { .. }), "{tried:?}");
    ensure!(prices.texts(STATE).await? == before);
    prices.close().await
}

/// The connection may be used again, so the end of the session does not drop the table.
#[tokio::test]
async fn a_connection_has_no_temporary_table_after_a_trial() -> Result<()> {
    let prices = open().await?;
    for _ in 0..3 {
        prices.try_rows(Mode::Update, &rows()).await?;
        let temporary = prices.texts(TEMPORARY).await?;
        ensure!(temporary.is_empty(), "{temporary:?}");
    }
    prices.close().await
}

#[tokio::test]
async fn a_trial_whose_batches_cannot_be_read_leaves_nothing() -> Result<()> {
    let prices = open().await?;
    let before = prices.texts(STATE).await?;
    let messages = prices.batches(&rows())?;
    let fault = stream::once(async { Err(io::Error::other("the disk is broken")) });
    let trial = prices.trial(Mode::Update, 100)?;
    let tried = prices.store.validate(&trial, messages.chain(fault).boxed());
    let error = tried.await.err().context("the rows are tried")?;
    ensure!(error.kind() == ErrorKind::Unavailable, "{error:?}");
    // The table ends with its session, which the server ends a moment later.
    let deadline = Duration::from_secs(20);
    eventually(deadline, "the end of the session", async || {
        let temporary = prices.texts(TEMPORARY).await;
        temporary.is_ok_and(|tables| tables.is_empty())
    })
    .await?;
    ensure!(prices.texts(STATE).await? == before);
    prices.try_rows(Mode::Update, &rows()).await?;
    prices.close().await
}

/// The server does not notice by itself during a statement that its client is gone.
#[tokio::test]
async fn a_trial_that_its_caller_gives_up_leaves_no_lock_and_no_temporary_table() -> Result<()> {
    const SLOW: &str = "CREATE FUNCTION shop.wait() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM pg_sleep(50);
             RETURN NEW;
         END
         $$;
         CREATE TRIGGER wait BEFORE INSERT ON shop.prices
         FOR EACH ROW EXECUTE FUNCTION shop.wait()";
    const SLEEPING: &str = "SELECT pid::text FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event = 'PgSleep'";
    // The lock ends with the statement.
    const LOCK: &str = "DO $$ BEGIN LOCK TABLE shop.prices IN ACCESS EXCLUSIVE MODE NOWAIT; END $$";
    const SOON: Duration = Duration::from_secs(15);
    let prices = Prices::of_user(SLOW).await?;
    let (trial, rows) = (prices.trial(Mode::Append, 1)?, [good(1)]);
    let sleeping = eventually(SOON, "the trigger", async || {
        let sleeping = prices.texts(SLEEPING).await;
        sleeping.is_ok_and(|processes| !processes.is_empty())
    });
    tokio::select! {
        tried = prices.run(&trial, &rows) => bail!("{tried:?}"),
        sleeping = sleeping => sleeping?,
    }
    ensure!(prices.execute(LOCK).await.is_err(), "the table is free");
    eventually(SOON, "the end of the trial", async || {
        let temporary = prices.texts(TEMPORARY).await;
        let is_free = prices.execute(LOCK).await.is_ok();
        is_free && temporary.is_ok_and(|tables| tables.is_empty())
    })
    .await?;
    let stored = prices.texts("SELECT sku::text FROM shop.prices").await?;
    ensure!(stored.is_empty(), "{stored:?}");
    prices.close().await
}

#[tokio::test]
async fn a_malformed_batch_is_invalid() -> Result<()> {
    let prices = open().await?;
    let trial = prices.trial(Mode::Update, 1)?;
    let messages = stream::iter([Ok(Bytes::from_static(b"{}"))]).boxed();
    let error = prices.store.validate(&trial, messages).await.err();
    let error = error.context("the rows are tried")?;
    ensure!(error.kind() == ErrorKind::Invalid, "{error:?}");
    prices.close().await
}
