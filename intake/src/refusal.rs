//! Why something is refused: the one error of the intake.

use carga_common::error::{ErrorKind, PortError};
use carga_common::upload::{Failure, Status, UploadId};

use crate::csv::{Exceeded, FileFault};

/// What the sender can do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The request is not what the contract says: correct it.
    Malformed,
    /// The file is not what it should be: correct it.
    Unprocessable,
    /// The file is in a format that is not taken.
    Unsupported,
    /// The file is larger than the limit.
    TooLarge,
    /// The state of things forbids it.
    Conflict,
    /// It does not exist.
    NotFound,
    /// Too much at once: try again soon.
    TooMany,
    /// A server is away: try again later.
    Unavailable,
    /// There is no room left to store it.
    Full,
    /// A fault of Carga's; the log has the cause.
    Internal,
}

/// A refusal: everything that the client is told.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// What the sender can do.
    pub kind: RefusalKind,
    /// Code, message and position; an upload that fails by this refusal records the same.
    pub failure: Failure,
    /// The limit, where one was exceeded.
    pub exceeded: Option<Exceeded>,
    /// When to try again.
    pub retry_after_secs: Option<u32>,
    /// The upload that the refusal is about.
    pub upload: Option<UploadId>,
    /// That upload's status, where the status is the reason.
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

    /// The request is not what the contract says.
    pub fn malformed(code: &str, message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Malformed, code, message)
    }

    /// The file is not what it should be.
    pub fn unprocessable(code: &str, message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Unprocessable, code, message)
    }

    /// The state of things forbids it.
    pub fn conflict(code: &str, message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Conflict, code, message)
    }

    /// The same request may succeed later.
    pub fn unavailable(code: &str, message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Unavailable, code, message).retry_after(5)
    }

    /// There is no room for it.
    pub fn storage_full() -> Self {
        let message = "there is no room left to store the file; nothing of it is kept, make room and send it again";
        Self::new(RefusalKind::Full, "storage_full", message)
    }

    /// A fault of Carga's; the log has the cause.
    pub fn internal() -> Self {
        let message = "something went wrong here; the log has the cause under this request id";
        Self::new(RefusalKind::Internal, "internal", message)
    }

    /// No upload has this id.
    pub fn no_such_upload(id: UploadId) -> Self {
        let message = format!("there is no upload {id}");
        Self::new(RefusalKind::NotFound, "upload_not_found", message)
    }

    /// The id is taken, by an upload with this status if that is known.
    pub fn id_used(id: UploadId, status: Option<Status>) -> Self {
        let message = match status {
            Some(status) => format!("upload {id} exists already and is {status}"),
            None => format!("upload {id} exists already"),
        };
        Self {
            upload_status: status,
            ..Self::conflict("id_used", message).about(id)
        }
    }

    /// The file is larger than the limit.
    pub fn upload_too_large(limit: u64, actual: u64) -> Self {
        let message = format!(
            "the file has at least {actual} bytes, the limit is {limit} (CARGA_MAX_UPLOAD_BYTES)"
        );
        Self::new(RefusalKind::TooLarge, "upload_too_large", message).exceeding(limit, actual)
    }

    /// Somebody else has ended the upload: a sweeper that found its lease expired, or a dead letter.
    pub(crate) fn ended_meanwhile() -> Self {
        Self::unprocessable("interrupted", "the upload has ended meanwhile")
    }

    /// Names the upload.
    pub fn about(mut self, id: UploadId) -> Self {
        self.upload = Some(id);
        self
    }

    /// Names the limit and what exceeded it.
    pub fn exceeding(mut self, limit: u64, actual: u64) -> Self {
        self.exceeded = Some(Exceeded { limit, actual });
        self
    }

    /// Says when to try again.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_secs = Some(seconds);
        self
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
        let mut refusal = Self::unprocessable(fault.code, fault.message);
        refusal.failure.row = fault.row;
        refusal.failure.line = fault.line;
        refusal.failure.column = fault.column;
        refusal.exceeded = fault.exceeded;
        refusal
    }
}

/// The cause is logged here, once; the client learns no more than the kind.
impl From<PortError> for Refusal {
    fn from(error: PortError) -> Self {
        match error.kind() {
            ErrorKind::Unavailable => {
                tracing::warn!(error = error.chain(), "a dependency is away");
                let message =
                    "a server that Carga needs does not answer; send the file again later";
                Self::unavailable("dependency_unavailable", message)
            }
            ErrorKind::Full => {
                tracing::error!(error = error.chain(), "there is no room left");
                Self::storage_full()
            }
            _ => {
                tracing::error!(error = error.chain(), "a request failed");
                Self::internal()
            }
        }
    }
}
