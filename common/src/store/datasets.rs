//! Datasets and their tables.
//!
//! # Promises
//!
//! - A dataset is read back as it was put.
//! - A dataset belongs to one tenant. Datasets of two tenants with the same name have different
//!   definitions, tables, rows and uploads.
//! - A definition and its table change together, or both stay as they are.
//! - Putting the same definition again changes nothing, not even the time of the last change.
//! - A change that the table cannot take is *refused* with its reason, and changes nothing.
//! - A dataset may name a table of the user instead of a table of its own. A table that does not
//!   take the rows of the dataset is *unfit*, and nothing changes. A table of the user is never
//!   created, altered or dropped.
//! - Of several concurrent callers that put a new dataset, exactly one creates it.
//! - A dataset whose uploads are receiving, are processing, keep rows, or have rows that must still
//!   be removed is not deleted. Expired uploads that were merged keep rows as long as the table has
//!   any. Uploads that have ended do not prevent the deletion of a dataset with a table of the
//!   user. Deleting a dataset deletes its own table and its view.
//! - A deletion and a new upload of the same dataset exclude each other. Either the dataset is in
//!   use, or the creation of the upload is *not found*.
//! - Consecutive pages of the list neither skip nor repeat a dataset. A page is bounded in bytes,
//!   however large the definitions are.
//! - A row is stored if it has at most [`DatasetStore::max_row_bytes`].

use std::fmt;

use async_trait::async_trait;

use crate::dataset::{Dataset, DatasetKey, DatasetName, Definition, TableFault};
use crate::error::PortResult;
use crate::tenant::Tenant;

/// The outcome of putting a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutOutcome {
    /// The dataset is new, and its own table has been created.
    Created,
    /// The dataset has this definition already.
    Unchanged,
    /// The definition has been replaced, and its own table has the columns that were added.
    Changed,
    /// The table cannot take the change, for this reason. Nothing has changed.
    Refused(String),
    /// The table of the user does not take the rows of the dataset. Nothing has changed.
    Unfit(TableFault),
}

/// The outcome of deleting a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// The dataset, its own table and its view are gone.
    Deleted,
    /// The dataset does not exist.
    Missing,
    /// Some uploads need the table. Nothing has changed.
    InUse {
        /// The number of these uploads.
        uploads: u64,
    },
}

/// Datasets and their tables. See the module for its promises.
#[async_trait]
pub trait DatasetStore: fmt::Debug + Send + Sync {
    /// Creates a dataset, or replaces its definition. The record and the table change in one
    /// transaction. If others keep the table locked, the call is *unavailable* after a short wait.
    async fn put_dataset(
        &self,
        key: &DatasetKey,
        definition: &Definition,
    ) -> PortResult<PutOutcome>;

    /// One dataset; `None` if the tenant has none with this name.
    async fn dataset(&self, key: &DatasetKey) -> PortResult<Option<Dataset>>;

    /// Datasets of a tenant by name, in the order of the names' bytes, from the first one behind
    /// `after`. Large definitions make a page shorter than the limit. Only the page behind the last
    /// dataset is empty.
    async fn datasets(
        &self,
        tenant: &Tenant,
        after: Option<&DatasetName>,
        limit: u32,
    ) -> PortResult<Vec<Dataset>>;

    /// Deletes a dataset that no upload needs. The records of its uploads stay.
    async fn delete_dataset(&self, key: &DatasetKey) -> PortResult<DeleteOutcome>;

    /// Checks that the table of the user takes rows with these columns of the definition. Called
    /// only for definitions with a table of the user, before the rows of a file are read.
    async fn check_table(
        &self,
        definition: &Definition,
        written: &[&str],
    ) -> PortResult<Result<(), TableFault>>;

    /// The most bytes of a row of a dataset, as [`RowWidth`](crate::typed::RowWidth) counts them;
    /// `None` if there is no limit.
    fn max_row_bytes(&self) -> Option<usize> {
        None
    }
}
