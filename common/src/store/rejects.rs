//! Rejected rows with their reasons, as the intake writes them.
//!
//! # Promises
//!
//! - A rejected row is kept once, with everything that is known of it.
//! - A rejected row stays when its upload fails or is undone: it is the reason for that.

use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::error::PortResult;
use crate::rejects::RejectedRow;
use crate::upload::{UploadId, UploadKey};

/// Rejected rows. See the module for its promises.
#[async_trait]
pub trait RejectStore: fmt::Debug + Send + Sync {
    /// Keeps rejected rows of a receiving upload. Rows that the store has already stay as they are.
    /// False when the upload has ended.
    async fn reject(&self, key: UploadKey, rows: &[RejectedRow]) -> PortResult<bool>;

    /// The rejected rows of an upload in order, whatever its status.
    fn rejected(&self, id: UploadId) -> BoxStream<'_, PortResult<RejectedRow>>;
}
