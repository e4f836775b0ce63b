//! Merges into a table that still has rows of an upload which was undone.

use anyhow::{Result, ensure};
use carga_common::dataset::Mode;
use carga_common::store::{
    Completed, CompletionStore, MaintenanceStore, PostgresStore, Removal, UploadStore,
};
use carga_common::upload::UploadId;
use carga_testkit::Scope;

use super::{declare, figures, find, merge, rows, send, stage, table};

/// Appends rows 1 to 3 and undoes the upload. Its rows are still in the table.
async fn undone(store: &PostgresStore) -> Result<UploadId> {
    let key = send(store, None, &rows(1..=3, "1")).await?;
    ensure!(store.complete(key, 0).await? == Completed::Yes);
    ensure!(store.undo(key).await?, "the upload is not undone");
    Ok(key.id)
}

async fn remove(store: &PostgresStore, id: UploadId) -> Result<()> {
    while store.remove_rows(id).await? != Removal::Done {}
    Ok(())
}

/// Equal rows belong to the new upload, and its undo does not bring the old ones back.
#[tokio::test]
async fn an_update_replaces_equal_rows_that_will_be_removed() -> Result<()> {
    let scope = Scope::new().await?;
    let store = declare(&scope, "").await?;
    let first = undone(&store).await?;
    let second = merge(&store, Mode::Update, &rows(1..=4, "1")).await?;
    ensure!(figures(&second) == [1, 3, 0, 0].map(Some), "{second:?}");
    remove(&store, first).await?;
    ensure!(table(&scope).await?.len() == 4);
    let third = merge(&store, Mode::Update, &rows(1..=4, "1")).await?;
    ensure!(figures(&third) == [0, 0, 4, 0].map(Some), "{third:?}");
    ensure!(store.undo(second.key()).await?);
    ensure!(table(&scope).await?.is_empty());
    scope.close().await
}

#[tokio::test]
async fn ignored_rows_wait_until_the_rows_of_their_keys_are_removed() -> Result<()> {
    let scope = Scope::new().await?;
    let store = declare(&scope, "").await?;
    let first = undone(&store).await?;
    let key = stage(&store, Mode::Ignore, &rows(3..=5, "1")).await?;
    ensure!(store.complete(key, 0).await? == Completed::No);
    ensure!(table(&scope).await?.len() == 3);
    remove(&store, first).await?;
    ensure!(store.complete(key, 0).await? == Completed::Yes);
    let second = find(&store, key.id).await?;
    ensure!(figures(&second) == [3, 0, 0, 0].map(Some), "{second:?}");
    ensure!(table(&scope).await?.len() == 3);
    scope.close().await
}
