//! A merge and the transactions of the application wait for each other, but not for long.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carga_testkit::eventually;
use serde_json::json;
use uuid::Uuid;

use super::{
    HEADER, IMPORTS, declare_imports, expect_merged, outcome_of, pool, products, start_with, texts,
};
use crate::answers::problem;
use crate::app::{App, TIMEOUT};
use crate::datasets::merging::{Outcome, send_accepted};
use crate::datasets::undoing_merges::undo_merge;

/// How long the application holds its lock. It is long enough for several attempts of the merge.
const HELD: Duration = Duration::from_secs(15);

/// How long another writer may wait. A merge stops waiting after 2 s. The rest is for a busy
/// machine.
const LONGEST: Duration = Duration::from_secs(5);

/// Whether a transaction waits for a lock on a table or a row. The calls of Carga may also wait for
/// each other, on advisory locks.
const WAITS: &str = "
    SELECT EXISTS (
        SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'
          AND wait_event IN ('relation', 'transactionid', 'tuple')
    )";

/// The price of the first row is that of an update by the application.
fn file() -> String {
    format!("{HEADER}a,7.50,1,x\nb,8.50,2,NA\nd,9.50,4,y\n")
}

#[tokio::test]
async fn a_row_that_the_application_has_updated_delays_a_merge() -> Result<()> {
    let update = "UPDATE shop.products SET note = note WHERE sku = 'a'";
    let then = "UPDATE shop.products SET price = 7.50 WHERE sku = 'a'";
    delay(update, then, [1, 1, 1]).await
}

/// The lock of a row that is not changed yet permits `SHARE ROW EXCLUSIVE` on the table. A merge
/// with that lock must not wait long for the row, because all other writers wait for the merge, and
/// so does the transaction that has the row.
#[tokio::test]
async fn a_row_that_the_application_has_locked_to_update_it_delays_a_merge() -> Result<()> {
    let lock = "SELECT FROM shop.products WHERE sku = 'a' FOR UPDATE";
    let then = "UPDATE shop.products SET price = 7.50 WHERE sku = 'a'";
    delay(lock, then, [1, 1, 1]).await
}

#[tokio::test]
async fn a_locked_row_that_the_new_rows_refer_to_delays_a_merge() -> Result<()> {
    let lock = "SELECT FROM shop.suppliers WHERE code = 's1' FOR UPDATE";
    let then = "UPDATE shop.suppliers SET code = 's1' WHERE code = 's1'";
    delay(lock, then, [1, 2, 0]).await
}

/// Sends the file while a transaction of the application holds a lock, in which it runs another
/// statement later. `rows` has the inserted, updated and duplicate rows.
async fn delay(lock: &str, then: &str, rows: [u64; 3]) -> Result<()> {
    let app = start_with(&[("CARGA_SWEEP_MS", "500")], 1).await?;
    declare_imports(&app).await?;
    let mut transaction = pool(&app)?.begin().await?;
    sqlx::query(lock).execute(&mut *transaction).await?;
    let id = send_accepted(&app, IMPORTS, &[], file()).await?;
    wait_until_it_waits(&app).await?;

    let (written, longest) = write_meanwhile(&app, id).await?;
    ensure!(longest < LONGEST, "another writer was blocked {longest:?}");
    // The merge does not make the transaction of the application fail.
    wait_until_it_waits(&app).await?;
    sqlx::query(then).execute(&mut *transaction).await?;
    transaction.commit().await?;
    let [inserted, updated, duplicate] = rows;
    let outcome = Outcome {
        inserted,
        updated,
        duplicate,
        rejected: 0,
    };
    expect_merged(&app, id, outcome).await?;
    let rows = products(&app).await?;
    let expected = json!([
        ["a", "7.50", 1, "x", "app"],
        ["b", "8.50", 2, null, "app"],
        ["c", "3.50", 3, "z", "app"],
        ["d", "9.50", 4, "y", "unknown"],
        ["own", "9.00", 9 + written, "", "app"],
        ["void", null, 0, null, "app"],
    ]);
    ensure!(rows == expected, "{rows}");
    app.close().await
}

/// Polls until a merge waits for a lock.
async fn wait_until_it_waits(app: &App) -> Result<()> {
    let pool = pool(app)?;
    eventually(TIMEOUT, "the merge to wait for a lock", async || {
        let waits = sqlx::query_scalar::<_, bool>(WAITS);
        waits.fetch_one(&pool).await.unwrap_or_default()
    })
    .await
}

/// Updates a row that is in no file, again and again, while the upload is not merged. Returns how
/// often, and the longest time of one update.
async fn write_meanwhile(app: &App, id: Uuid) -> Result<(u32, Duration)> {
    const WRITE: &str = "UPDATE shop.products SET stock = stock + 1 WHERE sku = 'own'";
    let pool = pool(app)?;
    let (mut written, mut longest) = (0, Duration::ZERO);
    let begun = Instant::now();
    while begun.elapsed() < HELD {
        let started = Instant::now();
        sqlx::query(WRITE).execute(&pool).await?;
        written += 1;
        longest = longest.max(started.elapsed());
        let upload = app.upload(id).await?.context("no upload")?;
        ensure!(
            upload["status"] == "processing" && upload["rows"]["inserted"] == 0,
            "{upload}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok((written, longest))
}

#[tokio::test]
async fn an_undo_that_cannot_lock_the_table_is_refused_and_changes_nothing() -> Result<()> {
    let app = start_with(&[], 1).await?;
    declare_imports(&app).await?;
    let before = products(&app).await?;
    let id = send_accepted(&app, IMPORTS, &[], file()).await?;
    let outcome = Outcome {
        inserted: 1,
        updated: 2,
        ..Outcome::default()
    };
    let ended = expect_merged(&app, id, outcome).await?;
    let merged = products(&app).await?;

    let mut transaction = pool(&app)?.begin().await?;
    let lock = "UPDATE shop.products SET note = note WHERE sku = 'own'";
    sqlx::query(lock).execute(&mut *transaction).await?;
    let started = Instant::now();
    let undo = app.client.post(format!("{}/uploads/{id}/undo", app.url));
    problem(undo.send().await?, 503, "dependency_unavailable").await?;
    ensure!(started.elapsed() < LONGEST, "{:?}", started.elapsed());
    transaction.rollback().await?;
    let upload = app.upload(id).await?.context("no upload")?;
    ensure!(outcome_of(&upload) == outcome_of(&ended), "{upload}");
    ensure!(products(&app).await? == merged);
    undo_merge(&app, id, [3, 0, 0]).await?;
    ensure!(products(&app).await? == before);
    let written = texts(&app, "SELECT count(*)::text FROM written_rows").await?;
    ensure!(written == ["0"], "{written:?} written rows are left");
    app.close().await
}
