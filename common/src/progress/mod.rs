//! The progress port: live counters for fast polling. Status, totals and errors come from the store
//! alone.
//!
//! # Promises
//!
//! - A batch that is reported twice counts once, and concurrent reports are exact.
//! - Counters never go down within an epoch, and a report for an older epoch changes nothing.
//! - Counters are *absent* if they are missing or older than the server's last restart. A report
//!   adds nothing to absent counters. The caller rebuilds them from the ledger.
//! - Readers see restored counters only when the whole snapshot is counted. Batches that are
//!   reported during a restore count once.
//! - A call fails with *unavailable* only if the server is away. Other errors concern one upload.
//! - Every key expires.

#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;
mod traced;

use std::fmt;

use async_trait::async_trait;

#[cfg(feature = "redis")]
pub use redis::{RedisProgress, RedisSettings};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteProgress, SqliteProgressSettings};

use crate::error::PortResult;
use crate::upload::UploadKey;

/// The counters of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Rows the API has read.
    pub rows_read: u64,
    /// Bytes of the file the API has received.
    pub bytes_received: u64,
    /// Rows the workers have stored.
    pub rows_stored: u64,
    /// Rows the workers have rejected, because they violate a constraint of the table.
    pub rows_rejected: u64,
    /// Batches the workers have stored.
    pub batches_stored: u64,
}

/// A report of one stored batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBatch {
    /// The batch's number, from 1.
    pub seq: u32,
    /// How many rows of the batch are in the table.
    pub rows: u32,
    /// How many rows of the batch violate a constraint of the table, and are rejected.
    pub rejected: u32,
}

/// The store's figures of an upload, to rebuild its counters.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The rows read, according to the store.
    pub rows_read: u64,
    /// The bytes received, according to the store.
    pub bytes_received: u64,
    /// Every batch in the ledger.
    pub stored: Vec<StoredBatch>,
}

/// Whether the counters of a report exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The counters exist or are being restored. If they belong to a newer epoch, the report
    /// changed nothing.
    Present,
    /// The counters are absent, and the report changed nothing.
    Absent,
}

/// Live counters. See the module for its promises.
#[async_trait]
pub trait ProgressStore: fmt::Debug + Send + Sync {
    /// Raises the rows read and the bytes received to these figures.
    async fn received(
        &self,
        upload: UploadKey,
        rows_read: u64,
        bytes_received: u64,
    ) -> PortResult<Presence>;

    /// Counts stored batches.
    async fn stored(&self, upload: UploadKey, batches: &[StoredBatch]) -> PortResult<Presence>;

    /// Creates absent counters from the snapshot, or raises existing ones to it.
    async fn restore(&self, upload: UploadKey, snapshot: &Snapshot) -> PortResult<()>;

    /// The counters, or `None` if they are absent or still being restored.
    async fn read(&self, upload: UploadKey) -> PortResult<Option<Counters>>;

    /// Proves that the counters can be reached.
    async fn ping(&self) -> PortResult<()>;

    /// Closes all connections.
    async fn close(&self);
}
