//! The records of uploads, from their creation to their end.
//!
//! # Promises
//!
//! - Creating an upload with a public id that its tenant has used is a *conflict*, even after that
//!   upload has ended. Of concurrent callers of one tenant, exactly one creates the upload. The
//!   public ids of other tenants make no difference.
//! - Creating an upload is *not found*, and creates nothing, if its tenant has no such dataset, or
//!   if the columns of the dataset do not begin with those that the upload has recorded.
//! - An upload, the key of its request and the count of its token are stored together or not at
//!   all.
//! - The uploads of a token are counted up to its limit and never beyond it. Of two concurrent
//!   uploads of a token that has one left, exactly one is created. An upload that takes over the
//!   key of a failed one is not counted again if the fingerprints of their requests are equal.
//! - An upload that cannot be created gets the same error whether or not its token is used up.
//! - The count of a token is kept until its end and for an hour more. It is removed afterwards,
//!   when an upload of another token is counted.
//! - A tenant finds its own uploads only: by their public ids, in its lists and by their content.
//! - An upload keeps its dataset's columns as they were given, also when the definition changes.
//! - An upload ends once: of several concurrent callers, exactly one gets true.
//! - A call for another epoch changes nothing.
//! - Recorded figures never go down.
//! - Consecutive pages of the list neither skip nor repeat an upload, also if the list is limited
//!   to a status, to a dataset or to the key that sent the uploads.

use std::fmt;

use async_trait::async_trait;

use super::{CreateConditions, CreateOutcome};
use crate::dataset::DatasetName;
use crate::error::PortResult;
use crate::sha256::Sha256;
use crate::tenant::Tenant;
use crate::upload::{Dialect, Failure, Status, Upload, UploadDataset, UploadId, UploadKey};

/// An upload whose header has been accepted.
#[derive(Debug, Clone)]
pub struct NewUpload {
    /// The public id: a new UUID, or the one that the client chose.
    pub id: UploadId,
    /// The tenant that the upload belongs to.
    pub tenant: Tenant,
    /// Who sent it: the id of a key, followed by a dot and the id of a token if it was sent with a
    /// token of the key. `None` without authentication.
    pub created_by: Option<String>,
    /// The client's name for the file.
    pub filename: Option<String>,
    /// How the file is read.
    pub dialect: Dialect,
    /// The names in the file's header.
    pub columns: Vec<String>,
    /// The dataset that the rows go into; `None` if they go into the landing table.
    pub dataset: Option<UploadDataset>,
    /// The size of the file, if the client announced it.
    pub bytes_total: Option<u64>,
}

/// The totals of an upload whose last byte has been read.
#[derive(Debug, Clone)]
pub struct Seal {
    /// Rows read, including rejected rows.
    pub rows: u64,
    /// Rejected rows; all of them are already stored.
    pub rejected: u64,
    /// Empty lines, which do not count as records.
    pub blank_lines: u64,
    /// Batches published and confirmed.
    pub batches: u32,
    /// Bytes received.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: Sha256,
    /// The public id of an earlier upload of the same content.
    pub duplicate_of: Option<UploadId>,
    /// The dialect, if it has changed since the upload was created: a file may show its encoding
    /// only far below its header.
    pub dialect: Option<Dialect>,
}

/// The progress of a receiving upload, which also renews its lease.
#[derive(Debug, Clone, Copy)]
pub struct Heartbeat {
    /// The upload that is still being received.
    pub upload: UploadId,
    /// Rows read so far.
    pub rows_read: u64,
    /// Rejected rows so far; all of them are already stored.
    pub rows_rejected: u64,
    /// Bytes received so far.
    pub bytes_received: u64,
}

/// Which uploads to list.
#[derive(Debug, Clone)]
pub struct UploadQuery {
    /// Only uploads of this tenant; `None` for the uploads of all tenants.
    pub tenant: Option<Tenant>,
    /// Only uploads of this sender: a key and all its tokens, or one token. `None` for those of all
    /// senders, and those that were sent without a key.
    pub created_by: Option<String>,
    /// Only uploads with this status.
    pub status: Option<Status>,
    /// Only uploads of this dataset, also after the dataset was deleted.
    pub dataset: Option<DatasetName>,
    /// The maximum length of the list.
    pub limit: u32,
    /// Only uploads older than this one, by creation and then by id. With a tenant, this is the
    /// public id of one of its uploads.
    pub before: Option<(jiff::Timestamp, UploadId)>,
}

/// The records of uploads. See the module for its promises.
#[async_trait]
pub trait UploadStore: fmt::Debug + Send + Sync {
    /// Records a new upload as `receiving`, with its lease. Its id in the database is the public
    /// id, or a new one if an upload of another tenant has that id. A public id that the tenant has
    /// used is a *conflict*. A dataset that is missing or has other columns is *not found*.
    async fn create(&self, upload: &NewUpload) -> PortResult<Upload>;

    /// Records a new upload like [`create`](Self::create), if these conditions hold. The sender of
    /// the request must be that of the token.
    async fn create_if(
        &self,
        upload: &NewUpload,
        conditions: CreateConditions<'_>,
    ) -> PortResult<CreateOutcome>;

    /// Renews leases and records figures. Returns the uploads whose lease was renewed; an upload
    /// that is missing has ended.
    async fn heartbeat(&self, beats: &[Heartbeat]) -> PortResult<Vec<UploadId>>;

    /// Moves an upload from `receiving` to `processing` and records its totals. Returns true again
    /// if the upload was already sealed with these totals and has not failed, because a caller that
    /// lost the answer repeats the call. Otherwise returns false: the upload has ended.
    async fn seal(&self, key: UploadKey, seal: &Seal) -> PortResult<bool>;

    /// Ends an upload as `failed`. Returns whether this call ended it. After this call no batch of
    /// the upload is being stored, and none will be stored. Its rows are hidden until
    /// [`remove_rows`](super::MaintenanceStore::remove_rows) removes them.
    ///
    /// `last` has the final figures of the intake that receives the upload. With it, a sealed
    /// upload is not ended: the intake may have lost the answer to its seal, and then the file is
    /// accepted.
    async fn fail(
        &self,
        key: UploadKey,
        failure: &Failure,
        last: Option<Heartbeat>,
    ) -> PortResult<bool>;

    /// Ends an upload as `cancelled`; everything else is as in `fail`.
    async fn cancel(&self, key: UploadKey) -> PortResult<bool>;

    /// Undoes an upload that ended well: it becomes `undone`, in the next epoch. Returns whether
    /// this call undid it. Its rows are hidden until
    /// [`remove_rows`](super::MaintenanceStore::remove_rows) removes them.
    ///
    /// The rows of a merged upload are removed in this call, or get their previous values again.
    /// Rows that changed since then are kept. If the previous values were forgotten, nothing
    /// changes.
    async fn undo(&self, key: UploadKey) -> PortResult<bool>;

    /// The public id of the latest upload of a tenant with this content whose rows are visible,
    /// other than the upload with the id `except`. The rows of an expired upload are not visible.
    async fn same_content(
        &self,
        tenant: &Tenant,
        sha256: Sha256,
        except: UploadId,
    ) -> PortResult<Option<UploadId>>;

    /// Reserves this content for a receiving upload, within its tenant. Returns the public id of
    /// another upload that has reserved or stored the same content, and has neither failed nor
    /// expired. Of several uploads that call this at the same time, one succeeds. A repeated call
    /// succeeds again.
    async fn claim_content(&self, key: UploadKey, sha256: Sha256) -> PortResult<Option<UploadId>>;

    /// One upload by its id in the database; `None` if the id is unknown.
    async fn upload(&self, id: UploadId) -> PortResult<Option<Upload>>;

    /// One upload by the id that its tenant knows; `None` if the tenant has no such upload.
    async fn upload_of(&self, tenant: &Tenant, public_id: UploadId) -> PortResult<Option<Upload>>;

    /// Uploads, newest first.
    async fn uploads(&self, query: &UploadQuery) -> PortResult<Vec<Upload>>;
}
