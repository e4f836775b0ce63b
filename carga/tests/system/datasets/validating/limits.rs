//! A validation has a limit of time, and takes little memory.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::time::timeout;

use super::state::State;
use super::{IDENTITY, figures, validate, validating};
use crate::answers::problem;
use crate::app::{App, TIMEOUT};
use crate::datasets::merging::{
    BASE, Outcome, PRODUCTS, declare_products, merge, products, send_accepted,
};
use crate::datasets::user_tables::{self, HEADER, IMPORTS, declare_imports, pool};
use crate::datasets::{declare, detail, options};
use crate::harness::Mode;

in_both_modes! {
    a_validation_that_takes_too_long_is_refused_and_frees_the_table,
    a_validation_of_long_rows_takes_little_memory,
    a_file_whose_rows_need_too_much_space_is_refused,
}

/// The limit of the tests, and the longest time until the answer on a busy machine.
const SECONDS: (&str, &str) = ("CARGA_VALIDATE_SECS", "2");
const LONGEST: Duration = Duration::from_secs(30);

/// Each new row takes a second.
const IN_POSTGRES: &str = "
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_sleep(1);
        RETURN NEW;
    END $$;
    CREATE TRIGGER wait BEFORE INSERT ON datasets.products
        FOR EACH ROW EXECUTE FUNCTION wait();
";

/// Each new row takes a second or more.
const IN_SQLITE: &str = "
    CREATE VIEW counted AS
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8000000)
        SELECT count(*) AS numbers FROM n;
    CREATE TRIGGER wait BEFORE INSERT ON datasets_products
        BEGIN SELECT numbers FROM counted; END;
";

async fn a_validation_that_takes_too_long_is_refused_and_frees_the_table(mode: Mode) -> Result<()> {
    let (key, value) = SECONDS;
    let app = App::start(mode.harness().await?.with(key, value), 1).await?;
    declare_products(&app).await?;
    app.harness.execute(IN_POSTGRES, IN_SQLITE).await?;
    let state = State::read(&app).await?;
    // All rows together would take two minutes.
    let rows: String = (0..120).map(|row| format!("s{row},1.50,x\n")).collect();
    let file = format!("sku,price,note\n{rows}");
    let started = Instant::now();
    let request = validating(&app, &options(PRODUCTS, &[]), file)?;
    let answer = timeout(TIMEOUT, request.send()).await??;
    let took = started.elapsed();
    let refused = problem(answer, 422, "validation_too_long").await?;
    for part in [PRODUCTS, "2 s", "CARGA_VALIDATE_SECS"] {
        ensure!(detail(&refused)?.contains(part), "no {part:?}: {refused}");
    }
    ensure!(took < LONGEST, "the answer took {took:?}");
    state.expect_unchanged(&app).await?;

    // The table is free, and the next validation has all of its time.
    let postgres = "DROP TRIGGER wait ON datasets.products";
    app.harness.execute(postgres, "DROP TRIGGER wait").await?;
    let validation = validate(&app, PRODUCTS, &[], BASE).await?;
    ensure!(
        validation["rows"] == figures([3, 3, 0, 0, 0]),
        "{validation}"
    );
    let outcome = Outcome {
        inserted: 3,
        ..Outcome::default()
    };
    merge(&app, &[], BASE, outcome).await?;
    app.close().await
}

/// More memory than a few rows take, and about half of the file.
const MAX_GROWTH_BYTES: u64 = 96 << 20;

async fn a_validation_of_long_rows_takes_little_memory(mode: Mode) -> Result<()> {
    const ROWS: usize = 200;
    let harness = mode.harness().await?.with("CARGA_VALIDATE_SECS", "600");
    let app = App::start(harness, 1).await?;
    declare_products(&app).await?;
    let before = app.api.peak_rss_bytes()?;
    let long = "x".repeat(1_000_000);
    let rows = (0..ROWS).map(|row| format!("s{row},1.50,{long}\n"));
    let file = format!("sku,price,note\n{}", rows.collect::<String>());
    let validation = validate(&app, PRODUCTS, &[], file).await?;
    ensure!(
        validation["rows"] == figures([ROWS, ROWS, 0, 0, 0]),
        "{}",
        validation["rows"]
    );
    let growth = app.api.peak_rss_bytes()? - before;
    ensure!(growth < MAX_GROWTH_BYTES, "memory grew by {growth} bytes");
    ensure!(products(&app).await? == json!([]));
    app.close().await
}

async fn a_file_whose_rows_need_too_much_space_is_refused(mode: Mode) -> Result<()> {
    const LIMIT: u64 = 1_000_000;
    let limit = LIMIT.to_string();
    let harness = mode.harness().await?.with("CARGA_MAX_UPLOAD_BYTES", &limit);
    let app = App::start(harness, 1).await?;
    declare(
        &app,
        "numbers",
        json!([{ "name": "id", "type": "integer" }]),
    )
    .await?;
    // The temporary file has the position of each row too.
    let file = "id\n".to_owned() + &"7\n".repeat(200_000);
    let options = options("numbers", &[]);
    let answer = validating(&app, &options, file.clone())?.send().await?;
    let refused = problem(answer, 413, "validation_too_large").await?;
    ensure!(
        refused["limit"] == LIMIT && refused["actual"].as_u64() > Some(LIMIT),
        "{refused}"
    );
    let id = send_accepted(&app, "numbers", &[], file).await?;
    let upload = app.wait_until_ended(id).await?;
    ensure!(upload["rows"]["inserted"] == 200_000, "{upload}");
    app.close().await
}

/// A merge that meets such a lock is tried again later. A client waits for the answer of a
/// validation, so it is refused.
#[tokio::test]
async fn a_validation_that_cannot_lock_the_table_or_a_row_is_refused() -> Result<()> {
    let app = user_tables::start(0).await?;
    declare_imports(&app).await?;
    let state = State::read_without(&app, IDENTITY).await?;
    let file = format!("{HEADER}a,7.50,1,x\nd,9.50,4,y\n");
    for lock in [
        "LOCK TABLE shop.products IN SHARE MODE",
        "SELECT FROM shop.products WHERE sku = 'a' FOR UPDATE",
    ] {
        let mut transaction = pool(&app)?.begin().await?;
        sqlx::query(lock).execute(&mut *transaction).await?;
        let started = Instant::now();
        let request = validating(&app, &options(IMPORTS, &[]), file.clone())?;
        let answer = timeout(TIMEOUT, request.send()).await??;
        problem(answer, 503, "dependency_unavailable").await?;
        let took = started.elapsed();
        ensure!(took < LONGEST, "{lock}: the answer took {took:?}");
        transaction.rollback().await?;
        state.expect_unchanged(&app).await?;
    }
    let validation = validate(&app, IMPORTS, &[], file).await?;
    ensure!(
        validation["rows"] == figures([2, 1, 1, 0, 0]),
        "{validation}"
    );
    app.close().await
}
