//! An upload: its identity, its status and its record.

mod dataset;

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::dataset::{Merge, RejectLimit, UploadDataset};
use crate::dataset::TableName;
pub use crate::dialect::{Dialect, DialectEvidence, Renamed};
pub use crate::failure::Failure;
use crate::sha256::Sha256;
use crate::tenant::Tenant;

/// The id of an upload: a UUIDv7 made here, or any UUID that the client chose with `PUT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UploadId(Uuid);

impl UploadId {
    /// A new id, ordered by time.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The UUID itself.
    pub fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for UploadId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl FromStr for UploadId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The epoch of an upload, counted from 1. An undo starts the next epoch. Statuses are final within
/// an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(i32);

impl Epoch {
    /// The epoch of a new upload.
    pub const FIRST: Self = Self(1);

    /// The number in databases and messages.
    pub fn get(self) -> i32 {
        self.0
    }
}

impl From<i32> for Epoch {
    fn from(number: i32) -> Self {
        Self(number)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names an upload within one epoch. Calls that change an upload take this, so that a late call for
/// an older epoch changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadKey {
    /// The upload's id.
    pub id: UploadId,
    /// The upload's epoch, as the caller knows it.
    pub epoch: Epoch,
}

impl UploadKey {
    /// The key of a new upload.
    pub fn first(id: UploadId) -> Self {
        let epoch = Epoch::FIRST;
        Self { id, epoch }
    }
}

impl fmt::Display for UploadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (epoch {})", self.id, self.epoch)
    }
}

/// The status of an upload. Every status but the first two is final within an epoch, except that a
/// retry of dead letters returns a `partial` upload to `processing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The client is still sending.
    Receiving,
    /// The whole file is durable in the queue, and workers store it.
    Processing,
    /// Every row is stored.
    Completed,
    /// The upload ended, and some rows were rejected or are in dead letters.
    Partial,
    /// The upload failed; none of its rows are kept.
    Failed,
    /// The upload was cancelled; none of its rows are kept.
    Cancelled,
    /// The upload was undone; none of its rows are kept.
    Undone,
}

impl Status {
    /// All statuses.
    pub const ALL: [Status; 7] = [
        Status::Receiving,
        Status::Processing,
        Status::Completed,
        Status::Partial,
        Status::Failed,
        Status::Cancelled,
        Status::Undone,
    ];

    /// Whether the status is final within its epoch.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Status::Receiving | Status::Processing)
    }

    /// Whether an upload with this status has ended and keeps its rows.
    pub fn keeps_rows(self) -> bool {
        matches!(self, Status::Completed | Status::Partial)
    }

    /// The name the API and the database use.
    pub fn name(self) -> &'static str {
        match self {
            Status::Receiving => "receiving",
            Status::Processing => "processing",
            Status::Completed => "completed",
            Status::Partial => "partial",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
            Status::Undone => "undone",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An unknown status name.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not a status; use one of receiving, processing, completed, partial, failed, cancelled, undone"
)]
pub struct UnknownStatus(String);

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.name() == text)
            .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

/// The outcomes of the rows in an undo of a merged upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UndoneRows {
    /// Rows that were removed, or that have their previous values again.
    pub reversed: u64,
    /// Rows that were changed or deleted after the upload, and stay as they are.
    pub kept: u64,
    /// Rows that stay because of a constraint, such as a foreign key of another table.
    pub errored: u64,
}

/// The record of an upload.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The id in the database, in messages and in the archive.
    pub id: UploadId,
    /// The id in the API. It differs from `id` only if another tenant had chosen the same id
    /// before.
    pub public_id: UploadId,
    /// The tenant that the upload belongs to.
    pub tenant: Tenant,
    /// The id of the key that sent it; `None` without authentication.
    pub created_by: Option<String>,
    /// The current epoch. An undo raises it.
    pub epoch: Epoch,
    /// The current status.
    pub status: Status,
    /// The client's name for the file. It is never part of a path.
    pub filename: Option<String>,
    /// How the file is read.
    pub dialect: Dialect,
    /// The columns of the file.
    pub columns: Vec<String>,
    /// The dataset that the rows go into; `None` if they go into the landing table.
    pub dataset: Option<UploadDataset>,
    /// File bytes announced by the client (a raw body's `Content-Length`).
    pub bytes_total: Option<u64>,
    /// File bytes received so far; a durable floor while receiving, exact afterwards.
    pub bytes_received: u64,
    /// Rows read so far; a durable floor while receiving, exact afterwards.
    pub rows_read: u64,
    /// Rows rejected by the intake so far; a durable floor while receiving, exact afterwards.
    pub rows_rejected: u64,
    /// Rows that violate a constraint of the dataset's table, known once the upload has ended.
    pub rows_violating: Option<u64>,
    /// Empty lines, which are not records; known once sealed.
    pub blank_lines: Option<u64>,
    /// Batches of the whole upload, known once sealed.
    pub batches_total: Option<u32>,
    /// Batches that are dead letters, and are not being retried.
    pub batches_dead: u64,
    /// Dead letters that are being retried.
    pub batches_retrying: u64,
    /// The final count of inserted rows, known once the upload has completed.
    pub rows_inserted: Option<u64>,
    /// The final count of rows that replaced others with their key, known once the upload has
    /// completed.
    pub rows_updated: Option<u64>,
    /// The rows of dead letters. Until the upload has ended, those of unreadable messages are not
    /// counted. If the rows of an ended upload were to be merged, these are all of its rows.
    pub rows_dead: u64,
    /// The final count of rows that changed nothing, because their key was in the table or in
    /// another row of the file; known once the upload has completed.
    pub rows_duplicate: Option<u64>,
    /// SHA-256 of the file, known once sealed.
    pub sha256: Option<Sha256>,
    /// The public id of an earlier upload with the same content whose rows are kept.
    pub duplicate_of: Option<UploadId>,
    /// The reason, if the upload failed.
    pub failure: Option<Failure>,
    /// Whether some of the upload's rows must still be removed.
    pub cleanup_pending: bool,
    /// Whether the previous values of the rows that the upload replaced are kept.
    pub is_reversible: bool,
    /// The outcomes of the rows in the undo of a merged upload.
    pub undone: Option<UndoneRows>,
    /// When the header was accepted.
    pub created_at: Timestamp,
    /// When the record changed last.
    pub updated_at: Timestamp,
    /// When the upload reached a final status.
    pub finished_at: Option<Timestamp>,
    /// Since when some batches of a sealed upload are neither stored nor in a queue.
    pub missing_since: Option<Timestamp>,
    /// When the rows of an upload that ended well expired. They have been hidden since then.
    pub expired_at: Option<Timestamp>,
}

impl Upload {
    /// The upload's id with its epoch.
    pub fn key(&self) -> UploadKey {
        UploadKey {
            id: self.id,
            epoch: self.epoch,
        }
    }

    /// Whether this sender has sent the upload. A key has also sent the uploads of its tokens,
    /// whose sender is the id of the key, a dot and the id of the token. No other sender has a dot.
    pub fn was_sent_by(&self, sender: &str) -> bool {
        let rest = self
            .created_by
            .as_deref()
            .and_then(|by| by.strip_prefix(sender));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// The names of the columns that are stored: those of the dataset, or those of the file.
    pub fn stored_columns(&self) -> Vec<String> {
        let Some(dataset) = &self.dataset else {
            return self.columns.clone();
        };
        let names = dataset.columns.iter().map(|column| column.name.clone());
        names.collect()
    }

    /// The table of the user that gets the rows, if there is one.
    pub fn user_table(&self) -> Option<&TableName> {
        self.dataset.as_ref()?.table.as_ref()
    }

    /// Whether the rows are staged until the end, and then merged into the table of the dataset.
    pub fn is_staged(&self) -> bool {
        let dataset = self.dataset.as_ref();
        dataset.is_some_and(UploadDataset::is_staged)
    }

    /// Whether the upload has ended and its rows are visible.
    pub fn keeps_rows(&self) -> bool {
        self.status.keeps_rows() && self.expired_at.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_found_by_its_name() {
        for status in Status::ALL {
            assert_eq!(status.name().parse::<Status>().unwrap(), status);
        }
        assert!("done".parse::<Status>().is_err());
    }
}
