//! Uploads that are merged into the table of a dataset.

use anyhow::{Result, ensure};
use carga_common::dataset::{DatasetKey, Definition, Mode, TypedColumn};
use carga_common::store::{ArchivedBatch, Completed, NewUpload, Store, StoredRow};
use carga_common::upload::{Merge, RejectLimit, Status, UploadDataset, UploadId};
use serde_json::json;

use super::{Cells, create, key};
use crate::sample::{self, first, position};
use crate::store::{Relation, StoreFixture, check_status, find, new_upload, rows, seal, store_new};

/// The values of a row: the key `sku`, the required number `stock`, and `note`.
pub(in crate::store) type Row<'a> = (&'a str, Option<&'a str>, Option<&'a str>);

/// The rows of a table, each with its upload and its number in the file.
pub(super) type Table = Vec<(UploadId, StoredRow)>;

fn sales() -> Result<DatasetKey> {
    key("sales")
}

pub(in crate::store) fn definition() -> Result<Definition> {
    let json = json!({
        "columns": [
            { "name": "sku", "type": "text" },
            { "name": "stock", "type": "integer", "required": true },
            { "name": "note", "type": "text" },
        ],
        "key": ["sku"],
    });
    Ok(Definition::from_json(json.to_string().as_bytes())?)
}

pub(in crate::store) fn columns() -> Result<Vec<TypedColumn>> {
    Ok(definition()?.typed_columns())
}

pub(in crate::store) async fn create_dataset(store: &dyn Store) -> Result<()> {
    create(store, &sales()?, &definition()?).await
}

/// The dataset of an upload that is merged in this way.
pub(in crate::store) fn merged(mode: Mode) -> Result<UploadDataset> {
    Ok(UploadDataset {
        name: sales()?.name,
        tenant: sales()?.tenant,
        columns: columns()?,
        missing: Vec::new(),
        ignored: Vec::new(),
        sources: vec![Some(0), Some(1), Some(2)],
        reject_limit: RejectLimit::default(),
        merge: Some(Merge {
            mode,
            key: vec!["sku".to_owned()],
        }),
        table: None,
    })
}

/// The dataset of an upload whose batches append their rows.
pub(in crate::store) fn appended() -> Result<UploadDataset> {
    let merge = None;
    Ok(UploadDataset {
        merge,
        ..merged(Mode::Append)?
    })
}

/// Batches of two rows each.
pub(in crate::store) fn batches(id: UploadId, given: &[Row<'_>]) -> Result<Vec<ArchivedBatch>> {
    let text = |text: &str| text.to_owned();
    let row = |(sku, stock, note): &Row<'_>| -> Cells {
        vec![Some(text(sku)), stock.map(text), note.map(text)]
    };
    let columns: Vec<String> = columns()?.into_iter().map(|column| column.name).collect();
    sample::typed_batches_of(id, &columns, given.iter().map(row), 2)
}

/// Creates an upload.
pub(in crate::store) async fn begin(store: &dyn Store, dataset: UploadDataset) -> Result<UploadId> {
    let id = UploadId::generate();
    let new = NewUpload {
        tenant: dataset.tenant.clone(),
        dataset: Some(dataset),
        ..new_upload(id, ["SKU", "Stock", "Note"].map(String::from).to_vec())
    };
    store.create(&new).await?;
    Ok(id)
}

/// Creates an upload, stores all its rows and seals it.
pub(in crate::store) async fn send(
    store: &dyn Store,
    dataset: UploadDataset,
    given: &[Row<'_>],
) -> Result<UploadId> {
    let id = begin(store, dataset).await?;
    let batches = batches(id, given)?;
    store_new(store, &batches).await?;
    let seal = seal(batches.len() as u32, given.len() as u64);
    ensure!(store.seal(first(id), &seal).await?);
    Ok(id)
}

/// Creates an upload and merges its rows.
pub(in crate::store) async fn merge(
    store: &dyn Store,
    mode: Mode,
    given: &[Row<'_>],
) -> Result<UploadId> {
    merge_into(store, merged(mode)?, given).await
}

/// Creates an upload into this dataset and merges its rows.
pub(in crate::store) async fn merge_into(
    store: &dyn Store,
    dataset: UploadDataset,
    given: &[Row<'_>],
) -> Result<UploadId> {
    let id = send(store, dataset, given).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    Ok(id)
}

/// The rows of the dataset in its table or its view.
pub(super) async fn all<F: StoreFixture>(fixture: &F, relation: Relation) -> Result<Table> {
    let mut found = fixture.typed_rows(&sales()?, relation, &columns()?).await?;
    found.sort_by(|(_, row), (_, other)| row.fields.cmp(&other.fields));
    Ok(found)
}

/// Checks the rows of the table and of the view, in the order of their keys: the upload of each
/// row, its number in the file and its values.
pub(in crate::store) async fn check_table<F: StoreFixture>(
    fixture: &F,
    expected: &[(UploadId, u64, Row<'_>)],
) -> Result<()> {
    let row = |(id, row_number, (sku, stock, note)): &(UploadId, u64, Row<'_>)| {
        let fields = [Some(*sku), *stock, *note];
        let fields = fields.map(|text| text.map(str::to_owned)).to_vec();
        let row_number = *row_number;
        (*id, StoredRow { row_number, fields })
    };
    let expected: Table = expected.iter().map(row).collect();
    for relation in [Relation::Table, Relation::View] {
        let found = all(fixture, relation).await?;
        ensure!(
            found == expected,
            "{relation:?}: expected {expected:?}, found {found:?}"
        );
    }
    Ok(())
}

/// Checks how many rows of an upload were inserted, updated, duplicate and rejected by the table.
pub(super) async fn check_figures(
    store: &dyn Store,
    id: UploadId,
    expected: [u64; 4],
) -> Result<()> {
    let upload = find(store, id).await?;
    let found = [
        upload.rows_inserted,
        upload.rows_updated,
        upload.rows_duplicate,
        upload.rows_violating,
    ];
    let expected = expected.map(Some);
    ensure!(found == expected, "expected {expected:?}, found {found:?}");
    Ok(())
}

/// Checks the rejected, updated and duplicate rows of each batch.
async fn check_ledger(store: &dyn Store, id: UploadId, expected: &[[u32; 3]]) -> Result<()> {
    let ledger = store.ledger(first(id)).await?;
    let counts = ledger.iter();
    let counts = counts.map(|entry| [entry.rejected, entry.updated, entry.duplicate]);
    ensure!(counts.eq(expected.iter().copied()), "{ledger:?}");
    Ok(())
}

pub(crate) async fn an_update_replaces_the_rows_that_have_the_same_key<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let a = ("a", Some("1"), Some("x"));
    let c = ("c", Some("3"), None);
    let before = [a, ("b", Some("2"), Some("y")), c];
    let old = merge(store, Mode::Update, &before).await?;
    let (b, d) = (("b", Some("2"), Some("z")), ("d", Some("2"), None));
    // The first row is the same as before. So is the last one of `c`.
    let given = [a, b, ("d", Some("1"), None), ("c", Some("9"), None), c, d];
    let id = merge(store, Mode::Update, &given).await?;
    let expected = [(old, 1, a), (id, 2, b), (old, 3, c), (id, 6, d)];
    check_table(fixture, &expected).await?;
    check_figures(store, id, [1, 1, 4, 0]).await?;
    check_ledger(store, id, &[[0, 1, 1], [0, 0, 2], [0, 0, 1]]).await?;
    check_status(store, id, Status::Completed).await
}

pub(crate) async fn an_ignored_row_leaves_the_table_as_it_is<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let a = ("a", Some("1"), Some("x"));
    let old = merge(store, Mode::Ignore, &[a]).await?;
    let (b, c) = (("b", Some("1"), None), ("c", Some("3"), None));
    let given = [("a", Some("9"), None), b, ("b", Some("2"), None), c];
    let id = merge(store, Mode::Ignore, &given).await?;
    check_table(fixture, &[(old, 1, a), (id, 2, b), (id, 4, c)]).await?;
    check_figures(store, id, [2, 0, 2, 0]).await?;
    check_ledger(store, id, &[[0, 0, 1], [0, 0, 1]]).await
}

pub(crate) async fn an_atomic_upload_appends_its_rows_at_its_end<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let (a, b, c) = (
        ("a", Some("1"), None),
        ("b", Some("2"), None),
        ("c", Some("3"), None),
    );
    let old = merge(store, Mode::Append, &[a]).await?;
    // A repeated key violates the constraint of the key, in the table and in the file.
    let given = [b, ("a", Some("9"), None), ("b", Some("9"), None), c];
    let id = merge(store, Mode::Append, &given).await?;
    check_table(fixture, &[(old, 1, a), (id, 1, b), (id, 4, c)]).await?;
    check_figures(store, id, [2, 0, 0, 2]).await?;
    check_ledger(store, id, &[[1, 0, 0], [1, 0, 0]]).await?;
    let rejected = store.rejected_page(id, 0).await?;
    let codes = rejected.iter().map(|row| (row.row, row.code.as_str()));
    ensure!(
        codes.eq([(2, "unique_violation"), (3, "unique_violation")]),
        "{rejected:?}"
    );
    check_status(store, id, Status::Partial).await
}

pub(crate) async fn an_empty_text_differs_from_null_in_a_merge<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let row = |sku, note| (sku, Some("1"), note);
    let before = [row("a", None), row("b", Some("")), row("c", None)];
    let old = merge(store, Mode::Update, &before).await?;
    let after = [row("a", Some("")), row("b", None), row("c", None)];
    let id = merge(store, Mode::Update, &after).await?;
    let expected = [(id, 1, after[0]), (id, 2, after[1]), (old, 3, after[2])];
    check_table(fixture, &expected).await?;
    check_figures(store, id, [0, 2, 1, 0]).await
}

pub(crate) async fn a_column_that_the_file_lacks_keeps_its_values<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let a = ("a", Some("1"), Some("x"));
    let old = merge(store, Mode::Update, &[a, ("b", Some("2"), Some("y"))]).await?;
    let dataset = UploadDataset {
        missing: vec!["note".to_owned()],
        sources: vec![Some(0), Some(1), None],
        ..merged(Mode::Update)?
    };
    let given = [("a", "1"), ("b", "7"), ("c", "3")];
    let given = given.map(|(sku, stock)| (sku, Some(stock), None));
    let id = send(store, dataset, &given).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    let b = ("b", Some("7"), Some("y"));
    check_table(fixture, &[(old, 1, a), (id, 2, b), (id, 3, given[2])]).await?;
    check_figures(store, id, [1, 1, 1, 0]).await
}

pub(crate) async fn a_merge_rejects_rows_that_violate_a_constraint<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let a = ("a", Some("1"), Some("x"));
    let old = merge(store, Mode::Update, &[a]).await?;
    let (c, d) = (("c", Some("3"), None), ("d", Some("4"), None));
    // The first row would replace another one, and the second one would be inserted.
    let given = [("a", None, Some("n")), ("b", None, None), c, d];
    let id = merge(store, Mode::Update, &given).await?;
    check_table(fixture, &[(old, 1, a), (id, 3, c), (id, 4, d)]).await?;
    check_figures(store, id, [2, 0, 0, 2]).await?;
    check_ledger(store, id, &[[2, 0, 0], [0, 0, 0]]).await?;
    check_status(store, id, Status::Partial).await?;
    let rejected = store.rejected_page(id, 0).await?;
    ensure!(rejected.len() == 2, "{rejected:?}");
    for (row, (number, fields)) in rejected
        .iter()
        .zip([(1, ["a", "", "n"]), (2, ["b", "", ""])])
    {
        ensure!(row.row == number, "{row:?}");
        ensure!((row.line, row.offset) == position(number), "{row:?}");
        ensure!(row.code == "not_null_violation", "{row:?}");
        ensure!(row.column.as_deref() == Some("Stock"), "{row:?}");
        let fields = fields.map(String::from).to_vec();
        ensure!(row.fields.as_ref() == Some(&fields), "{row:?}");
    }
    Ok(())
}

pub(crate) async fn a_replaced_row_is_no_longer_read_with_its_upload<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let (a, b) = (("a", Some("1"), None), ("b", Some("2"), None));
    let by_batches = send(store, appended()?, &[a, b]).await?;
    ensure!(store.complete(first(by_batches), 0).await? == Completed::Yes);
    let by_merge = merge(store, Mode::Update, &[("c", Some("3"), None), b]).await?;
    let given = [("a", Some("9"), None), ("c", Some("9"), None)];
    let id = merge(store, Mode::Update, &given).await?;
    for (id, expected) in [
        (by_batches, &[2][..]),
        (by_merge, &[][..]),
        (id, &[1, 2][..]),
    ] {
        let found = rows(store, id).await?.into_iter();
        let found: Vec<u64> = found.map(|row| row.row_number).collect();
        ensure!(found == expected, "expected {expected:?}, found {found:?}");
    }
    Ok(())
}
