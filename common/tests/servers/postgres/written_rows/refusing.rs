//! Undoes uploads while constraints or other sessions hold rows of the table.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use carga_common::dataset::Mode;
use carga_common::error::ErrorKind;
use carga_common::store::UploadStore;
use carga_common::upload::Upload;

use super::{Shop, rows};

#[tokio::test]
async fn rows_that_a_constraint_holds_are_errored_in_an_undo() -> Result<()> {
    const CONSTRAINTS: &str = "
        CREATE TABLE shop.sales (sku text REFERENCES shop.prices DEFERRABLE INITIALLY DEFERRED);
        INSERT INTO shop.sales VALUES ('d'), ('f');
        ALTER TABLE shop.prices ADD CONSTRAINT high CHECK (price > 1) NOT VALID";
    let shop = Shop::simple().await?;
    let old = rows(&[["a", "1"], ["b", "1.5"], ["c", "1"]]);
    shop.merge(Mode::Append, &old, [3, 0, 0]).await?;
    let new = ["a", "b", "c", "d", "e", "f", "g"].map(|sku| [sku, "9"]);
    let upload = shop.merge(Mode::Update, &rows(&new), [4, 3, 0]).await?;
    shop.execute(CONSTRAINTS).await?;
    shop.execute("DELETE FROM shop.prices WHERE sku = 'g'")
        .await?;
    // The price of `b` was not too low.
    shop.undo(&upload, [2, 1, 4]).await?;
    let expected = ["(a,9,)", "(b,1.5,)", "(c,9,)", "(d,9,)", "(f,9,)"];
    ensure!(shop.rows("sku").await? == expected);
    shop.close().await
}

/// Checks that an undo gives up soon, because an application holds a lock.
async fn expect_given_up(shop: &Shop, upload: &Upload) -> Result<()> {
    let started = Instant::now();
    let refused = shop.store.undo(upload.key()).await;
    ensure!(
        refused
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Unavailable),
        "{refused:?}"
    );
    ensure!(started.elapsed() < Duration::from_secs(20));
    Ok(())
}

/// The other writers of the table would wait behind it.
#[tokio::test]
async fn an_undo_does_not_wait_long_for_the_transaction_of_an_application() -> Result<()> {
    let shop = Shop::simple().await?;
    let given = rows(&[["a", "1"]]);
    let upload = shop.merge(Mode::Append, &given, [1, 0, 0]).await?;
    let mut application = shop.scope.pool().begin().await?;
    sqlx::query("INSERT INTO shop.prices VALUES ('b', 2)")
        .execute(&mut *application)
        .await?;
    expect_given_up(&shop, &upload).await?;
    application.commit().await?;
    shop.undo(&upload, [1, 0, 0]).await?;
    ensure!(shop.rows("sku").await? == ["(b,2,)"]);
    shop.close().await
}

/// A row that is locked but not changed yet does not keep the table from the undo. All other
/// writers wait for the undo then.
#[tokio::test]
async fn an_undo_does_not_wait_long_for_a_row_that_an_application_has_locked() -> Result<()> {
    let shop = Shop::simple().await?;
    let given = rows(&[["a", "1"]]);
    let upload = shop.merge(Mode::Append, &given, [1, 0, 0]).await?;
    let mut application = shop.scope.pool().begin().await?;
    sqlx::query("SELECT FROM shop.prices WHERE sku = 'a' FOR UPDATE")
        .execute(&mut *application)
        .await?;
    expect_given_up(&shop, &upload).await?;
    sqlx::query("UPDATE shop.prices SET note = 'mine' WHERE sku = 'a'")
        .execute(&mut *application)
        .await?;
    application.commit().await?;
    shop.undo(&upload, [0, 1, 0]).await?;
    ensure!(shop.rows("sku").await? == ["(a,1,mine)"]);
    shop.close().await
}
