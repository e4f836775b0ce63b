//! The one error type of all ports.
//!
//! A kind says what the caller can do. The driver's own error is kept as the source, so no
//! port shows a driver's type and no error is flattened to a string.

use std::error::Error as StdError;
use std::fmt;

/// The kind of an error, by what the caller can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The server is away or busy. Try again later, without counting an attempt.
    Unavailable,
    /// The server refuses Carga because of its setup: credentials, permissions, a missing database
    /// or bucket, a wrong clock. Try again later, without counting an attempt: the data is not at
    /// fault, and an operator can correct the setup meanwhile.
    Misconfigured,
    /// The disk or the queue is full. The call succeeds once there is room.
    Full,
    /// The data is invalid, and the same data never succeeds.
    Invalid,
    /// The data conflicts with existing data.
    Conflict,
    /// The object or record does not exist.
    NotFound,
    /// Any other fault, in Carga or in the server. A few more attempts may help.
    Internal,
}

/// An error of a port: its kind, its operation and its cause.
#[derive(Debug)]
pub struct PortError {
    kind: ErrorKind,
    operation: &'static str,
    source: Box<dyn StdError + Send + Sync>,
}

/// The result of every call of a port.
pub type PortResult<T> = Result<T, PortError>;

impl PortError {
    /// An error of `kind` in `operation` (`<port>.<operation>`), with its cause.
    pub fn new(
        kind: ErrorKind,
        operation: &'static str,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            operation,
            source: source.into(),
        }
    }

    /// An *unavailable* error.
    pub fn unavailable(
        operation: &'static str,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::new(ErrorKind::Unavailable, operation, source)
    }

    /// An *invalid* error.
    pub fn invalid(
        operation: &'static str,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::new(ErrorKind::Invalid, operation, source)
    }

    /// The kind, which says what the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the server is away, busy, or refuses Carga because of its setup.
    pub fn is_unavailable(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Misconfigured)
    }

    /// Whether the call can succeed later with the same data, when the server is back or has room.
    pub fn is_passing(&self) -> bool {
        self.is_unavailable() || self.kind == ErrorKind::Full
    }

    /// The error with all its causes on one line, for a log or a dead letter's reason.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.kind {
            ErrorKind::Unavailable => "is unavailable",
            ErrorKind::Misconfigured => "is not permitted or not set up",
            ErrorKind::Full => "failed: no room left",
            ErrorKind::Invalid => "failed: invalid data",
            ErrorKind::Conflict => "failed: conflict",
            ErrorKind::NotFound => "failed: not found",
            ErrorKind::Internal => "failed",
        };
        write!(f, "{} {outcome}", self.operation)
    }
}

impl StdError for PortError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self.source.as_ref())
    }
}
