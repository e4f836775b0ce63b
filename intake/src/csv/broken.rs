//! Records that cannot be read.

/// A position in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The physical line, from 1.
    pub line: u64,
    /// The offset in bytes, before transcoding.
    pub offset: u64,
}

/// A record that cannot be read, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) kind: BrokenKind,
    pub(super) position: Position,
    /// The record without its line end. If the record is too long, only its beginning.
    pub(super) bytes: Vec<u8>,
}

/// Why a record cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BrokenKind {
    /// A quote is opened on the record's last line and is not closed before the limit or the
    /// end of the file.
    UnclosedQuote,
    /// A quote is opened on the record's last line and closed on a later line, with text after
    /// it. The value is the index of the field.
    StrayQuote { field: usize },
    /// The record is longer than the limit.
    TooLong { actual: u64 },
    /// The record is so long that the file is not CSV.
    Endless { actual: u64 },
}

impl BrokenKind {
    /// The length of a record that is too long, as far as it was counted.
    pub(super) fn actual_bytes(self) -> Option<u64> {
        match self {
            Self::UnclosedQuote | Self::StrayQuote { .. } => None,
            Self::TooLong { actual } | Self::Endless { actual } => Some(actual),
        }
    }
}
