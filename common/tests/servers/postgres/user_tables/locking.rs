//! An application keeps the table locked, or changes it while a merge waits.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carga_common::dataset::Mode;
use carga_common::error::ErrorKind;
use carga_common::store::{Completed, CompletionStore};
use carga_common::upload::UploadKey;

use super::{File, Shop, definition};

const TABLE: &str = "CREATE TABLE shop.prices (sku text PRIMARY KEY, price numeric, note text);
    INSERT INTO shop.prices VALUES ('a', 1)";

const COLUMNS: [(&str, &str); 2] = [("sku", "text"), ("price", "numeric")];

fn file() -> File {
    File::new(["sku", "price"], &[["a", "2.25"], ["b", "2.5"]])
}

/// Checks that a merge gives up soon, because an application holds a lock. Returns how long it has
/// waited.
async fn expect_given_up(shop: &Shop, key: UploadKey) -> Result<Duration> {
    let started = Instant::now();
    let completed = shop.store.complete(key, 0).await;
    let waited = started.elapsed();
    let error = completed.err().context("the rows are merged")?;
    ensure!(error.kind() == ErrorKind::Unavailable, "{error:?}");
    ensure!(waited < Duration::from_secs(20), "{waited:?}");
    Ok(waited)
}

/// Other writers of the table queue behind a merge that waits, so it gives up soon.
#[tokio::test]
async fn a_merge_waits_briefly_for_a_table_that_an_application_has_locked() -> Result<()> {
    let shop = Shop::open(TABLE).await?;
    let definition = definition(&COLUMNS, &["sku"])?;
    shop.declare(&definition).await?;
    let key = shop.stage(&definition, Mode::Update, &file()).await?;
    let pool = shop.scope.pool();
    let mut application = pool.begin().await?;
    sqlx::query("UPDATE shop.prices SET note = 'mine' WHERE sku = 'a'")
        .execute(&mut *application)
        .await?;
    let waited = expect_given_up(&shop, key).await?;
    ensure!(waited > Duration::from_secs(1), "{waited:?}");
    application.commit().await?;
    let upload = shop.complete(key).await?;
    ensure!((upload.rows_inserted, upload.rows_updated) == (Some(1), Some(1)));
    let stored = shop.texts("SELECT p::text FROM shop.prices p ORDER BY sku");
    ensure!(stored.await? == ["(a,2.25,mine)", "(b,2.5,)"]);
    shop.close().await
}

/// A row that is locked but not changed yet does not keep the table from the merge. All other
/// writers wait for the merge then.
#[tokio::test]
async fn a_merge_waits_briefly_for_a_row_that_an_application_has_locked() -> Result<()> {
    let shop = Shop::open(&format!("{TABLE}, ('z', 1)")).await?;
    let definition = definition(&COLUMNS, &["sku"])?;
    shop.declare(&definition).await?;
    let key = shop.stage(&definition, Mode::Update, &file()).await?;
    let pool = shop.scope.pool();
    let mut application = pool.begin().await?;
    sqlx::query("SELECT FROM shop.prices WHERE sku = 'a' FOR UPDATE")
        .execute(&mut *application)
        .await?;
    expect_given_up(&shop, key).await?;
    sqlx::query("UPDATE shop.prices SET note = 'mine' WHERE sku = 'a'")
        .execute(&mut *application)
        .await?;
    application.commit().await?;
    let upload = shop.complete(key).await?;
    ensure!((upload.rows_inserted, upload.rows_updated) == (Some(1), Some(1)));
    let stored = shop.texts("SELECT p::text FROM shop.prices p ORDER BY sku");
    ensure!(stored.await? == ["(a,2.25,mine)", "(b,2.5,)", "(z,1,)"]);
    shop.close().await
}

/// The values of the merge were made for the types before the change.
#[tokio::test]
async fn a_merge_begins_again_if_the_table_has_changed_while_it_waited() -> Result<()> {
    const WAITING: &str = "SELECT count(*)::text FROM pg_locks
        WHERE relation = 'shop.prices'::regclass AND NOT granted";
    let shop = Shop::open(TABLE).await?;
    let definition = definition(&COLUMNS, &["sku"])?;
    shop.declare(&definition).await?;
    let key = shop.stage(&definition, Mode::Update, &file()).await?;
    let pool = shop.scope.pool();
    let mut application = pool.begin().await?;
    sqlx::query("ALTER TABLE shop.prices ALTER COLUMN price TYPE numeric(4,1)")
        .execute(&mut *application)
        .await?;
    let store = shop.store.clone();
    let merging = tokio::spawn(async move { store.complete(key, 0).await });
    while shop.texts(WAITING).await? == ["0"] {
        ensure!(!merging.is_finished(), "the merge does not wait");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    application.commit().await?;
    let completed = merging.await??;
    ensure!(completed == Completed::No, "{completed:?}");
    let upload = shop.complete(key).await?;
    ensure!((upload.rows_inserted, upload.rows_violating) == (Some(1), Some(1)));
    let rejected = shop.rejected(upload.id).await?;
    ensure!(
        rejected[0].message.ends_with("numeric(4,1)"),
        "{rejected:?}"
    );
    let stored = shop.texts("SELECT p::text FROM shop.prices p ORDER BY sku");
    ensure!(stored.await? == ["(a,1.0,)", "(b,2.5,)"]);
    shop.close().await
}
