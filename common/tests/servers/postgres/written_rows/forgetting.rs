//! What is kept for an undo is deleted in the end.

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::dataset::Mode;
use carga_common::error::ErrorKind;
use carga_common::store::{
    BatchStore, DatasetStore, DeleteOutcome, MaintenanceStore, Removal, UploadStore,
};
use carga_common::upload::{Status, Upload};

use super::{Shop, rows};
use crate::postgres::dataset_key;

/// Longer than any test takes.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// An upload that inserts two rows, and one that replaces one of them.
async fn two_uploads(shop: &Shop) -> Result<[Upload; 2]> {
    let old = rows(&[["a", "1"], ["b", "1"]]);
    let one = shop.merge(Mode::Append, &old, [2, 0, 0]).await?;
    let new = rows(&[["a", "2"], ["b", "1"]]);
    let two = shop.merge(Mode::Update, &new, [0, 1, 1]).await?;
    ensure!(shop.written(&one).await? == 2 && shop.written(&two).await? == 1);
    Ok([one, two])
}

/// Makes all uploads end a year ago.
async fn set_back(shop: &Shop) -> Result<()> {
    shop.execute("UPDATE uploads SET finished_at = finished_at - interval '1 year'")
        .await
}

/// Checks that an upload has left its rows, and cannot be undone any more.
async fn check_forgotten(shop: &Shop, upload: &Upload) -> Result<()> {
    ensure!(shop.written(upload).await? == 0);
    ensure!(!shop.find(upload.id).await?.is_reversible);
    ensure!(!shop.store.undo(upload.key()).await?);
    ensure!(shop.find(upload.id).await?.status == Status::Completed);
    ensure!(shop.rows("sku").await? == ["(a,2,)", "(b,1,)"]);
    Ok(())
}

#[tokio::test]
async fn written_rows_are_forgotten_even_if_the_upload_only_inserted_rows() -> Result<()> {
    let shop = Shop::simple().await?;
    let uploads = two_uploads(&shop).await?;
    ensure!(shop.store.forget_previous(MONTH).await? == 0);
    set_back(&shop).await?;
    ensure!(shop.store.forget_previous(MONTH).await? == 2);
    ensure!(shop.store.forget_previous(MONTH).await? == 0);
    for upload in &uploads {
        check_forgotten(&shop, upload).await?;
    }
    shop.close().await
}

/// A previous version does not know them.
#[tokio::test]
async fn written_rows_that_a_previous_version_has_left_are_forgotten() -> Result<()> {
    let shop = Shop::simple().await?;
    let uploads = two_uploads(&shop).await?;
    set_back(&shop).await?;
    shop.execute("UPDATE uploads SET is_reversible = false")
        .await?;
    ensure!(shop.store.forget_previous(MONTH).await? == 2);
    for upload in &uploads {
        check_forgotten(&shop, upload).await?;
    }
    shop.close().await
}

#[tokio::test]
async fn the_rows_of_an_expired_upload_stay_in_the_table_of_the_user() -> Result<()> {
    let shop = Shop::simple().await?;
    let uploads = two_uploads(&shop).await?;
    set_back(&shop).await?;
    ensure!(shop.store.expire_rows(MONTH).await? == 2);
    for upload in &uploads {
        ensure!(!shop.find(upload.id).await?.is_reversible);
        while shop.store.remove_rows(upload.id).await? != Removal::Done {}
        ensure!(shop.store.ledger(upload.key()).await?.is_empty());
        check_forgotten(&shop, upload).await?;
    }
    shop.close().await
}

/// One statement must not delete the rows of a very large upload.
#[tokio::test]
async fn written_rows_of_an_expired_upload_are_deleted_in_steps() -> Result<()> {
    const GROW: &str = "
        INSERT INTO written_rows (upload, key, digest)
            SELECT number, ARRAY[n::text], ''::bytea FROM uploads, generate_series(1, 60000) n;
        INSERT INTO batches (upload_id, epoch, seq, first_row, rows, archive_bytes, archive_crc32)
            SELECT id, 1, seq, seq * 100000, 40000, 1, 1 FROM uploads, generate_series(2, 3) seq";
    let shop = Shop::simple().await?;
    let given = rows(&[["a", "1"]]);
    let upload = shop.merge(Mode::Append, &given, [1, 0, 0]).await?;
    shop.execute(GROW).await?;
    set_back(&shop).await?;
    ensure!(shop.store.expire_rows(MONTH).await? == 1);
    ensure!(shop.store.remove_rows(upload.id).await? == Removal::More);
    let left = shop.written(&upload).await?;
    ensure!(left == 10_001, "{left}");
    ensure!(shop.store.remove_rows(upload.id).await? == Removal::Done);
    ensure!(shop.written(&upload).await? == 0);
    shop.close().await
}

#[tokio::test]
async fn uploads_of_a_deleted_dataset_cannot_be_undone() -> Result<()> {
    let shop = Shop::simple().await?;
    let uploads = two_uploads(&shop).await?;
    let deleted = shop.store.delete_dataset(&dataset_key("prices")?).await?;
    ensure!(deleted == DeleteOutcome::Deleted, "{deleted:?}");
    for upload in &uploads {
        check_forgotten(&shop, upload).await?;
    }
    shop.close().await
}

/// The deletion of the dataset waits for the undo, or is *unavailable*.
#[tokio::test]
async fn an_undo_is_complete_although_the_dataset_is_deleted_meanwhile() -> Result<()> {
    const SLOW: &str = "
        CREATE FUNCTION shop.wait() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_sleep(1);
            RETURN OLD;
        END
        $$;
        CREATE TRIGGER wait BEFORE DELETE ON shop.prices
        FOR EACH ROW EXECUTE FUNCTION shop.wait()";
    const WAITS: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event = 'PgSleep')";
    let shop = Shop::simple().await?;
    let old = rows(&[["a", "1"]]);
    shop.merge(Mode::Append, &old, [1, 0, 0]).await?;
    let new = rows(&[["a", "2"], ["b", "2"]]);
    let upload = shop.merge(Mode::Update, &new, [1, 1, 0]).await?;
    shop.execute(SLOW).await?;
    let (store, key) = (shop.store.clone(), upload.key());
    let undoing = tokio::spawn(async move { store.undo(key).await });
    let pool = shop.scope.pool();
    while !sqlx::query_scalar::<_, bool>(WAITS)
        .fetch_one(&pool)
        .await?
    {
        ensure!(!undoing.is_finished(), "the undo does not wait");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let deleted = shop.store.delete_dataset(&dataset_key("prices")?).await;
    ensure!(undoing.await??, "it is not undone");
    ensure!(
        match &deleted {
            Ok(outcome) => *outcome == DeleteOutcome::Deleted,
            Err(error) => error.kind() == ErrorKind::Unavailable,
        },
        "{deleted:?}"
    );
    let undone = shop.find(upload.id).await?.undone;
    ensure!(
        undone.is_some_and(|undone| undone.reversed == 2),
        "{undone:?}"
    );
    ensure!(shop.rows("sku").await? == ["(a,1,)"]);
    shop.close().await
}
