//! Reading stored rows.
//!
//! # Promises
//!
//! - A cell is read back unchanged, and an empty cell differs from a null.
//! - Rows are read in the order of the file, even if they were stored in another order.
//! - The rows of an upload are visible only after it ended well, as `completed` or `partial`.
//! - A page has the rows of whole batches, and of several batches only if they are small.
//! - If rows are removed while they are being read, the next page is a *conflict*. A reader never
//!   takes the removal for the end of the rows.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::PortResult;
use crate::upload::UploadId;

/// A stored row.
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
    /// The number of the last batch; the next page starts after it.
    pub last_seq: u32,
}

/// Reading stored rows. See the module for its promises.
#[async_trait]
pub trait RowStore: fmt::Debug + Send + Sync {
    /// The page of rows after batch number `after_seq`; 0 starts at the beginning. Returns `None`
    /// after the last page, and for an upload that did not end well. For an upload whose rows
    /// expired, every page is a *conflict*.
    async fn row_page(&self, id: UploadId, after_seq: u32) -> PortResult<Option<RowPage>>;
}

/// All rows of an upload, in order. They are read page by page, so that a slow reader holds no
/// connection and no transaction. The queries stop when the stream is dropped.
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
