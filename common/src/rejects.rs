//! Rows that were not stored, and why.

use serde::{Deserialize, Serialize};

/// A record of a file that is no row, with everything it takes to find it, to mend it and to send
/// it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedRow {
    /// Which record of the file, counted from 1 without the header: its `row_number`, had it been
    /// stored.
    pub row: u64,
    /// The physical line on which it begins, from 1.
    pub line: u64,
    /// The byte of the file (of what is compressed, if it is) at which it begins, from 0.
    pub offset: u64,
    /// The column at fault, if it is one.
    pub column: Option<String>,
    /// Stable and meant for programs: `too_few_fields`, `undecodable`, ….
    pub code: String,
    /// Meant for people.
    pub message: String,
    /// The record as it came, where it does not fit the columns. What is no text is written as
    /// `\xNN`.
    pub raw: Option<String>,
    /// Its cells in the order of the columns, where it fits them.
    pub fields: Option<Vec<String>>,
}

impl RejectedRow {
    /// About what it costs to hold and to store.
    pub fn size_bytes(&self) -> usize {
        let fields = self.fields.iter().flatten().map(String::len);
        size_of::<Self>()
            + self.message.len()
            + self.raw.as_ref().map_or(0, String::len)
            + fields
                .map(|length| length + size_of::<String>())
                .sum::<usize>()
    }
}
