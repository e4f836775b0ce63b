//! Undoes uploads into tables with primary keys of several kinds, and after the table has changed.

use anyhow::{Result, ensure};
use carga_common::dataset::Mode;
use carga_common::store::UploadStore;

use super::{SIMPLE, Shop, rows};

#[tokio::test]
async fn an_undo_finds_rows_by_a_key_of_several_columns() -> Result<()> {
    const SQL: &str = "CREATE TABLE shop.prices
        (price numeric, day date, shop integer, PRIMARY KEY (shop, day));
        INSERT INTO shop.prices VALUES (1, '2024-01-01', 1), (2, '2024-01-02', 1), (3, '2024-01-01', 2)";
    let columns = [("day", "date"), ("price", "numeric"), ("shop", "integer")];
    let shop = Shop::open(SQL, &columns, &["day", "shop"]).await?;
    let before = shop.rows("shop, day").await?;
    let given = rows(&[
        ["2024-01-01", "7", "1"],
        ["2024-01-01", "8", "2"],
        ["2024-01-02", "9", "2"],
    ]);
    let upload = shop.merge(Mode::Update, &given, [1, 2, 0]).await?;
    shop.undo(&upload, [3, 0, 0]).await?;
    ensure!(shop.rows("shop, day").await? == before);
    shop.close().await
}

#[tokio::test]
async fn an_undo_finds_rows_by_a_key_that_the_database_makes() -> Result<()> {
    for kind in ["ALWAYS", "BY DEFAULT"] {
        let sql = format!(
            "CREATE TABLE shop.prices (id bigint GENERATED {kind} AS IDENTITY PRIMARY KEY,
                                       sku text NOT NULL UNIQUE, price numeric);
             INSERT INTO shop.prices (sku, price) VALUES ('a', 1), ('b', 2)"
        );
        let columns = [("sku", "text"), ("price", "numeric")];
        let shop = Shop::open(&sql, &columns, &["sku"]).await?;
        let before = shop.rows("id").await?;
        let given = rows(&[["b", "7"], ["c", "7"], ["d", "7"]]);
        let upload = shop.merge(Mode::Update, &given, [2, 1, 0]).await?;
        shop.undo(&upload, [3, 0, 0]).await?;
        ensure!(shop.rows("id").await? == before, "{kind}");
        shop.close().await?;
    }
    Ok(())
}

/// Such a domain has no operator `=` of its own.
#[tokio::test]
async fn an_undo_finds_rows_by_a_key_of_a_domain_over_an_enumeration() -> Result<()> {
    const SQL: &str = "CREATE TYPE shop.color AS ENUM ('red', 'blue');
        CREATE DOMAIN shop.tint AS shop.color;
        CREATE TABLE shop.prices (tint shop.tint PRIMARY KEY, price numeric);
        INSERT INTO shop.prices VALUES ('red', 1)";
    let columns = [("tint", "text"), ("price", "numeric")];
    let shop = Shop::open(SQL, &columns, &["tint"]).await?;
    let before = shop.rows("tint").await?;
    let given = rows(&[["red", "7"], ["blue", "8"]]);
    let upload = shop.merge(Mode::Update, &given, [1, 1, 0]).await?;
    shop.undo(&upload, [2, 0, 0]).await?;
    ensure!(shop.rows("tint").await? == before);
    shop.close().await
}

#[tokio::test]
async fn an_undo_restores_a_primary_key_that_the_upload_has_changed() -> Result<()> {
    const SQL: &str = "CREATE TABLE shop.prices (id integer PRIMARY KEY, sku text NOT NULL UNIQUE);
        INSERT INTO shop.prices VALUES (1, 'a'), (2, 'b')";
    let columns = [("id", "integer"), ("sku", "text")];
    let shop = Shop::open(SQL, &columns, &["sku"]).await?;
    let before = shop.rows("id").await?;
    let given = rows(&[["7", "a"], ["1", "c"]]);
    let upload = shop.merge(Mode::Update, &given, [1, 1, 0]).await?;
    ensure!(shop.rows("id").await? == ["(1,c)", "(2,b)", "(7,a)"]);
    shop.undo(&upload, [2, 0, 0]).await?;
    ensure!(shop.rows("id").await? == before);
    shop.close().await
}

#[tokio::test]
async fn a_column_that_was_added_later_keeps_its_values_in_an_undo() -> Result<()> {
    let shop = Shop::simple().await?;
    let old = rows(&[["a", "1"], ["b", "1"]]);
    shop.merge(Mode::Append, &old, [2, 0, 0]).await?;
    let new = rows(&[["a", "2"], ["b", "2"], ["c", "2"]]);
    let upload = shop.merge(Mode::Update, &new, [1, 2, 0]).await?;
    shop.execute("ALTER TABLE shop.prices ADD COLUMN later text DEFAULT 'x'")
        .await?;
    shop.execute("UPDATE shop.prices SET later = 'y' WHERE sku = 'b'")
        .await?;
    shop.undo(&upload, [3, 0, 0]).await?;
    ensure!(shop.rows("sku").await? == ["(a,1,,x)", "(b,1,,y)"]);
    shop.close().await
}

/// The rows cannot be found any more.
#[tokio::test]
async fn an_undo_keeps_all_rows_of_a_table_that_has_another_key_or_lacks_a_column() -> Result<()> {
    let shop = Shop::simple().await?;
    let given = rows(&[["a", "1"], ["b", "2"]]);
    for change in [
        "ALTER TABLE shop.prices DROP CONSTRAINT prices_pkey",
        "ALTER TABLE shop.prices DROP CONSTRAINT prices_pkey, ADD PRIMARY KEY (price)",
        "ALTER TABLE shop.prices DROP CONSTRAINT prices_pkey, ADD PRIMARY KEY (sku, price)",
        "ALTER TABLE shop.prices ALTER COLUMN sku TYPE integer USING price::integer",
        "ALTER TABLE shop.prices RENAME COLUMN sku TO article",
        "ALTER TABLE shop.prices RENAME COLUMN note TO remark",
        "ALTER TABLE shop.prices DROP COLUMN note",
        "ALTER TABLE shop.prices RENAME TO old_prices; CREATE VIEW shop.prices AS SELECT * FROM shop.old_prices",
    ] {
        let upload = shop.merge(Mode::Append, &given, [2, 0, 0]).await?;
        shop.execute(change).await?;
        let before = shop.rows("price").await?;
        shop.undo(&upload, [0, 2, 0]).await?;
        ensure!(shop.rows("price").await? == before, "{change}");
        shop.execute(&format!(
            "DROP SCHEMA shop CASCADE; CREATE SCHEMA shop; {SIMPLE}"
        ))
        .await?;
    }
    let upload = shop.merge(Mode::Append, &given, [2, 0, 0]).await?;
    shop.execute("DROP SCHEMA shop CASCADE").await?;
    shop.undo(&upload, [0, 2, 0]).await?;
    shop.close().await
}

#[tokio::test]
async fn an_upload_into_a_table_without_a_primary_key_is_not_undone() -> Result<()> {
    const SQL: &str = "CREATE TABLE shop.prices (sku text NOT NULL UNIQUE, price numeric)";
    let shop = Shop::open(SQL, &[("sku", "text"), ("price", "numeric")], &["sku"]).await?;
    for (mode, price, figures) in [
        (Mode::Append, "1", [2, 0, 0]),
        (Mode::Ignore, "2", [0, 0, 2]),
        (Mode::Update, "3", [0, 2, 0]),
    ] {
        let given = rows(&[["a", price], ["b", price]]);
        let upload = shop.merge(mode, &given, figures).await?;
        let before = shop.rows("sku").await?;
        ensure!(!upload.is_reversible, "{upload:?}");
        ensure!(!shop.store.undo(upload.key()).await?);
        ensure!(shop.written(&upload).await? == 0);
        ensure!(shop.rows("sku").await? == before);
    }
    ensure!(shop.rows("sku").await? == ["(a,3)", "(b,3)"]);
    shop.close().await
}
