//! Rejected rows with their reasons, as the intake writes them.
//!
//! # Promises
//!
//! - A rejected row is kept once, with everything that is known of it.
//! - A rejected row stays when its upload fails or is undone: it is the reason for that.
//! - A page of rejected rows is bounded in bytes, whatever their size.

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
    /// Keeps rejected rows of a receiving upload. Rows that the store has already stay as they are.
    /// False when the upload has ended.
    async fn reject(&self, key: UploadKey, rows: &[RejectedRow]) -> PortResult<bool>;

    /// The next rejected rows after number `after_row`, in order, whatever the upload's status;
    /// from the start with 0. Empty when there are no more.
    async fn rejected_page(&self, id: UploadId, after_row: u64) -> PortResult<Vec<RejectedRow>>;
}

/// All rejected rows of an upload in order, page by page: a slow reader holds no connection and no
/// transaction.
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
