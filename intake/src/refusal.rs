//! The one error of the intake: why a request or a file is refused.

use std::io;

use carga_common::access::TokenLimits;
use carga_common::dataset::{DatasetName, TableFault, TableName};
use carga_common::error::{ErrorKind, PortError};
use carga_common::local_server::path_segment;
use carga_common::upload::{Failure, Status, Upload, UploadId};

use crate::csv::{Exceeded, FileFault};

/// What the sender can do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The request is malformed: correct it.
    Malformed,
    /// The request has no valid key: send one.
    Unauthenticated,
    /// The key does not allow the request: use another key.
    Forbidden,
    /// The file is faulty: correct it.
    Unprocessable,
    /// The format of the file is not supported: convert it.
    Unsupported,
    /// The coding of the body is not supported: use none, gzip or zstd.
    UnsupportedCoding,
    /// The file is larger than the limit.
    TooLarge,
    /// The current state forbids the request.
    Conflict,
    /// The upload or the resource does not exist.
    NotFound,
    /// Too many requests, uploads, bytes or rows: retry later.
    TooMany,
    /// A server that Carga needs is unavailable: retry later.
    Unavailable,
    /// The storage is full: make room, then retry.
    Full,
    /// An internal error. The log has the cause.
    Internal,
}

/// A refusal, with everything that the client learns about it.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// What the sender can do about it.
    pub kind: RefusalKind,
    /// Code, message and position. An upload that fails by this refusal records them.
    pub failure: Failure,
    /// The limit, if one was exceeded.
    pub exceeded: Option<Exceeded>,
    /// After how many seconds to retry.
    pub retry_after_secs: Option<u32>,
    /// The public id of the upload that the refusal is about.
    pub upload: Option<UploadId>,
    /// The status of that upload, if the status is the reason.
    pub upload_status: Option<Status>,
}

impl Refusal {
    /// A refusal with a code for programs and a message for people.
    pub fn new(kind: RefusalKind, code: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            failure: Failure::new(code, message),
            exceeded: None,
            retry_after_secs: None,
            upload: None,
            upload_status: None,
        }
    }

    /// A malformed request.
    pub fn malformed(code: &str, message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Malformed, code, message)
    }

    /// A faulty file.
    pub fn unprocessable(code: &str, message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Unprocessable, code, message)
    }

    /// A local file that could not be read to its end.
    pub(crate) fn unreadable(error: &io::Error) -> Self {
        let message = format!("cannot read the file: {error}; none of its rows are kept");
        Self::unprocessable("unreadable_file", message)
    }

    /// A file that is refused for the reason for which its upload would fail.
    pub fn failing(failure: Failure) -> Self {
        Self {
            failure,
            ..Self::unprocessable("", "")
        }
    }

    /// The current state forbids the request.
    pub fn conflict(code: &str, message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Conflict, code, message)
    }

    /// The same request may succeed later.
    pub fn unavailable(code: &str, message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Unavailable, code, message).retry_after(5)
    }

    /// The storage is full.
    pub fn storage_full() -> Self {
        let message = "no room left to store the file, and none of its rows are kept; make room and send it again";
        Self::new(RefusalKind::Full, "storage_full", message)
    }

    /// An internal error. The log has the cause.
    pub fn internal() -> Self {
        let message = "internal error; the server's log has the cause under this request id";
        Self::new(RefusalKind::Internal, "internal", message)
    }

    /// No upload has this id.
    pub fn no_such_upload(id: UploadId) -> Self {
        let message = format!("upload {id} does not exist");
        Self::new(RefusalKind::NotFound, "upload_not_found", message)
    }

    /// The upload's status forbids it.
    pub fn wrong_state(upload: &Upload, message: impl Into<String>) -> Self {
        Self {
            upload_status: Some(upload.status),
            ..Self::conflict("wrong_state", message).about(upload.public_id)
        }
    }

    /// The rows of the upload cannot be read, because nothing in the table of the user says which
    /// rows the upload wrote.
    pub fn rows_in_user_table(upload: &Upload, table: &TableName) -> Self {
        let id = upload.public_id;
        let message = format!(
            "the rows of upload {id} are in table {table}, which has no column that says which upload wrote a row; read the table in the database"
        );
        Self::conflict("rows_in_user_table", message).about(id)
    }

    /// An undo cannot take back the changes of the upload.
    pub fn not_reversible(upload: &Upload) -> Self {
        let id = upload.public_id;
        let message = match (upload.expired_at, upload.user_table()) {
            (Some(expired_at), _) => format!(
                "upload {id} cannot be undone, because it expired at {expired_at} (CARGA_RETENTION_DAYS); its rows stay in the table"
            ),
            (None, None) => format!(
                "upload {id} cannot be undone, because the previous values of the rows that it replaced are no longer kept (CARGA_UNDO_DAYS)"
            ),
            // The record does not say which of them is the reason.
            (None, Some(table)) => format!(
                "upload {id} cannot be undone, because no record of its changes to table {table} is kept: the table had no primary key when the rows were merged, CARGA_UNDO_DAYS are over, or the dataset was deleted"
            ),
        };
        Self {
            upload_status: Some(upload.status),
            ..Self::conflict("not_reversible", message).about(id)
        }
    }

    /// The upload keeps no rows, so its dead letters cannot be retried.
    pub fn not_retryable(upload: &Upload) -> Self {
        let (id, status) = (upload.public_id, upload.status);
        let message = match upload.expired_at {
            Some(expired_at) => format!(
                "the dead letters of upload {id} cannot be retried, because it expired at {expired_at} (CARGA_RETENTION_DAYS)"
            ),
            None => format!(
                "upload {id} is {status}, and none of its rows are kept; send the file again"
            ),
        };
        Self::wrong_state(upload, message)
    }

    /// The id is used by another upload of the tenant, with this status if the status is known and
    /// the client may read the upload.
    pub fn id_used(id: UploadId, status: Option<Status>) -> Self {
        let message = match status {
            Some(status) => format!("upload {id} already exists and is {status}; use another id"),
            None => format!("upload {id} already exists; use another id"),
        };
        Self {
            upload_status: status,
            ..Self::conflict("id_used", message).about(id)
        }
    }

    /// The file is larger than the limit.
    pub fn upload_too_large(limit: u64, actual: u64) -> Self {
        let message = format!(
            "the file has at least {actual} bytes; the limit is {limit} (CARGA_MAX_UPLOAD_BYTES)"
        );
        Self::new(RefusalKind::TooLarge, "upload_too_large", message).exceeding(limit, actual)
    }

    /// The token has sent as many uploads as it may.
    pub fn token_used_up(token: &TokenLimits) -> Self {
        let limit = token.max_uploads.unwrap_or_default();
        let message = format!(
            "the token has sent {limit} uploads, the most that it allows (its `max_uploads`); ask for another token"
        );
        let refusal = Self::new(RefusalKind::Forbidden, "token_used_up", message);
        refusal.exceeding(limit, limit.saturating_add(1))
    }

    /// Another process has ended the upload, such as a sweeper after its lease expired.
    pub(crate) fn ended_meanwhile() -> Self {
        Self::unprocessable(
            "interrupted",
            "the upload was ended while it was being received",
        )
    }

    /// Adds the upload that the refusal is about, by its public id.
    pub fn about(mut self, id: UploadId) -> Self {
        self.upload = Some(id);
        self
    }

    /// Adds the limit and the value that exceeded it.
    pub fn exceeding(mut self, limit: u64, actual: u64) -> Self {
        self.exceeded = Some(Exceeded { limit, actual });
        self
    }

    /// Adds the time after which to retry.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_secs = Some(seconds);
        self
    }

    /// No dataset has this name, and the request needs one.
    pub fn no_such_dataset(name: &DatasetName) -> Self {
        let path = path_segment(name.as_str());
        let message = format!(
            "dataset `{name}` does not exist; declare it with `PUT /datasets/{path}` or `carga dataset put`"
        );
        Self::new(RefusalKind::NotFound, "dataset_not_found", message)
    }

    /// No dataset has this name, so there is nothing to delete.
    pub fn no_dataset_to_delete(name: &DatasetName) -> Self {
        let message = format!("dataset `{name}` does not exist");
        Self::new(RefusalKind::NotFound, "dataset_not_found", message)
    }

    /// The table of the dataset cannot take the new definition.
    pub fn dataset_conflict(name: &DatasetName, reason: &str) -> Self {
        let message = format!("dataset `{name}` cannot take this definition: {reason}");
        Self::conflict("dataset_conflict", message)
    }

    /// The table of the user does not take the rows of the dataset.
    pub fn unfit_table(name: &DatasetName, fault: &TableFault) -> Self {
        let message = format!("dataset `{name}`: {fault}");
        Self::unprocessable(fault.code, message)
    }

    /// The dataset cannot be deleted while this many uploads need its table.
    pub fn dataset_in_use(name: &DatasetName, uploads: u64) -> Self {
        let query = path_segment(name.as_str());
        let message = format!(
            "dataset `{name}` cannot be deleted; uploads that need its table: {uploads}; cancel uploads that have not ended, undo those that have rows, and wait until their rows are removed; `GET /uploads?dataset={query}` lists them"
        );
        Self::conflict("dataset_in_use", message)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.failure.code, self.failure.message)
    }
}

impl std::error::Error for Refusal {}

impl From<FileFault> for Refusal {
    fn from(fault: FileFault) -> Self {
        let kind = match fault.code {
            "not_csv" => RefusalKind::Unsupported,
            _ => RefusalKind::Unprocessable,
        };
        let mut refusal = Self::new(kind, fault.code, fault.message);
        refusal.failure.row = fault.row;
        refusal.failure.line = fault.line;
        refusal.failure.column = fault.column;
        refusal.exceeded = fault.exceeded;
        refusal
    }
}

/// Logs the cause, once. The client learns only the kind.
impl From<PortError> for Refusal {
    fn from(error: PortError) -> Self {
        match error.kind() {
            ErrorKind::Unavailable => {
                tracing::warn!(error = error.chain(), "a dependency is unavailable");
                let message = "a server that Carga needs does not answer; retry later";
                Self::unavailable("dependency_unavailable", message)
            }
            ErrorKind::Misconfigured => {
                tracing::error!(
                    error = error.chain(),
                    "a dependency refuses Carga; correct its credentials, permissions or setup"
                );
                let message = "a server that Carga needs refuses its credentials or is not set up; retry later";
                Self::unavailable("dependency_unavailable", message)
            }
            ErrorKind::Full => {
                tracing::error!(error = error.chain(), "no room left");
                Self::storage_full()
            }
            _ => {
                tracing::error!(error = error.chain(), "a request failed");
                Self::internal()
            }
        }
    }
}

#[cfg(test)]
mod tests;
