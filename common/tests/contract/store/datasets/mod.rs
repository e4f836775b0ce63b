//! The promises of `DatasetStore`, and those of the other subjects for uploads of a dataset.

pub(super) mod definitions;
pub(super) mod merging;
pub(super) mod merging_with_removals;
pub(super) mod reject_limits;
pub(super) mod rows;
pub(super) mod staging;
pub(super) mod undoing;
pub(super) mod use_by_uploads;
mod values;
pub(super) mod violations;

use anyhow::{Result, ensure};
use carga_common::dataset::{DatasetKey, Definition};
use carga_common::store::{ArchivedBatch, NewUpload, PutOutcome, Store, StoredRow};
use carga_common::tenant::Tenant;
use carga_common::upload::{RejectLimit, UploadDataset, UploadId};
use serde_json::{Value, json};

use super::{Relation, StoreFixture, end_well, new_upload, store_new};
use crate::sample;

/// The cells of a typed row: canonical texts, or NULL.
pub(super) type Cells = Vec<Option<String>>;

/// A dataset of the tenant `default`.
pub(super) fn key(name: &str) -> Result<DatasetKey> {
    key_of(Tenant::default(), name)
}

pub(super) fn key_of(tenant: Tenant, name: &str) -> Result<DatasetKey> {
    Ok(DatasetKey::new(tenant, name.parse()?))
}

/// A definition with a list of columns, as in requests.
fn definition(columns: &Value) -> Result<Definition> {
    let json = json!({ "columns": columns }).to_string();
    Ok(Definition::from_json(json.as_bytes())?)
}

/// The definition whose rows are the sample's rows.
pub(super) fn sample_definition() -> Result<Definition> {
    definition(&json!([
        { "name": "number", "type": "integer", "required": true },
        { "name": "name", "type": "text" },
    ]))
}

/// Creates a dataset.
pub(super) async fn create(
    store: &dyn Store,
    key: &DatasetKey,
    definition: &Definition,
) -> Result<()> {
    let outcome = store.put_dataset(key, definition).await?;
    ensure!(outcome == PutOutcome::Created, "{key}: {outcome:?}");
    Ok(())
}

/// An upload of a dataset that has this definition.
pub(super) fn new_typed_upload(
    id: UploadId,
    key: &DatasetKey,
    definition: &Definition,
) -> NewUpload {
    let dataset = UploadDataset {
        name: key.name.clone(),
        tenant: key.tenant.clone(),
        columns: definition.typed_columns(),
        missing: vec!["name".to_owned()],
        ignored: vec!["a column of the file".to_owned()],
        sources: vec![None; definition.columns.len()],
        reject_limit: RejectLimit::default(),
        merge: None,
        table: None,
    };
    NewUpload {
        tenant: key.tenant.clone(),
        dataset: Some(dataset),
        ..new_upload(id, vec!["a column of the file".to_owned()])
    }
}

/// Creates an upload of a dataset that has this definition.
pub(super) async fn begin(
    store: &dyn Store,
    key: &DatasetKey,
    definition: &Definition,
) -> Result<UploadId> {
    let id = UploadId::generate();
    let new = new_typed_upload(id, key, definition);
    store.create(&new).await?;
    Ok(id)
}

/// Batches of up to 1,000 rows each.
pub(super) fn batches(
    id: UploadId,
    definition: &Definition,
    rows: &[Cells],
) -> Result<Vec<ArchivedBatch>> {
    let columns = definition.typed_columns().into_iter();
    let columns: Vec<String> = columns.map(|column| column.name).collect();
    sample::typed_batches_of(id, &columns, rows.to_vec(), 1000)
}

/// The first sample rows.
pub(super) fn sample_cells(count: u64) -> Vec<Cells> {
    let cells = |number| sample::cells(number).into_iter().map(Some).collect();
    (1..=count).map(cells).collect()
}

/// Creates an upload of a dataset, stores its rows and completes it.
pub(super) async fn complete(
    store: &dyn Store,
    key: &DatasetKey,
    definition: &Definition,
    rows: &[Cells],
) -> Result<UploadId> {
    let id = begin(store, key, definition).await?;
    let batches = batches(id, definition, rows)?;
    store_new(store, &batches).await?;
    end_well(store, id, batches.len() as u32, rows.len() as u64).await?;
    Ok(id)
}

/// The rows of one upload in the table or view of a dataset, with the columns of the definition.
/// Checks that they are numbered without a gap.
pub(super) async fn stored<F: StoreFixture>(
    fixture: &F,
    relation: Relation,
    (key, definition): (&DatasetKey, &Definition),
    id: UploadId,
) -> Result<Vec<Cells>> {
    let columns = definition.typed_columns();
    let rows = fixture.typed_rows(key, relation, &columns).await?;
    let rows = rows.into_iter().filter(|(upload, _)| *upload == id);
    let rows: Vec<StoredRow> = rows.map(|(_, row)| row).collect();
    let numbers = rows.iter().map(|row| row.row_number);
    ensure!(numbers.eq(1..=rows.len() as u64), "{rows:?}");
    Ok(rows.into_iter().map(|row| row.fields).collect())
}

/// The number of rows of all uploads in the table or view of a dataset.
pub(super) async fn count<F: StoreFixture>(
    fixture: &F,
    relation: Relation,
    key: &DatasetKey,
) -> Result<usize> {
    Ok(fixture.typed_rows(key, relation, &[]).await?.len())
}
