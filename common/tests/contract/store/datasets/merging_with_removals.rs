//! Merges into a table with rows of an undone upload that are still to be removed.

use anyhow::{Result, ensure};
use carga_common::dataset::Mode;
use carga_common::store::{Completed, Store};
use carga_common::upload::{Status, UploadId};

use super::merging::{
    Row, appended, check_figures, check_table, create_dataset, merge, merged, send,
};
use super::undoing::undo;
use crate::sample::first;
use crate::store::{StoreFixture, check_status, remove_all};

const ROWS: [Row<'_>; 3] = [
    ("a", Some("1"), Some("x")),
    ("b", Some("2"), None),
    ("c", Some("3"), Some("")),
];

/// Appends rows, and undoes the upload without removing them.
async fn append_and_undo(store: &dyn Store) -> Result<UploadId> {
    let id = send(store, appended()?, &ROWS).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    ensure!(store.undo(first(id)).await?);
    Ok(id)
}

pub(crate) async fn rows_to_be_removed_are_replaced_by_equal_rows<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let undone = append_and_undo(store).await?;
    let id = merge(store, Mode::Update, &ROWS).await?;
    check_figures(store, id, [0, 3, 0, 0]).await?;
    let expected = [(id, 1, ROWS[0]), (id, 2, ROWS[1]), (id, 3, ROWS[2])];
    check_table(fixture, &expected).await?;
    remove_all(store, undone).await?;
    check_table(fixture, &expected).await?;
    // The replaced rows do not come back.
    undo(store, id, [3, 0, 0]).await?;
    check_table(fixture, &[]).await
}

pub(crate) async fn rows_are_not_ignored_because_of_rows_to_be_removed<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let undone = append_and_undo(store).await?;
    let id = send(store, merged(Mode::Ignore)?, &ROWS).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::No);
    check_status(store, id, Status::Processing).await?;
    remove_all(store, undone).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    check_figures(store, id, [3, 0, 0, 0]).await?;
    let expected = [(id, 1, ROWS[0]), (id, 2, ROWS[1]), (id, 3, ROWS[2])];
    check_table(fixture, &expected).await
}
