//! What a case of the contract needs of an adapter.

use std::sync::Arc;

use anyhow::Result;
use carga_common::dataset::{DatasetKey, TypedColumn};
use carga_common::store::{Store, StoredRow};
use carga_common::upload::UploadId;

use crate::suite::Fixture;

/// A fixture with a store.
pub(super) trait StoreFixture: Fixture {
    /// Opens another handle on the store, as another process would.
    async fn open(&self) -> Result<Arc<dyn Store>>;

    /// How many rows of an upload are in the landing table, visible or not, counted without the
    /// adapter.
    async fn rows_in_table(&self, id: UploadId) -> Result<u64>;

    /// The rows of a dataset with their uploads, in the order of upload and row number, read
    /// without the adapter. A cell is the canonical text of its value.
    async fn typed_rows(
        &self,
        key: &DatasetKey,
        relation: Relation,
        columns: &[TypedColumn],
    ) -> Result<Vec<(UploadId, StoredRow)>>;

    /// The name of a dataset's table in SQL.
    fn table(key: &DatasetKey) -> String;

    /// The tables, views and indexes of the database with their columns, read without the adapter.
    async fn catalog(&self) -> Result<Vec<String>>;

    /// The rows of all tables as texts, and the catalog, read without the adapter.
    async fn contents(&self) -> Result<Vec<String>>;

    /// Statements after which each insertion of a row into a table takes longer than any case.
    fn slow_insertions(table: &str) -> [String; 2];

    /// Runs a statement without the adapter, and without the checks of the schema.
    async fn execute(&self, statement: &str) -> Result<()>;

    /// Columns of `uploads` whose type allows an invalid value: the column, the value in SQL, and
    /// the value as an error shows it.
    fn corrupt_values() -> &'static [(&'static str, &'static str, &'static str)];
}

/// A table or view of a dataset.
#[derive(Debug, Clone, Copy)]
pub(super) enum Relation {
    /// The table, which has all rows.
    Table,
    /// The view, which has the visible rows.
    View,
}
