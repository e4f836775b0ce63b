//! What an upload is: its identity, its states, its figures.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::sha256::Sha256;

/// Names one upload: a UUIDv7 of ours, or any UUID the client chose with `PUT`.
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

/// Counts how often an upload was taken back; statuses are final within an epoch. The first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(i32);

impl Epoch {
    /// The epoch of a new upload.
    pub const FIRST: Self = Self(1);

    /// The number, as databases and messages carry it.
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

/// Where an upload stands. Every status but the first two is final within an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The client is still sending.
    Receiving,
    /// All of it is durable; workers store it.
    Processing,
    /// Every row is stored.
    Completed,
    /// It ended and some rows were rejected.
    Partial,
    /// It failed; none of its rows are kept.
    Failed,
    /// It was cancelled; none of its rows are kept.
    Cancelled,
    /// It was undone; none of its rows are kept.
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

    /// No further change without a new epoch.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Status::Receiving | Status::Processing)
    }

    /// It ended with its rows in place.
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

/// A word that is no status.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no status; use one of receiving, processing, completed, partial, failed, cancelled, undone"
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

/// Why an upload failed, and where in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable and meant for programs: `too_few_fields`, `interrupted`, ….
    pub code: String,
    /// Meant for people.
    pub message: String,
    /// The data row, counted from 1 without the header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    /// The physical line of the file on which that row starts, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The column's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
}

impl Failure {
    /// A failure of the whole upload, at no particular place.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            row: None,
            line: None,
            column: None,
        }
    }

    /// The same at a row and line.
    pub fn at(mut self, row: u64, line: u64) -> Self {
        self.row = Some(row);
        self.line = Some(line);
        self
    }

    /// The same in a column.
    pub fn in_column(mut self, column: impl Into<String>) -> Self {
        self.column = Some(column.into());
        self
    }
}

/// What spoke for the parts of a dialect that were not given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialectEvidence {
    /// For the encoding.
    pub encoding: String,
    /// For the delimiter.
    pub delimiter: String,
}

/// How the file was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialect {
    /// `gzip`, `zstd`, or none.
    pub compression: Option<String>,
    /// The WHATWG label, lower case.
    pub encoding: String,
    /// A byte order mark was there (and is no part of the first column's name).
    pub bom: bool,
    /// One character.
    pub delimiter: String,
    /// One character, or empty where nothing quotes.
    pub quote: String,
    /// The first record names the columns.
    pub header: bool,
    /// Rows end with a delimiter that separates nothing.
    #[serde(default)]
    pub trailing_delimiter: bool,
    /// Why, where it was not given.
    #[serde(default)]
    pub evidence: Option<DialectEvidence>,
}

impl Dialect {
    /// RFC 4180 as UTF-8 with a header.
    pub fn rfc4180(bom: bool) -> Self {
        Self {
            compression: None,
            encoding: "utf-8".to_owned(),
            bom,
            delimiter: ",".to_owned(),
            quote: "\"".to_owned(),
            header: true,
            trailing_delimiter: false,
            evidence: None,
        }
    }
}

/// An upload as the store knows it.
#[derive(Debug, Clone)]
pub struct Upload {
    /// Its identity.
    pub id: UploadId,
    /// Counts `/retry` and `/undo`; starts at 1.
    pub epoch: Epoch,
    /// Where it stands.
    pub status: Status,
    /// The client's name for the file: metadata, never part of a path.
    pub filename: Option<String>,
    /// How the file is read.
    pub dialect: Dialect,
    /// The header.
    pub columns: Vec<String>,
    /// File bytes announced by the client (a raw body's `Content-Length`).
    pub bytes_total: Option<u64>,
    /// File bytes received so far; a durable floor while receiving, exact afterwards.
    pub bytes_received: u64,
    /// Rows read so far; a durable floor while receiving, exact afterwards.
    pub rows_read: u64,
    /// Rows rejected so far; a durable floor while receiving, exact afterwards.
    pub rows_rejected: u64,
    /// Lines with nothing on them, which are no rows; known once sealed.
    pub blank_lines: Option<u64>,
    /// Batches of the whole upload, known once sealed.
    pub batches_total: Option<u32>,
    /// Batches kept as dead letters.
    pub batches_dead: u64,
    /// Final count of stored rows; set when it completes.
    pub rows_inserted: Option<u64>,
    /// SHA-256 of the file, known once sealed.
    pub sha256: Option<Sha256>,
    /// An earlier upload of the same content that has its rows in place.
    pub duplicate_of: Option<UploadId>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Its rows are still being removed.
    pub cleanup_pending: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its record changed last.
    pub updated_at: Timestamp,
    /// When it reached a final status.
    pub finished_at: Option<Timestamp>,
}

impl Upload {
    /// The upload's id with its epoch.
    pub fn key(&self) -> UploadKey {
        UploadKey {
            id: self.id,
            epoch: self.epoch,
        }
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
