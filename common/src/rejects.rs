//! Rejected rows.

use serde::{Deserialize, Serialize};

/// A record that was not stored, with its reason, its position and its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedRow {
    /// The record's number in the file, from 1 without the header.
    pub row: u64,
    /// The physical line on which the record begins, from 1.
    pub line: u64,
    /// The byte of the decompressed file at which the record begins, from 0.
    pub offset: u64,
    /// The name of the faulty column, if one column is at fault.
    pub column: Option<String>,
    /// The stable code for programs: `too_few_fields`, `undecodable`, ….
    pub code: String,
    /// The explanation for people.
    pub message: String,
    /// The record as it was sent, if it has no one cell for each column. Undecodable bytes are
    /// written as `\xNN`.
    pub raw: Option<String>,
    /// The record's cells in the order of the columns, if there is one for each and only a value is
    /// at fault.
    pub fields: Option<Vec<String>>,
}

impl RejectedRow {
    /// The approximate bytes in memory and in the store.
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
