//! Undoes merges into a table that has values of all kinds and columns that were added by hand.

use anyhow::{Result, ensure};
use carga_common::dataset::Mode;
use carga_common::store::UploadStore;
use carga_common::upload::{UndoneRows, UploadId};
use carga_testkit::Scope;

use super::{declare, figures, find, merge, row, rows, table};

/// Columns that a user has added. Triggers and generated columns compute some values.
const OWN_COLUMNS: &str = "ALTER TABLE datasets.prices
    ADD COLUMN tags text[] DEFAULT ARRAY['a, b', NULL, '\"'],
    ADD COLUMN amount numeric(8, 3) DEFAULT 1.5,
    ADD COLUMN place point DEFAULT '(1e300,-0)',
    ADD COLUMN span interval DEFAULT '-1 mon +2 days',
    ADD COLUMN raw bytea DEFAULT '\\x00ff',
    ADD COLUMN fixed char(5) DEFAULT 'ab',
    ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN twice numeric GENERATED ALWAYS AS (price * 2) STORED";

fn undone(reversed: u64, kept: u64, errored: u64) -> Option<UndoneRows> {
    Some(UndoneRows {
        reversed,
        kept,
        errored,
    })
}

#[tokio::test]
async fn an_undo_restores_the_table_byte_for_byte() -> Result<()> {
    let scope = Scope::new().await?;
    let store = declare(&scope, OWN_COLUMNS).await?;
    let mut before = rows(1..=200, "1.50");
    before[0][3] = Some("-0.0".to_owned());
    before[1][4] = Some("null".to_owned());
    before[2][1] = Some("1.500".to_owned());
    before[3][3] = Some("1.7976931348623157e308".to_owned());
    before[4] = [Some("a5".to_owned()), None, None, None, None];
    before[5][2] = Some("0001-01-01".to_owned());
    merge(&store, Mode::Update, &before).await?;
    let expected = table(&scope).await?;
    // The defaults of the role must not matter.
    sqlx::raw_sql("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET extra_float_digits = 0', current_database()); END $$")
        .execute(&scope.pool())
        .await?;
    let store = super::connect(scope.database_url()).await?;
    let upload = merge(&store, Mode::Update, &rows(1..=400, "2.50")).await?;
    ensure!(figures(&upload) == [200, 200, 0, 0].map(Some), "{upload:?}");
    ensure!(store.undo(upload.key()).await?);
    ensure!(table(&scope).await? == expected);
    ensure!(find(&store, upload.id).await?.undone == undone(400, 0, 0));
    ensure!(!store.undo(upload.key()).await?);
    scope.close().await
}

/// The id of the upload that a row of the table belongs to, and its price.
async fn owner(scope: &Scope, sku: &str) -> Result<Option<(UploadId, String)>> {
    let found: Option<(String, String)> =
        sqlx::query_as("SELECT upload_id::text, price::text FROM datasets.prices WHERE sku = $1")
            .bind(sku)
            .fetch_optional(&scope.pool())
            .await?;
    let Some((id, price)) = found else {
        return Ok(None);
    };
    Ok(Some((id.parse()?, price)))
}

/// An undo does not bring back a row of an upload that was undone itself.
#[tokio::test]
async fn merges_can_be_undone_in_any_order() -> Result<()> {
    let scope = Scope::new().await?;
    let store = declare(&scope, "").await?;
    let first = merge(&store, Mode::Update, &[row(1, "1")]).await?;
    let second = merge(&store, Mode::Update, &[row(1, "2"), row(2, "2")]).await?;
    let third = merge(&store, Mode::Update, &[row(1, "3"), row(2, "3")]).await?;
    ensure!(store.undo(second.key()).await?);
    ensure!(find(&store, second.id).await?.undone == undone(0, 2, 0));
    ensure!(owner(&scope, "a1").await? == Some((third.id, "3".to_owned())));
    ensure!(store.undo(third.key()).await?);
    ensure!(find(&store, third.id).await?.undone == undone(2, 0, 0));
    ensure!(owner(&scope, "a1").await? == Some((first.id, "1".to_owned())));
    ensure!(owner(&scope, "a2").await?.is_none());
    ensure!(store.undo(first.key()).await?);
    ensure!(table(&scope).await?.is_empty());
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM previous_rows")
        .fetch_one(&scope.pool())
        .await?;
    ensure!(kept == 0, "{kept} previous rows are left");
    scope.close().await
}

#[tokio::test]
async fn a_row_that_another_table_refers_to_stays() -> Result<()> {
    const SQL: &str = "CREATE TABLE sales (sku text REFERENCES datasets.prices);
        INSERT INTO sales VALUES ('a7'), ('a8')";
    let scope = Scope::new().await?;
    let store = declare(&scope, "").await?;
    let upload = merge(&store, Mode::Update, &rows(1..=20, "1.50")).await?;
    sqlx::raw_sql(SQL).execute(&scope.pool()).await?;
    sqlx::query("DELETE FROM datasets.prices WHERE sku = 'a3'")
        .execute(&scope.pool())
        .await?;
    ensure!(store.undo(upload.key()).await?);
    ensure!(find(&store, upload.id).await?.undone == undone(17, 1, 2));
    ensure!(table(&scope).await?.len() == 2);
    scope.close().await
}
