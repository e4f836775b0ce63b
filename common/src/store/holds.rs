//! The uploads that workers have batches of, and the uploads that miss batches.
//!
//! A batch is lost if its message is gone although the batch is not stored: after a broker lost its
//! disk, or after a failover of Postgres lost commits that were acknowledged. Such an upload would
//! wait for ever.
//!
//! # Promises
//!
//! - An upload misses batches only if it is sealed, and its ledger and its dead letters have fewer
//!   batches than the seal names. No dead letter waits for the publishing of its retry. For the
//!   whole `quiet` time, no batch of it was stored, and no worker recorded a hold. Workers record
//!   their holds once per sweep.
//! - `fail_lost` checks all of this again in the transaction that ends the upload.
//! - If a missing batch is that of a retry, `fail_lost` makes it a dead letter again instead, and
//!   the upload does not fail for it.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::PortResult;
use crate::upload::{UploadId, UploadKey};

/// The holds of workers, and missing batches. See the module for its promises.
#[async_trait]
pub trait HoldStore: fmt::Debug + Send + Sync {
    /// Records that a worker has batches of these uploads in hand now. Also forgets the holds of
    /// uploads that have ended.
    async fn hold(&self, uploads: &[UploadId]) -> PortResult<()>;

    /// Lists the uploads that have missed batches for at least the `quiet` time, the oldest first.
    async fn quiet_uploads(&self, quiet: Duration) -> PortResult<Vec<UploadKey>>;

    /// Records that exactly these uploads miss batches, so that their records show it.
    async fn mark_missing(&self, uploads: &[UploadKey]) -> PortResult<()>;

    /// Ends an upload as `failed`, with the failure `batches_lost`, if it still misses batches
    /// after the `quiet` time. Returns whether this call ended it; everything else is as in
    /// [`fail`](super::UploadStore::fail).
    async fn fail_lost(&self, key: UploadKey, quiet: Duration) -> PortResult<bool>;
}
