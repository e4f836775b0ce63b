//! The store port: the system of record.
//!
//! # Promises
//!
//! - `store` is one transaction for a group of batches: their ledger entries and all their rows, or nothing.
//! - A batch is stored once. A replay adds nothing and says so.
//! - The fence: once an upload has failed, no batch of it is stored any more, not even one that is on its way.
//! - An upload ends once. Of two that try, one is told that it did.
//! - An upload completes only when every batch is in the ledger, and the ledger's rows and the rejected ones are the rows that
//!   were read; `partial` if any was rejected.
//! - A rejected row is kept once, with all that is known of it, and stays whatever becomes of its upload.
//! - What is read back is what was stored, cell by cell: an empty cell is no NULL, and no text is changed.
//! - Removing rows starts with the status, so they vanish from view at once, and can be resumed at any point.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod rules;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

#[cfg(feature = "postgres")]
pub use postgres::{PostgresSettings, PostgresStore};
// For `intake/benches/core.rs` alone.
#[cfg(feature = "postgres")]
#[doc(hidden)]
pub use postgres::copy;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteStore, SqliteStoreSettings};

use crate::batch::{Batch, BatchId};
use crate::error::PortResult;
use crate::progress::Snapshot;
use crate::rejects::RejectedRow;
use crate::upload::{Dialect, Failure, Status, Upload, UploadId};

/// An upload whose header has been accepted.
#[derive(Debug, Clone)]
pub struct NewUpload {
    /// Its id.
    pub id: UploadId,
    /// The client's name for the file.
    pub filename: Option<String>,
    /// How the file is read.
    pub dialect: Dialect,
    /// The header.
    pub columns: Vec<String>,
    /// File bytes announced.
    pub bytes_total: Option<u64>,
}

/// How far the removal of an upload's rows has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Nothing is left.
    Done,
    /// There are more.
    More,
    /// Another process is removing them.
    Busy,
}

/// What is known of an upload when its last byte has been read.
#[derive(Debug, Clone, Copy)]
pub struct Seal {
    /// Rows read, with those that were rejected.
    pub rows: u64,
    /// Rows rejected, all of which the store has.
    pub rejected: u64,
    /// Lines with nothing on them.
    pub blank_lines: u64,
    /// Batches published and confirmed.
    pub batches: u32,
    /// Bytes received.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
    /// An earlier upload of the same content.
    pub duplicate_of: Option<UploadId>,
}

/// A sign of life of a receiving upload, with its figures.
#[derive(Debug, Clone, Copy)]
pub struct Heartbeat {
    /// The upload.
    pub upload: UploadId,
    /// Rows read so far.
    pub rows_read: u64,
    /// Of these, rows that were rejected and that the store has.
    pub rows_rejected: u64,
    /// Bytes received so far.
    pub bytes_received: u64,
}

/// A batch whose object is in the archive.
#[derive(Debug, Clone)]
pub struct ArchivedBatch {
    /// The batch.
    pub batch: Batch,
    /// The size of its object.
    pub archive_bytes: u64,
    /// CRC-32 (IEEE) of its object.
    pub archive_crc32: u32,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreOutcome {
    /// Its rows are in.
    Stored,
    /// They were in already.
    Replay,
    /// Its upload has ended without it, or is in another epoch: nothing to store.
    Fenced,
    /// There is no such upload.
    UnknownUpload,
}

/// An entry of the ledger.
#[derive(Debug, Clone, Copy)]
pub struct LedgerEntry {
    /// The batch's number.
    pub seq: u32,
    /// `row_number` of its first row.
    pub first_row: u64,
    /// How many rows it has.
    pub rows: u32,
    /// The size of its object.
    pub archive_bytes: u64,
    /// CRC-32 (IEEE) of its object.
    pub archive_crc32: u32,
}

/// Whether an upload can end.
#[derive(Debug, Clone)]
pub enum Completion {
    /// Every batch is stored.
    Ready(Box<Upload>),
    /// Something is missing, or it is not sealed.
    Incomplete,
    /// It has ended already.
    Ended,
    /// Every batch is stored and yet the rows are not those that were read. It must not complete.
    Mismatch {
        /// The rows that were read.
        read: u64,
        /// The rows in the ledger.
        stored: u64,
        /// The rows that were rejected.
        rejected: u64,
    },
}

/// A dead letter on its way into the store.
#[derive(Debug, Clone)]
pub struct DeadBatch {
    /// The batch, as far as it could be told.
    pub id: Option<BatchId>,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it died.
    pub reason: String,
    /// The message.
    pub body: Bytes,
}

/// What parking a dead batch means for its upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parked {
    /// It is kept, and its upload cannot complete.
    Kept,
    /// A copy of a batch that is stored: there was nothing to keep.
    AlreadyStored,
}

/// A row as it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// Counts every record of the file, from 1.
    pub row_number: u64,
    /// Its cells in the order of the upload's columns.
    pub fields: Vec<Option<String>>,
}

/// Which uploads to list.
#[derive(Debug, Clone, Copy)]
pub struct UploadQuery {
    /// Only those with this status.
    pub status: Option<Status>,
    /// At most this many.
    pub limit: u32,
    /// Only those older than this one (by creation, then id).
    pub before: Option<(jiff::Timestamp, UploadId)>,
}

/// What the sweeper has to look at.
#[derive(Debug, Clone, Default)]
pub struct Leftovers {
    /// Receiving uploads without a sign of life.
    pub expired: Vec<(UploadId, i32)>,
    /// Sealed uploads that nobody has ended.
    pub unfinished: Vec<UploadId>,
    /// Ended uploads whose rows are still to be removed.
    pub to_remove: Vec<UploadId>,
    /// Failed uploads whose archive is still to be deleted.
    pub to_unarchive: Vec<UploadId>,
}

/// The system of record. See the module for its promises.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// Records a new upload as `receiving`, with its lease. *Conflict* when the id is taken.
    async fn create(&self, upload: &NewUpload) -> PortResult<Upload>;

    /// Renews leases and puts figures on record; figures never go down. Returns those whose lease was renewed: an upload that
    /// is missing has ended.
    async fn heartbeat(&self, beats: &[Heartbeat]) -> PortResult<Vec<UploadId>>;

    /// `receiving` → `processing`, with the totals. False when the upload has ended in the meantime.
    async fn seal(&self, id: UploadId, epoch: i32, seal: &Seal) -> PortResult<bool>;

    /// Ends an upload as `failed`. Returns whether this call ended it. When it returns, no batch of the upload is being
    /// stored or ever will be; its rows are out of sight and wait for `remove_rows`.
    async fn fail(
        &self,
        id: UploadId,
        epoch: i32,
        failure: &Failure,
        last: Option<Heartbeat>,
    ) -> PortResult<bool>;

    /// Ends an upload as `cancelled`, which is otherwise like `fail`.
    async fn cancel(&self, id: UploadId, epoch: i32) -> PortResult<bool>;

    /// Takes back an upload that ended well: `undone`, in the next epoch. Returns whether this call did it; its rows are out of
    /// sight then and wait for `remove_rows`.
    async fn undo(&self, id: UploadId, epoch: i32) -> PortResult<bool>;

    /// Keeps rejected rows of an upload that is received; those it has it keeps as they are. False when the upload has ended.
    async fn reject(&self, id: UploadId, epoch: i32, rows: &[RejectedRow]) -> PortResult<bool>;

    /// The rejected rows of an upload in order, whatever has become of it.
    fn rejected(&self, id: UploadId) -> BoxStream<'_, PortResult<RejectedRow>>;

    /// The latest other upload of this content that has its rows in place.
    async fn same_content(&self, sha256: [u8; 32], but: UploadId) -> PortResult<Option<UploadId>>;

    /// Removes rows of an upload that ended without keeping them, some at a time.
    async fn remove_rows(&self, id: UploadId) -> PortResult<Removal>;

    /// Notes that the archive of an upload without rows is gone. One that was undone just now is left over all the same: a
    /// worker may have been about to write into it.
    async fn archive_removed(&self, id: UploadId) -> PortResult<()>;

    /// The upload, if there is one.
    async fn upload(&self, id: UploadId) -> PortResult<Option<Upload>>;

    /// Uploads, newest first.
    async fn uploads(&self, query: &UploadQuery) -> PortResult<Vec<Upload>>;

    /// The rows of an upload in order; none of one that has not ended well.
    fn rows(&self, id: UploadId) -> BoxStream<'_, PortResult<StoredRow>>;

    /// What live counters can be rebuilt from.
    async fn progress(&self, id: UploadId, epoch: i32) -> PortResult<Snapshot>;

    /// Stores a group of batches in one transaction, with an outcome for each, in their order.
    async fn store(&self, group: &[ArchivedBatch]) -> PortResult<Vec<StoreOutcome>>;

    /// Whether a batch of this upload and epoch can be stored, as far as can be told without the fence: asked before its
    /// object is written.
    async fn admits(&self, id: BatchId) -> PortResult<bool>;

    /// Whether the upload can end.
    async fn completion(&self, id: UploadId) -> PortResult<Completion>;

    /// The ledger of an upload, in order.
    async fn ledger(&self, id: UploadId, epoch: i32) -> PortResult<Vec<LedgerEntry>>;

    /// `processing` → `completed`, or `partial` where rows were rejected, if every row is accounted for. Returns whether this call ended it.
    async fn complete(&self, id: UploadId, epoch: i32) -> PortResult<bool>;

    /// Keeps a dead letter.
    async fn park(&self, batch: &DeadBatch) -> PortResult<Parked>;

    /// What a crash may have left behind.
    async fn leftovers(&self, lease: Duration, archive_grace: Duration) -> PortResult<Leftovers>;

    /// Proves that it can be reached.
    async fn ping(&self) -> PortResult<()>;

    /// Says goodbye to the database.
    async fn close(&self);
}
