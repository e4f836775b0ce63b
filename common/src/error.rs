//! The one error type of all ports.
//!
//! A kind says what the caller can do about it; the driver's own error stays underneath as the source, so no driver
//! type shows in a port and nothing is flattened to a string.

use std::error::Error as StdError;
use std::fmt;

/// What the caller of a port can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The server is away or busy: try again later, and charge no attempt for it.
    Unavailable,
    /// There is no room left: somebody has to make some, and then it will do.
    Full,
    /// This batch (or object, or record) will never be accepted as it is.
    Invalid,
    /// It clashes with what is already there.
    Conflict,
    /// There is no such thing.
    NotFound,
    /// Anything else: a fault of ours or of the server's, worth a few attempts.
    Internal,
}

/// An error of a port: which one, doing what, and what to do about it.
#[derive(Debug)]
pub struct PortError {
    kind: ErrorKind,
    operation: &'static str,
    source: Box<dyn StdError + Send + Sync>,
}

/// What every call of a port returns.
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

    /// Shorthand for an error that time may cure.
    pub fn unavailable(
        operation: &'static str,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::new(ErrorKind::Unavailable, operation, source)
    }

    /// Shorthand for data that will never be accepted.
    pub fn invalid(
        operation: &'static str,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::new(ErrorKind::Invalid, operation, source)
    }

    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// True when waiting is the right answer.
    pub fn is_unavailable(&self) -> bool {
        self.kind == ErrorKind::Unavailable
    }

    /// True when it can do without a change of the data: the server comes back, or somebody makes room.
    pub fn is_passing(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Full)
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
        let what = match self.kind {
            ErrorKind::Unavailable => "is unavailable",
            ErrorKind::Full => "found no room left",
            ErrorKind::Invalid => "refused invalid data",
            ErrorKind::Conflict => "met a conflict",
            ErrorKind::NotFound => "found nothing",
            ErrorKind::Internal => "failed",
        };
        write!(f, "{} {what}", self.operation)
    }
}

impl StdError for PortError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self.source.as_ref())
    }
}
