//! A trial ends within its time limit.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use carga_common::dataset::Mode;
use carga_common::store::Tried;

use super::{Cells, Prices, good};

const LIMIT: Duration = Duration::from_secs(1);

/// A trigger that takes this long for each row, and then rejects a cheap one.
fn slow_trigger(seconds: &str) -> String {
    format!(
        "CREATE FUNCTION shop.wait() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM pg_sleep({seconds});
             IF NEW.price < 1 THEN RAISE EXCEPTION 'too cheap'; END IF;
             RETURN NEW;
         END
         $$;
         CREATE TRIGGER wait BEFORE INSERT OR UPDATE ON shop.prices
         FOR EACH ROW EXECUTE FUNCTION shop.wait()"
    )
}

/// Tries rows. Checks that the trial is too long, and that the table is free afterwards.
async fn check_too_long(prices: &Prices, mode: Mode, rows: &[Cells]) -> Result<()> {
    let mut trial = prices.trial(mode, rows.len())?;
    trial.time_limit = LIMIT;
    let started = Instant::now();
    let tried = prices.run(&trial, rows).await?;
    let elapsed = started.elapsed();
    ensure!(tried == Tried::TooLong, "{tried:?} after {elapsed:?}");
    ensure!(elapsed >= LIMIT, "{elapsed:?}");
    // This process would close the connection 5 s after the limit.
    ensure!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    prices
        .execute("BEGIN; LOCK TABLE shop.prices IN ACCESS EXCLUSIVE MODE NOWAIT; ROLLBACK")
        .await?;
    let stored = prices.texts("SELECT sku::text FROM shop.prices ORDER BY 1");
    let stored = stored.await?;
    ensure!(stored == ["a1", "a2"], "{stored:?}");
    Ok(())
}

async fn open(seconds: &str) -> Result<Prices> {
    let rows = "INSERT INTO shop.prices VALUES ('a1', 1, 1, 'old'), ('a2', 1, 1, 'old')";
    Prices::of_user(&format!("{rows}; {}", slow_trigger(seconds))).await
}

#[tokio::test]
async fn a_trial_whose_only_statement_is_slow_is_too_long() -> Result<()> {
    let prices = open("0.5").await?;
    let rows: Vec<Cells> = (10..40).map(good).collect();
    check_too_long(&prices, Mode::Append, &rows).await?;
    prices.close().await
}

/// No statement takes longer than the limit, because each row is rejected alone.
#[tokio::test]
async fn a_trial_of_many_quick_statements_is_too_long() -> Result<()> {
    let prices = open("0.05").await?;
    let mut rows: Vec<Cells> = (10..210).map(good).collect();
    for row in &mut rows {
        row[1] = Some("0.5".to_owned());
    }
    check_too_long(&prices, Mode::Append, &rows).await?;
    prices.close().await
}

/// The second statement has only the rest of the time, so the locks end with the limit.
#[tokio::test]
async fn a_trial_of_two_statements_that_are_too_slow_together_is_too_long() -> Result<()> {
    let prices = open("0.4").await?;
    let rows: Vec<Cells> = (1..=4).map(good).collect();
    check_too_long(&prices, Mode::Update, &rows).await?;
    prices.close().await
}

#[tokio::test]
async fn a_trial_within_its_time_limit_is_not_too_long() -> Result<()> {
    let prices = open("0.01").await?;
    let rows: Vec<Cells> = (1..=4).map(good).collect();
    let difference = prices.try_rows(Mode::Update, &rows).await?;
    ensure!((difference.inserted, difference.updated) == (2, 2));
    prices.close().await
}
