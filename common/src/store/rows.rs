//! Rows as they are read back.
//!
//! # Promises
//!
//! - A cell is read back as it was stored: an empty cell is not a null, and no text is changed.
//! - Rows come in the order of the file, whatever order they were stored in.
//! - Only an upload that ended well shows its rows.
//! - A page holds the rows of whole batches, and more than one batch only while they are small.
//! - Rows that are removed while they are read end the reading with a *conflict*, never early.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};

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

/// The rows of some consecutive batches.
#[derive(Debug, Clone)]
pub struct RowPage {
    /// The rows, in the order of the file.
    pub rows: Vec<StoredRow>,
    /// The number of the last batch, from which the next page goes on.
    pub last_seq: u32,
}

/// Rows as they are read back. See the module for its promises.
#[async_trait]
pub trait RowStore: fmt::Debug + Send + Sync {
    /// The rows of the batches after number `after_seq`, as many as make a page; from the start
    /// with 0. `None` when there are no more, and for an upload that has not ended well.
    async fn row_page(&self, id: UploadId, after_seq: u32) -> PortResult<Option<RowPage>>;
}

/// All rows of an upload in order, page by page: a slow reader holds no connection and no
/// transaction, and one that stops reading stops the queries.
pub fn stored_rows(
    store: Arc<dyn RowStore>,
    id: UploadId,
) -> BoxStream<'static, PortResult<StoredRow>> {
    let pages = stream::try_unfold((store, 0), move |(store, after_seq)| async move {
        let page = store.row_page(id, after_seq).await?;
        Ok(page.map(|RowPage { rows, last_seq }| (rows, (store, last_seq))))
    });
    let rows = pages.map_ok(|rows| stream::iter(rows).map(Ok));
    rows.try_flatten().boxed()
}
