//! The columns of a dataset's key are those of a unique index.

use anyhow::{Context, Result, ensure};
use carga_common::dataset::Mode;

use super::{File, Shop, definition};

const TABLE: &str = r#"
    CREATE COLLATION shop.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE TABLE shop.prices (
        shop integer, sku text, code text UNIQUE, later text UNIQUE DEFERRABLE INITIALLY DEFERRED,
        a integer, b text, c text, d text, e text, f text COLLATE shop.any_case, g text,
        PRIMARY KEY (sku, shop));
    CREATE UNIQUE INDEX ON shop.prices (a) WHERE a > 0;
    CREATE UNIQUE INDEX ON shop.prices (lower(b));
    CREATE UNIQUE INDEX ON shop.prices (c) INCLUDE (d);
    CREATE INDEX ON shop.prices (e);
    CREATE UNIQUE INDEX ON shop.prices (f COLLATE "C");
    ALTER TABLE shop.prices ADD EXCLUDE USING btree (g WITH =)"#;

#[tokio::test]
async fn a_key_needs_a_unique_index_on_exactly_its_columns() -> Result<()> {
    let shop = Shop::open(TABLE).await?;
    let mut columns = vec![("shop", "integer"), ("a", "integer")];
    for name in ["sku", "code", "later", "b", "c", "d", "e", "f", "g"] {
        columns.push((name, "text"));
    }
    let taken: [&[&str]; 6] = [
        &[],
        &["sku", "shop"],
        &["shop", "sku"],
        &["code"],
        &["later"],
        &["c"],
    ];
    for key in taken {
        let fault = shop.fault(&definition(&columns, key)?).await?;
        ensure!(fault.is_none(), "{key:?}: {fault:?}");
    }
    let refused: [&[&str]; 9] = [
        &["sku"],
        &["sku", "shop", "code"],
        &["a"],
        &["b"],
        &["c", "d"],
        &["d"],
        &["e"],
        &["f"],
        &["g"],
    ];
    for key in refused {
        let fault = shop.fault(&definition(&columns, key)?).await?;
        let fault = fault.with_context(|| format!("{key:?} is taken"))?;
        ensure!(fault.code == "key_not_unique", "{fault:?}");
    }
    shop.close().await
}

/// Texts that differ only in case are one key. A change of the case is a change of the value.
#[tokio::test]
async fn keys_are_compared_by_the_collation_of_the_table() -> Result<()> {
    const SQL: &str = "
        CREATE COLLATION shop.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        CREATE TABLE shop.prices (
            sku text COLLATE shop.any_case PRIMARY KEY, note text COLLATE shop.any_case);
        INSERT INTO shop.prices VALUES ('a', 'x'), ('b', 'x')";
    let shop = Shop::open(SQL).await?;
    let definition = definition(&[("sku", "text"), ("note", "text")], &["sku"])?;
    shop.declare(&definition).await?;
    let rows = [["A", "X"], ["B", "x"], ["c", "x"], ["C", "y"]];
    let file = File::new(["sku", "note"], &rows);
    shop.merge(&definition, Mode::Update, &file, [1, 1, 2, 0])
        .await?;
    let stored = shop.texts("SELECT p::text FROM shop.prices p ORDER BY sku");
    ensure!(stored.await? == ["(a,X)", "(b,x)", "(C,y)"]);
    shop.merge(&definition, Mode::Ignore, &file, [0, 0, 4, 0])
        .await?;
    shop.close().await
}

/// Characters of a fixed width are compared without the blanks at their end.
#[tokio::test]
async fn keys_are_compared_by_the_type_of_the_table() -> Result<()> {
    const SQL: &str = "CREATE TABLE shop.prices (sku char(3) UNIQUE NOT NULL, stock smallint);
        INSERT INTO shop.prices VALUES ('a', 1), ('b', 1)";
    let shop = Shop::open(SQL).await?;
    let definition = definition(&[("sku", "text"), ("stock", "integer")], &["sku"])?;
    shop.declare(&definition).await?;
    let rows = [["a ", "1"], ["b", "2"], ["c", "3"], ["c  ", "4"]];
    let file = File::new(["sku", "stock"], &rows);
    shop.merge(&definition, Mode::Update, &file, [1, 1, 2, 0])
        .await?;
    let stored = shop.texts("SELECT p::text FROM shop.prices p ORDER BY sku");
    ensure!(stored.await? == ["(\"a  \",1)", "(\"b  \",2)", "(\"c  \",4)"]);
    shop.close().await
}

#[tokio::test]
async fn a_row_with_nothing_but_its_key_replaces_no_row() -> Result<()> {
    const SQL: &str = "CREATE TABLE shop.prices (sku text PRIMARY KEY, stock integer DEFAULT 7);
        INSERT INTO shop.prices VALUES ('a', 1)";
    let shop = Shop::open(SQL).await?;
    let definition = definition(&[("sku", "text")], &["sku"])?;
    shop.declare(&definition).await?;
    let file = File::new(["sku"], &[["a"], ["b"], ["b"]]);
    shop.merge(&definition, Mode::Update, &file, [1, 0, 2, 0])
        .await?;
    let stored = shop.texts("SELECT p::text FROM shop.prices p ORDER BY sku");
    ensure!(stored.await? == ["(a,1)", "(b,7)"]);
    shop.close().await
}

/// Postgres has no operator `=` for a domain over an enum.
#[tokio::test]
async fn a_domain_over_an_enum_is_compared_as_the_enum() -> Result<()> {
    const SQL: &str = "
        CREATE TYPE shop.color AS ENUM ('red', 'green', 'blue');
        CREATE DOMAIN shop.tint AS shop.color;
        CREATE TABLE shop.prices (tint shop.tint UNIQUE, other shop.tint);
        INSERT INTO shop.prices VALUES ('red', 'red'), ('green', 'red')";
    let shop = Shop::open(SQL).await?;
    let definition = definition(&[("tint", "text"), ("other", "text")], &["tint"])?;
    shop.declare(&definition).await?;
    let rows = [["red", "blue"], ["green", "red"], ["blue", "red"]];
    let file = File::new(["tint", "other"], &rows);
    shop.merge(&definition, Mode::Update, &file, [1, 1, 1, 0])
        .await?;
    let stored = shop.texts("SELECT p::text FROM shop.prices p ORDER BY tint");
    ensure!(stored.await? == ["(red,blue)", "(green,red)", "(blue,red)"]);
    shop.merge(&definition, Mode::Ignore, &file, [0, 0, 3, 0])
        .await?;
    shop.close().await
}
