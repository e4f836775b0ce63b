//! A merge fails for good if no later attempt would succeed. Nothing is stored then.

use anyhow::{Context, Result, ensure};
use carga_common::dataset::Mode;
use carga_common::error::ErrorKind;
use carga_common::store::CompletionStore;

use super::{File, Shop, definition};

const TABLE: &str = "CREATE TABLE shop.prices (sku text PRIMARY KEY, price numeric, note text);
    INSERT INTO shop.prices VALUES ('a', 1)";

const COLUMNS: [(&str, &str); 2] = [("sku", "text"), ("price", "numeric")];

/// What happens to the table after the rows were staged, and a part of the error.
const CHANGES: [(&str, &str); 8] = [
    ("DROP TABLE shop.prices", "no table shop.prices"),
    (
        "ALTER TABLE shop.prices RENAME TO other",
        "no table shop.prices",
    ),
    ("ALTER TABLE shop.prices DROP COLUMN price", "`price`"),
    (
        "ALTER TABLE shop.prices ALTER COLUMN price TYPE real",
        "real",
    ),
    (
        "ALTER TABLE shop.prices DROP CONSTRAINT prices_pkey",
        "unique index",
    ),
    (
        "UPDATE shop.prices SET note = ''; ALTER TABLE shop.prices ALTER COLUMN note SET NOT NULL",
        "`note`",
    ),
    (
        "CREATE RULE leave_out AS ON INSERT TO shop.prices DO INSTEAD NOTHING",
        "rules",
    ),
    ("DELETE FROM datasets", "dataset was deleted"),
];

#[tokio::test]
async fn rows_for_a_table_that_does_not_take_them_any_more_are_not_merged() -> Result<()> {
    for (change, part) in CHANGES {
        let shop = Shop::open(TABLE).await?;
        let definition = definition(&COLUMNS, &["sku"])?;
        shop.declare(&definition).await?;
        let file = File::new(["sku", "price"], &[["a", "2"], ["b", "2"]]);
        let key = shop.stage(&definition, Mode::Update, &file).await?;
        shop.execute(change).await?;
        let error = shop.store.complete(key, 0).await.err().context(change)?;
        ensure!(error.kind() == ErrorKind::Invalid, "{change}: {error:?}");
        ensure!(error.chain().contains(part), "{change}: {}", error.chain());
        shop.close().await?;
    }
    Ok(())
}

/// A trigger may raise an error of any class. Carga would try again without end if it took the
/// error for a passing one.
#[tokio::test]
async fn an_error_of_a_trigger_that_comes_with_each_attempt_ends_the_merge() -> Result<()> {
    for (code, kind) in [
        ("45000", ErrorKind::Invalid),
        ("42501", ErrorKind::Invalid),
        ("0A000", ErrorKind::Invalid),
        ("55000", ErrorKind::Invalid),
        ("ZZ001", ErrorKind::Invalid),
        ("40001", ErrorKind::Unavailable),
        ("55P03", ErrorKind::Unavailable),
    ] {
        let trigger = format!(
            "CREATE FUNCTION shop.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'not today' USING ERRCODE = '{code}'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON shop.prices
             FOR EACH ROW EXECUTE FUNCTION shop.refuse()"
        );
        let shop = Shop::open(&format!("{TABLE}; {trigger}")).await?;
        let definition = definition(&COLUMNS, &["sku"])?;
        shop.declare(&definition).await?;
        let file = File::new(["sku", "price"], &[["a", "2"], ["b", "2"]]);
        let key = shop.stage(&definition, Mode::Update, &file).await?;
        let error = shop.store.complete(key, 0).await.err().context(code)?;
        ensure!(error.kind() == kind, "{code}: {error:?}");
        ensure!(error.chain().contains("not today"), "{}", error.chain());
        let stored = shop.texts("SELECT p::text FROM shop.prices p").await?;
        ensure!(stored == ["(a,1,)"], "{stored:?}");
        shop.close().await?;
    }
    Ok(())
}
