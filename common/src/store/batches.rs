//! The ledger and the rows, as workers write them.
//!
//! # Promises
//!
//! - `store` is one transaction for a group of batches: their ledger entries and all their rows, or
//!   nothing.
//! - A batch is stored once. A replay adds nothing and is reported as a replay. The ledger keeps
//!   the object of the first call, even if the replay was archived with another compression.
//! - A row of a dataset that violates a constraint of the table is rejected, in the transaction of
//!   its batch, and the other rows of the batch are stored. The ledger counts the rejected rows.
//! - Rows of an upload that is merged at its end are staged. Until then, the table of their dataset
//!   does not change. A message without the rows' origins is *invalid* for such an upload.
//! - The fence: after an upload has failed, none of its batches is stored. This includes a batch
//!   whose transaction is already running.
//! - If the status of an upload is about to change, its batches are not stored, but reported as
//!   *locked*. The call does not wait for the change, and stores the batches of the other uploads.
//! - A batch that was parked and then stored is listed once, as stored.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;

use crate::archive::ArchiveCompression;
use crate::batch::{Batch, BatchId};
use crate::error::PortResult;
use crate::progress::{Counters, Snapshot};
use crate::upload::UploadKey;

/// A batch whose object is in the archive.
#[derive(Debug, Clone)]
pub struct ArchivedBatch {
    /// The decoded message.
    pub batch: Batch,
    /// The compression of the object.
    pub archive_compression: ArchiveCompression,
    /// The size of the object as it is stored.
    pub archive_bytes: u64,
    /// CRC-32 (IEEE) of the object as it is stored.
    pub archive_crc32: u32,
    /// The size of the object without compression; `archive_bytes` if it is not compressed.
    pub object_bytes: u64,
}

/// The outcome of storing one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreOutcome {
    /// This call stored its rows.
    Stored {
        /// The rows among them that violate a constraint of the table, and are rejected.
        rejected: u32,
    },
    /// An earlier call stored its rows.
    Replay {
        /// The rows that the earlier call rejected.
        rejected: u32,
    },
    /// Nothing was stored: the upload has ended without this batch, or is in another epoch.
    Fenced,
    /// Nothing was stored: the store has no upload with this id.
    UnknownUpload,
    /// Nothing was stored: the upload has a status that this build does not know. A newer build
    /// knows it.
    UnknownStatus,
    /// Nothing was stored: the status of the upload is about to change. Store the batch again after
    /// a pause.
    Locked,
}

/// An entry of the ledger.
#[derive(Debug, Clone, Copy)]
pub struct LedgerEntry {
    /// The batch's number, from 1.
    pub seq: u32,
    /// The `row_number` of the first row; 0 if the batch has no rows.
    pub first_row: u64,
    /// How many rows the batch has.
    pub rows: u32,
    /// How many of these rows violate a constraint of the table, and are rejected.
    pub rejected: u32,
    /// How many of these rows replaced others with their key.
    pub updated: u32,
    /// How many of these rows changed nothing.
    pub duplicate: u32,
    /// The compression of the archived object.
    pub archive_compression: ArchiveCompression,
    /// The size of the archived object as it is stored.
    pub archive_bytes: u64,
    /// CRC-32 (IEEE) of the archived object as it is stored.
    pub archive_crc32: u32,
    /// The size of the archived object without compression, by which pages of rows are bounded.
    pub object_bytes: u64,
}

/// The status of a batch that is stored or was parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BatchStatus {
    /// Its rows are stored, or staged until the upload ends.
    Stored,
    /// It is a dead letter that is being retried.
    Retrying,
    /// It is a dead letter.
    Dead,
}

impl BatchStatus {
    /// All statuses.
    pub const ALL: [Self; 3] = [Self::Stored, Self::Retrying, Self::Dead];

    /// The name in the API and in queries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Retrying => "retrying",
            Self::Dead => "dead",
        }
    }
}

/// The name of no status of a batch.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a status of a batch; use one of stored, retrying, dead")]
pub struct UnknownBatchStatus(String);

impl FromStr for BatchStatus {
    type Err = UnknownBatchStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|status| status.name() == text);
        found.ok_or_else(|| UnknownBatchStatus(text.to_owned()))
    }
}

/// A batch that is stored or was parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchRecord {
    /// The number of the batch in the file, from 1.
    pub seq: u32,
    /// Whether it is stored.
    pub status: BatchStatus,
    /// The number of its first row; 0 if it has no rows, and `None` if its message cannot be read.
    pub first_row: Option<u64>,
    /// How many rows it has; `None` if its message cannot be read.
    pub rows: Option<u32>,
    /// How many of these rows violate a constraint of the table, and are rejected.
    pub rejected: u32,
    /// How often it was tried before it became a dead letter; `None` if it is stored.
    pub attempts: Option<u32>,
    /// Why it became a dead letter; `None` if it is stored.
    pub reason: Option<String>,
    /// When it was stored, became a dead letter or was retried.
    pub at: Timestamp,
}

/// Which batches of an upload are listed.
#[derive(Debug, Clone, Copy)]
pub struct BatchQuery {
    /// Only batches with this status.
    pub status: Option<BatchStatus>,
    /// Only batches with a greater number.
    pub after: u32,
    /// The most batches.
    pub limit: u32,
}

/// The ledger and the rows. See the module for its promises.
#[async_trait]
pub trait BatchStore: fmt::Debug + Send + Sync {
    /// Whether a batch of this upload and epoch can still be stored. This check only avoids
    /// archiving a batch in vain; the fence in `store` decides.
    async fn admits(&self, id: BatchId) -> PortResult<bool>;

    /// Stores a group of batches in one transaction. Returns one outcome per batch, in the order of
    /// the group.
    async fn store(&self, group: &[ArchivedBatch]) -> PortResult<Vec<StoreOutcome>>;

    /// The ledger of an upload, in the order of the batch numbers.
    async fn ledger(&self, key: UploadKey) -> PortResult<Vec<LedgerEntry>>;

    /// Lists the batches of an upload that are stored or were parked, in the order of their
    /// numbers.
    async fn batches(&self, key: UploadKey, query: BatchQuery) -> PortResult<Vec<BatchRecord>>;

    /// The figures from which live counters can be rebuilt.
    async fn progress(&self, key: UploadKey) -> PortResult<Snapshot>;

    /// The figures that live counters would show. The database adds them up, so that a poll need
    /// not fetch the whole ledger of a long file.
    async fn sums(&self, key: UploadKey) -> PortResult<Counters>;
}
