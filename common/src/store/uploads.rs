//! The records of uploads: how they begin, what is known of them, and how they end.
//!
//! # Promises
//!
//! - An id is taken once; creating it again is a *conflict*, whatever has become of its upload.
//! - An upload ends once: of two callers that try, one gets true.
//! - A call for another epoch changes nothing.
//! - Figures on record never go down.
//! - A page of the list follows the one before without a gap and without a repetition.

use std::fmt;

use async_trait::async_trait;

use crate::error::PortResult;
use crate::sha256::Sha256;
use crate::upload::{Dialect, Failure, Status, Upload, UploadId, UploadKey};

/// An upload whose header has been accepted.
#[derive(Debug, Clone)]
pub struct NewUpload {
    /// A new UUID, or the one that the client chose.
    pub id: UploadId,
    /// The client's name for the file.
    pub filename: Option<String>,
    /// How the file is read.
    pub dialect: Dialect,
    /// The names in the file's header.
    pub columns: Vec<String>,
    /// The size of the file, if the client announced it.
    pub bytes_total: Option<u64>,
}

/// The totals of an upload whose last byte has been read.
#[derive(Debug, Clone, Copy)]
pub struct Seal {
    /// Rows read, including those that were rejected.
    pub rows: u64,
    /// Rows rejected; the store has all of them.
    pub rejected: u64,
    /// Empty lines, which are no records.
    pub blank_lines: u64,
    /// Batches published and confirmed.
    pub batches: u32,
    /// Bytes received.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: Sha256,
    /// An earlier upload of the same content.
    pub duplicate_of: Option<UploadId>,
}

/// The progress of a receiving upload, which also renews its lease.
#[derive(Debug, Clone, Copy)]
pub struct Heartbeat {
    /// The upload that is still being received.
    pub upload: UploadId,
    /// Rows read so far.
    pub rows_read: u64,
    /// Rejected rows so far; the store has all of them.
    pub rows_rejected: u64,
    /// Bytes received so far.
    pub bytes_received: u64,
}

/// Which uploads to list.
#[derive(Debug, Clone, Copy)]
pub struct UploadQuery {
    /// Only uploads with this status.
    pub status: Option<Status>,
    /// The length of the list at most.
    pub limit: u32,
    /// Only uploads older than this one, by creation and then by id.
    pub before: Option<(jiff::Timestamp, UploadId)>,
}

/// The records of uploads. See the module for its promises.
#[async_trait]
pub trait UploadStore: fmt::Debug + Send + Sync {
    /// Records a new upload as `receiving`, with its lease. *Conflict* when the id is taken.
    async fn create(&self, upload: &NewUpload) -> PortResult<Upload>;

    /// Renews leases and records figures. Returns the uploads whose lease was renewed: an upload
    /// that is missing has ended.
    async fn heartbeat(&self, beats: &[Heartbeat]) -> PortResult<Vec<UploadId>>;

    /// `receiving` → `processing`, with the totals. False when the upload has ended in the
    /// meantime.
    async fn seal(&self, key: UploadKey, seal: &Seal) -> PortResult<bool>;

    /// Ends an upload as `failed`. Returns whether this call ended it. When it returns, no batch of
    /// the upload is being stored or ever will be; its rows are hidden and wait for
    /// [`remove_rows`](super::MaintenanceStore::remove_rows).
    async fn fail(
        &self,
        key: UploadKey,
        failure: &Failure,
        last: Option<Heartbeat>,
    ) -> PortResult<bool>;

    /// Ends an upload as `cancelled`, and is like `fail` otherwise.
    async fn cancel(&self, key: UploadKey) -> PortResult<bool>;

    /// Takes back an upload that ended well: `undone`, in the next epoch. Returns whether this call
    /// did it. The upload's rows are hidden then and wait for
    /// [`remove_rows`](super::MaintenanceStore::remove_rows).
    async fn undo(&self, key: UploadKey) -> PortResult<bool>;

    /// The latest other upload of this content that has its rows in place.
    async fn same_content(&self, sha256: Sha256, but: UploadId) -> PortResult<Option<UploadId>>;

    /// One upload; none where the id is unknown.
    async fn upload(&self, id: UploadId) -> PortResult<Option<Upload>>;

    /// Uploads, newest first.
    async fn uploads(&self, query: &UploadQuery) -> PortResult<Vec<Upload>>;
}
