//! Rejected rows with their reasons. The intake writes those that it rejects. The store writes
//! those that violate a constraint of a dataset's table, together with their batch.
//!
//! # Promises
//!
//! - A rejected row is kept once, with all its fields.
//! - Rejected rows are kept when their upload fails or is undone, since they may be the reason.
//! - A page of rejected rows is bounded in bytes, however large the rows are.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::PortResult;
use crate::rejects::RejectedRow;
use crate::upload::{UploadId, UploadKey};

/// Rejected rows. See the module for its promises.
#[async_trait]
pub trait RejectStore: fmt::Debug + Send + Sync {
    /// Stores rejected rows of a receiving upload. Rejected rows that are already stored do not
    /// change. Returns false if the upload is not receiving any more.
    async fn reject(&self, key: UploadKey, rows: &[RejectedRow]) -> PortResult<bool>;

    /// The page of rejected rows after number `after_row`, in order; 0 starts at the beginning. The
    /// page is empty after the last rejected row. The status of the upload does not matter.
    async fn rejected_page(&self, id: UploadId, after_row: u64) -> PortResult<Vec<RejectedRow>>;
}

/// All rejected rows of an upload, in order. They are read page by page, so that a slow reader
/// holds no connection and no transaction.
pub fn rejected_rows(
    store: Arc<dyn RejectStore>,
    id: UploadId,
) -> BoxStream<'static, PortResult<RejectedRow>> {
    let pages = stream::try_unfold((store, 0), move |(store, after_row)| async move {
        let page = store.rejected_page(id, after_row).await?;
        let last = page.last().map(|rejected| rejected.row);
        Ok(last.map(|last| (page, (store, last))))
    });
    let rows = pages.map_ok(|rows| stream::iter(rows).map(Ok));
    rows.try_flatten().boxed()
}
