//! Rows as they are read back.
//!
//! # Promises
//!
//! - A cell is read back as it was stored: an empty cell is not a null, and no text is changed.
//! - Rows come in the order of the file, whatever order they were stored in.
//! - Only an upload that ended well shows its rows.

use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::error::PortResult;
use crate::upload::UploadId;

/// A row as it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// The record's number in the file, from 1.
    pub row_number: u64,
    /// The cells in the order of the upload's columns.
    pub fields: Vec<Option<String>>,
}

/// Rows as they are read back. See the module for its promises.
#[async_trait]
pub trait RowStore: fmt::Debug + Send + Sync {
    /// The rows of an upload in order; none of an upload that has not ended well.
    fn rows(&self, id: UploadId) -> BoxStream<'_, PortResult<StoredRow>>;
}
