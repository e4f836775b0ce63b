//! Rows of a dataset are stored with their types.

use anyhow::{Context, Result, ensure};
use carga_common::dataset::{ColumnType, Definition, TypedColumn};
use carga_common::error::ErrorKind;
use carga_common::store::{Completed, Store, StoreOutcome};
use carga_common::typed::RowWidth;
use carga_common::upload::UploadId;
use serde_json::{Value, json};

use super::use_by_uploads::expire;
use super::values::{check_cells, every_type, every_value};
use super::{
    Cells, batches, begin, complete, count, create, definition, key, sample_cells,
    sample_definition, stored,
};
use crate::sample::{self, first};
use crate::store::{
    REPLAY, Relation, STORED, StoreFixture, check_sample_rows, end_well, fail, remove_all, rows,
    seal, store_new,
};

pub(crate) async fn typed_rows_are_stored_with_exactly_their_values<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (key, definition, expected) = (key("every type")?, every_type()?, every_value());
    create(store.as_ref(), &key, &definition).await?;
    let id = complete(store.as_ref(), &key, &definition, &expected).await?;
    for relation in [Relation::Table, Relation::View] {
        let found = stored(fixture, relation, (&key, &definition), id).await?;
        check_cells(&definition.typed_columns(), &found, &expected)?;
    }
    Ok(())
}

pub(crate) async fn typed_rows_are_read_back_in_canonical_form<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (key, definition, expected) = (key("every type")?, every_type()?, every_value());
    create(store.as_ref(), &key, &definition).await?;
    let id = complete(store.as_ref(), &key, &definition, &expected).await?;
    let found = rows(store.as_ref(), id).await?;
    let numbers = found.iter().map(|row| row.row_number);
    ensure!(numbers.eq(1..=expected.len() as u64));
    let found: Vec<Cells> = found.into_iter().map(|row| row.fields).collect();
    check_cells(&definition.typed_columns(), &found, &expected)
}

/// The rows have far more columns than fit into a page of Postgres if all of them have values. The
/// long texts are moved out of their row there, and the others are not.
pub(crate) async fn the_widest_row_that_the_store_takes_is_stored<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    for (dataset, kinds) in [
        ("mixed", &ColumnType::ALL[..]),
        ("texts", &[ColumnType::Text][..]),
    ] {
        let (key, definition) = (key(dataset)?, wide_definition(kinds)?);
        create(store, &key, &definition).await?;
        let row = widest_row(store, &definition.typed_columns());
        let values = row.iter().flatten().count();
        ensure!(values > 400, "{dataset}: only {values} columns have values");
        let id = complete(store, &key, &definition, std::slice::from_ref(&row)).await?;
        let found = rows(store, id).await?;
        ensure!(found.len() == 1 && found[0].fields == row, "{dataset}");
    }
    Ok(())
}

/// 1,200 columns with these types in turn.
fn wide_definition(kinds: &[ColumnType]) -> Result<Definition> {
    let column = |(number, kind): (usize, &ColumnType)| -> Value {
        json!({ "name": number.to_string(), "type": kind.name() })
    };
    let columns = kinds.iter().cycle().take(1200).enumerate().map(column);
    let columns: Vec<Value> = columns.collect();
    definition(&json!(columns))
}

/// The row with the most values that the store takes.
fn widest_row(store: &dyn Store, columns: &[TypedColumn]) -> Cells {
    let cell = |(number, column): (usize, &TypedColumn)| match column.kind {
        ColumnType::Text => format!("{number:030}"),
        ColumnType::Integer => number.to_string(),
        ColumnType::Numeric => format!("{number}.50"),
        ColumnType::Float => "1.5".to_owned(),
        ColumnType::Boolean => "true".to_owned(),
        ColumnType::Date => "2024-02-29".to_owned(),
        ColumnType::Timestamp => "2024-02-29T12:34:56.000001Z".to_owned(),
        ColumnType::Uuid => UploadId::generate().to_string(),
        ColumnType::Json => "[1, 2]".to_owned(),
    };
    let mut row: Cells = columns.iter().enumerate().map(cell).map(Some).collect();
    let limit = store.max_row_bytes();
    let width = limit.and_then(|limit| RowWidth::new(columns, limit));
    if let Some(width) = width {
        for index in (0..row.len()).rev() {
            if width.check(row.iter().map(Option::as_deref)).is_ok() {
                break;
            }
            row[index] = None;
        }
    }
    row
}

pub(crate) async fn typed_and_landing_batches_of_one_group_are_stored_together<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let (sales, other, numbered) = (key("sales")?, key("other")?, sample_definition()?);
    let swapped = definition(&json!([
        { "name": "name", "type": "text" },
        { "name": "is even", "type": "boolean" },
    ]))?;
    create(store, &sales, &numbered).await?;
    create(store, &other, &swapped).await?;
    let typed = begin(store, &sales, &numbered).await?;
    let of_other = begin(store, &other, &swapped).await?;
    let also_typed = begin(store, &sales, &numbered).await?;
    let landing = crate::store::begin(store).await?;
    let other_rows = ["true", "false"].map(|even| vec![None, Some(even.to_owned())]);
    let group = [
        batches(typed, &numbered, &sample_cells(1500))?,
        sample::batches(landing, 2, 10)?,
        batches(of_other, &swapped, &other_rows)?,
        batches(also_typed, &numbered, &sample_cells(3))?,
    ]
    .concat();
    store_new(store, &group).await?;
    for (id, batches, rows) in [(typed, 2, 1500), (landing, 2, 20), (also_typed, 1, 3)] {
        end_well(store, id, batches, rows).await?;
        check_sample_rows(store, id, rows).await?;
    }
    end_well(store, of_other, 1, 2).await?;
    ensure!(count(fixture, Relation::View, &sales).await? == 1503);
    let found = stored(fixture, Relation::View, (&other, &swapped), of_other).await?;
    ensure!(found == other_rows, "{found:?}");
    for (id, rows) in [(typed, 0), (of_other, 0), (also_typed, 0), (landing, 20)] {
        ensure!(fixture.rows_in_table(id).await? == rows);
    }
    Ok(())
}

/// A NUL cannot be stored, and no constraint refuses it.
pub(crate) async fn a_group_with_a_typed_row_that_does_not_fit_is_not_stored<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let (key, definition) = (key("sales")?, sample_definition()?);
    create(store, &key, &definition).await?;
    let typed = begin(store, &key, &definition).await?;
    let landing = crate::store::begin(store).await?;
    let good = [
        batches(typed, &definition, &sample_cells(1001))?,
        sample::batches(landing, 1, 10)?,
    ]
    .concat();
    let row = ["1", "a\0b"].map(|text| Some(text.to_owned()));
    let mut invalid = batches(typed, &definition, &[row.to_vec()])?;
    invalid[0].batch.id.seq = 3;
    let outcome = store.store(&[good.clone(), invalid].concat()).await;
    ensure!(
        outcome
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Invalid),
        "{outcome:?}"
    );
    ensure!(count(fixture, Relation::Table, &key).await? == 0);
    ensure!(fixture.rows_in_table(landing).await? == 0);
    ensure!(store.ledger(first(typed)).await?.is_empty());
    store_new(store, &good).await?;
    end_well(store, typed, 2, 1001).await?;
    check_sample_rows(store, typed, 1001).await
}

pub(crate) async fn a_replay_of_typed_rows_adds_nothing<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let (key, definition) = (key("sales")?, sample_definition()?);
    create(store.as_ref(), &key, &definition).await?;
    let id = begin(store.as_ref(), &key, &definition).await?;
    let batches = batches(id, &definition, &sample_cells(1010))?;
    let twice = [batches[0].clone(), batches[0].clone()];
    let outcomes = store.store(&twice).await?;
    ensure!(outcomes == [STORED, REPLAY]);
    let outcomes = other.store(&batches).await?;
    ensure!(outcomes == [REPLAY, STORED]);
    ensure!(count(fixture, Relation::Table, &key).await? == 1010);
    end_well(store.as_ref(), id, 2, 1010).await?;
    ensure!(store.store(&batches).await? == [REPLAY; 2]);
    ensure!(count(fixture, Relation::Table, &key).await? == 1010);
    check_sample_rows(store.as_ref(), id, 1010).await
}

/// The rows are so many that they are removed in several steps.
pub(crate) async fn a_failed_typed_upload_leaves_no_row<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const MANY: usize = 60_000;
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let (key, definition) = (key("sales")?, sample_definition()?);
    create(store, &key, &definition).await?;
    let kept = complete(store, &key, &definition, &sample_cells(10)).await?;
    let failed = begin(store, &key, &definition).await?;
    let batches = batches(failed, &definition, &sample_cells(MANY as u64 + 1000))?;
    let (late, stored) = batches.split_last().context("no batch")?;
    store_new(store, stored).await?;
    fail(store, failed).await?;
    ensure!(store.store(std::slice::from_ref(late)).await? == [StoreOutcome::Fenced]);
    ensure!(count(fixture, Relation::View, &key).await? == 10);
    ensure!(count(fixture, Relation::Table, &key).await? == MANY + 10);
    let steps = remove_all(store, failed).await?;
    ensure!(steps > 0, "one call removed all rows");
    ensure!(count(fixture, Relation::Table, &key).await? == 10);
    ensure!(store.ledger(first(failed)).await?.is_empty());
    check_sample_rows(store, kept, 10).await
}

pub(crate) async fn an_undone_typed_upload_leaves_no_row<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let (key, definition) = (key("sales")?, sample_definition()?);
    create(store, &key, &definition).await?;
    let kept = complete(store, &key, &definition, &sample_cells(10)).await?;
    let undone = complete(store, &key, &definition, &sample_cells(1500)).await?;
    let page = store.row_page(undone, 0).await?.context("no first page")?;
    ensure!(store.undo(first(undone)).await?);
    let next_page = store.row_page(undone, page.last_seq).await;
    ensure!(next_page.is_err_and(|error| error.kind() == ErrorKind::Conflict));
    ensure!(count(fixture, Relation::View, &key).await? == 10);
    let late = batches(undone, &definition, &sample_cells(1))?;
    ensure!(store.store(&late).await? == [StoreOutcome::Fenced]);
    remove_all(store, undone).await?;
    ensure!(count(fixture, Relation::Table, &key).await? == 10);
    ensure!(store.row_page(undone, 0).await?.is_none());
    check_sample_rows(store, kept, 10).await
}

/// Checks how many rows are in the view, and how many of this upload can be read.
async fn check_visible<F: StoreFixture>(
    fixture: &F,
    store: &dyn Store,
    id: UploadId,
    expected: usize,
) -> Result<()> {
    let in_view = count(fixture, Relation::View, &key("sales")?).await?;
    let read = rows(store, id).await?.len();
    ensure!(
        (in_view, read) == (expected, expected),
        "expected {expected} rows, found {in_view} in the view, and {read} were read"
    );
    Ok(())
}

pub(crate) async fn rows_of_a_typed_upload_are_visible_only_after_it_ended_well<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let (key, definition) = (key("sales")?, sample_definition()?);
    create(store, &key, &definition).await?;
    let id = begin(store, &key, &definition).await?;
    store_new(store, &batches(id, &definition, &sample_cells(20))?).await?;
    check_visible(fixture, store, id, 0).await?;
    ensure!(store.seal(first(id), &seal(1, 20)).await?);
    check_visible(fixture, store, id, 0).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    check_visible(fixture, store, id, 20).await?;

    // The rows of an expired upload are hidden before they are removed.
    expire(fixture, store, id).await?;
    ensure!(count(fixture, Relation::View, &key).await? == 0);
    let page = store.row_page(id, 0).await;
    ensure!(page.is_err_and(|error| error.kind() == ErrorKind::Conflict));
    ensure!(count(fixture, Relation::Table, &key).await? == 20);
    remove_all(store, id).await?;
    ensure!(count(fixture, Relation::Table, &key).await? == 0);
    Ok(())
}
