//! The progress port: live counters for fast polling. Never the truth: status, totals and errors are the store's.
//!
//! # Promises
//!
//! - A batch counted twice changes nothing; concurrent adds are exact.
//! - Counters never go backwards within an epoch; a report of an older epoch changes nothing.
//! - Counters that are not there, or that an earlier life of the server left behind, are told as *absent*, and nothing is
//!   added to them: the caller rebuilds them from the ledger.
//! - Every key has an expiry, always.

#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::fmt;

use async_trait::async_trait;

#[cfg(feature = "redis")]
pub use redis::{RedisProgress, RedisSettings};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteProgress, SqliteProgressSettings};

use crate::error::PortResult;
use crate::upload::UploadKey;

/// Figures of an upload that change all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Rows the API has read.
    pub rows_read: u64,
    /// Bytes of the file the API has received.
    pub bytes_received: u64,
    /// Rows the workers have stored.
    pub rows_stored: u64,
    /// Batches the workers have stored.
    pub batches_stored: u64,
}

/// A stored batch, as progress counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBatch {
    /// The batch's number, from 1.
    pub seq: u32,
    /// How many rows it has.
    pub rows: u32,
}

/// What the store knows of an upload: enough to make its counters anew.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Rows read, as far as they are on record.
    pub rows_read: u64,
    /// Bytes received, as far as they are on record.
    pub bytes_received: u64,
    /// Every batch in the ledger.
    pub stored: Vec<StoredBatch>,
}

/// Whether the counters were there to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// They were (or belong to a newer epoch, which an old report must not touch).
    Present,
    /// They were not; nothing was added.
    Absent,
}

/// Live counters. See the module for its promises.
#[async_trait]
pub trait ProgressStore: fmt::Debug + Send + Sync {
    /// Raises what the API has read and received to these figures.
    async fn received(
        &self,
        upload: UploadKey,
        rows_read: u64,
        bytes_received: u64,
    ) -> PortResult<Presence>;

    /// Counts batches that are stored.
    async fn stored(&self, upload: UploadKey, batches: &[StoredBatch]) -> PortResult<Presence>;

    /// Makes the counters where they are absent, and adds what they lack of the snapshot where they are not.
    async fn restore(&self, upload: UploadKey, snapshot: &Snapshot) -> PortResult<()>;

    /// The counters, or none when they are absent.
    async fn read(&self, upload: UploadKey) -> PortResult<Option<Counters>>;

    /// Proves that it can be reached.
    async fn ping(&self) -> PortResult<()>;

    /// Says goodbye.
    async fn close(&self);
}
