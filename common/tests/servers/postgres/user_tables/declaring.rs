//! Datasets with a table of the user are declared, changed and deleted. The table stays as it is.

use anyhow::{Context, Result, ensure};
use carga_common::dataset::{Definition, Mode};
use carga_common::store::{DatasetStore, DeleteOutcome, PutOutcome};

use super::{File, Shop, definition};
use crate::postgres::dataset_key;

const TABLE: &str = "CREATE TABLE shop.prices (sku text PRIMARY KEY, price numeric, note text)";

const SKU: (&str, &str) = ("sku", "text");

#[tokio::test]
async fn a_dataset_gets_columns_that_the_table_has() -> Result<()> {
    let shop = Shop::open(TABLE).await?;
    let shape = shop.shape().await?;
    let first = definition(&[SKU], &["sku"])?;
    let wrong = definition(&[SKU, ("price", "float")], &["sku"])?;
    let unfit = shop.put(&wrong).await?;
    ensure!(matches!(&unfit, PutOutcome::Unfit(fault) if fault.code == "column_type"));
    ensure!(shop.store.dataset(&dataset_key("prices")?).await?.is_none());
    ensure!(shop.put(&first).await? == PutOutcome::Created);
    ensure!(shop.put(&first).await? == PutOutcome::Unchanged);
    let second = definition(&[SKU, ("price", "numeric")], &["sku"])?;
    ensure!(shop.put(&second).await? == PutOutcome::Changed);
    let third = definition(&[SKU, ("price", "numeric"), ("stock", "integer")], &["sku"])?;
    let unfit = shop.put(&third).await?;
    ensure!(matches!(&unfit, PutOutcome::Unfit(fault) if fault.code == "column_not_found"));
    let stored = shop.store.dataset(&dataset_key("prices")?).await?;
    ensure!(stored.context("it is gone")?.definition == second);
    let own = shop
        .texts("SELECT relname::text FROM pg_class WHERE relnamespace = 'datasets'::regnamespace");
    ensure!(own.await?.is_empty());
    ensure!(shop.shape().await? == shape);
    // A definition that does not change is not compared with the table again.
    shop.execute("ALTER TABLE shop.prices DROP COLUMN price")
        .await?;
    ensure!(shop.put(&second).await? == PutOutcome::Unchanged);
    shop.close().await
}

#[tokio::test]
async fn a_dataset_is_deleted_without_its_table_when_its_uploads_have_ended() -> Result<()> {
    const OWN: &[u8] = br#"{ "columns": [{ "name": "sku", "type": "text" }] }"#;
    let shop = Shop::open(TABLE).await?;
    let shape = shop.shape().await?;
    let prices = dataset_key("prices")?;
    let definition = definition(&[SKU, ("price", "numeric")], &["sku"])?;
    shop.declare(&definition).await?;
    let file = File::new(["sku", "price"], &[["a", "1"], ["b", "2"]]);
    let key = shop.stage(&definition, Mode::Append, &file).await?;
    let deleted = shop.store.delete_dataset(&prices).await?;
    ensure!(
        deleted == DeleteOutcome::InUse { uploads: 1 },
        "{deleted:?}"
    );
    let upload = shop.complete(key).await?;
    ensure!(upload.rows_inserted == Some(2));
    let deleted = shop.store.delete_dataset(&prices).await?;
    ensure!(deleted == DeleteOutcome::Deleted, "{deleted:?}");
    let stored = shop.texts("SELECT p::text FROM shop.prices p ORDER BY sku");
    ensure!(stored.await? == ["(a,1,)", "(b,2,)"]);
    ensure!(shop.shape().await? == shape);
    let kept = shop.texts("SELECT count(*)::text FROM written_rows");
    ensure!(kept.await? == ["0"]);

    // A dataset of this name with a table of Carga does not need the rows of the user.
    let own = Definition::from_json(OWN)?;
    ensure!(shop.store.put_dataset(&prices, &own).await? == PutOutcome::Created);
    let deleted = shop.store.delete_dataset(&prices).await?;
    ensure!(deleted == DeleteOutcome::Deleted, "{deleted:?}");
    shop.close().await
}
