//! Undoing an upload that was merged into the table of a dataset.

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::dataset::Mode;
use carga_common::store::Store;
use carga_common::upload::{Status, UndoneRows, UploadId};

use super::key;
use super::merging::{all, check_table, create_dataset, merge};
use crate::sample::first;
use crate::store::{Relation, StoreFixture, check_status, find, remove_all, rows, set_back};

/// Longer than any test takes.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// How far an upload's end is set back.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Undoes an upload, and checks how many rows were reversed, kept and errored.
pub(super) async fn undo(store: &dyn Store, id: UploadId, expected: [u64; 3]) -> Result<()> {
    let [reversed, kept, errored] = expected;
    ensure!(find(store, id).await?.undone.is_none());
    ensure!(store.undo(first(id)).await?);
    let undone = find(store, id).await?.undone;
    let expected = UndoneRows {
        reversed,
        kept,
        errored,
    };
    ensure!(undone == Some(expected), "{undone:?}");
    check_status(store, id, Status::Undone).await?;
    remove_all(store, id).await?;
    ensure!(rows(store, id).await?.is_empty());
    Ok(())
}

pub(crate) async fn an_undone_merge_leaves_the_table_as_it_was<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let before = [
        ("a", Some("1"), Some("x")),
        ("b", Some("2"), None),
        ("c", Some("-3"), Some("")),
        ("d", Some("4"), Some("[\"é\\\"]")),
    ];
    merge(store, Mode::Update, &before).await?;
    let table = all(fixture, Relation::Table).await?;
    let given = [
        ("e", Some("5"), None),
        ("d", Some("9"), None),
        ("c", Some("9"), Some("z")),
        ("b", Some("2"), Some("y")),
        ("a", Some("1"), Some("x")),
    ];
    let id = merge(store, Mode::Update, &given).await?;
    ensure!(find(store, id).await?.is_reversible);
    ensure!(all(fixture, Relation::Table).await? != table);
    undo(store, id, [4, 0, 0]).await?;
    for relation in [Relation::Table, Relation::View] {
        let found = all(fixture, relation).await?;
        ensure!(found == table, "expected {table:?}, found {found:?}");
    }
    ensure!(!store.undo(first(id)).await?);
    // The same file can be merged again, and undone again.
    let again = merge(store, Mode::Update, &given).await?;
    undo(store, again, [4, 0, 0]).await?;
    ensure!(all(fixture, Relation::Table).await? == table);
    Ok(())
}

pub(crate) async fn an_undo_keeps_rows_that_changed_later<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let row = |sku, stock| (sku, Some(stock), None);
    let one = merge(store, Mode::Update, &[row("a", "1")]).await?;
    let given = [row("a", "2"), row("b", "2"), row("c", "2")];
    let two = merge(store, Mode::Update, &given).await?;
    let given = [row("a", "3"), row("b", "3")];
    let three = merge(store, Mode::Update, &given).await?;
    // Only `c` is as the second upload left it.
    undo(store, two, [1, 2, 0]).await?;
    check_table(fixture, &[(three, 1, given[0]), (three, 2, given[1])]).await?;
    // The rows of an undone upload do not come back.
    undo(store, three, [2, 0, 0]).await?;
    check_table(fixture, &[(one, 1, row("a", "1"))]).await?;
    undo(store, one, [1, 0, 0]).await?;
    check_table(fixture, &[]).await
}

pub(crate) async fn an_undo_leaves_rows_that_a_constraint_keeps<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let given = ["a", "b", "c"].map(|sku| (sku, Some("1"), None));
    let id = merge(store, Mode::Ignore, &given).await?;
    let table = F::table(&key("sales")?);
    let orders = format!("CREATE TABLE orders (sku text REFERENCES {table} (sku))");
    fixture.execute(&orders).await?;
    let order = "INSERT INTO orders VALUES ('b')";
    fixture.execute(order).await?;
    undo(store, id, [2, 0, 1]).await?;
    let left = all(fixture, Relation::Table).await?;
    let left: Vec<u64> = left.iter().map(|(_, row)| row.row_number).collect();
    ensure!(left == [2], "{left:?}");
    Ok(())
}

pub(crate) async fn an_upload_whose_previous_values_are_forgotten_is_not_undone<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let row = |sku, stock| (sku, Some(stock), None);
    let inserted = merge(store, Mode::Update, &[row("a", "1"), row("b", "1")]).await?;
    let updated = merge(store, Mode::Update, &[row("a", "2")]).await?;
    ensure!(store.forget_previous(MONTH).await? == 0);
    for id in [inserted, updated] {
        set_back(fixture, id, YEAR).await?;
    }
    // An upload without updated rows has no previous values.
    ensure!(store.forget_previous(MONTH).await? == 1);
    ensure!(store.forget_previous(MONTH).await? == 0);
    ensure!(!find(store, updated).await?.is_reversible);
    ensure!(!store.undo(first(updated)).await?);
    check_status(store, updated, Status::Completed).await?;
    let expected = [(updated, 1, row("a", "2")), (inserted, 2, row("b", "1"))];
    check_table(fixture, &expected).await?;
    ensure!(find(store, inserted).await?.is_reversible);
    undo(store, inserted, [1, 1, 0]).await
}

pub(crate) async fn rows_of_a_merge_outlive_the_record_of_its_rows<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let row = |sku, stock| (sku, Some(stock), None);
    let one = merge(store, Mode::Update, &[row("a", "1"), row("b", "1")]).await?;
    let two = merge(store, Mode::Update, &[row("a", "2")]).await?;
    for id in [one, two] {
        set_back(fixture, id, YEAR).await?;
    }
    ensure!(store.expire_rows(MONTH).await? == 2);
    for id in [one, two] {
        remove_all(store, id).await?;
        ensure!(store.ledger(first(id)).await?.is_empty());
    }
    check_table(fixture, &[(two, 1, row("a", "2")), (one, 2, row("b", "1"))]).await?;
    ensure!(!find(store, two).await?.is_reversible);
    let three = merge(store, Mode::Update, &[row("b", "3")]).await?;
    undo(store, three, [1, 0, 0]).await?;
    check_table(fixture, &[(two, 1, row("a", "2")), (one, 2, row("b", "1"))]).await
}
