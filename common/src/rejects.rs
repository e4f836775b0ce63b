//! Rejected rows, and the messages of uploads that fail because of them. The intake and the
//! completion of an upload check the same limits, so they use the same words.

use serde::{Deserialize, Serialize};

use crate::dataset::DatasetName;

/// The most characters of a column's name in the message about a rejected row.
const NAME_CHARS: usize = 100;

/// A record that was not stored, with its reason, its position and its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RejectedRow {
    /// The record's number in the file, from 1 without the header.
    pub row: u64,
    /// The physical line on which the record begins, from 1.
    pub line: u64,
    /// The byte of the decompressed file at which the record begins, from 0.
    pub offset: u64,
    /// The name of the faulty column, if one column is at fault.
    pub column: Option<String>,
    /// The stable code for programs: `too_few_fields`, `unique_violation`, ….
    pub code: String,
    /// The name of the table's constraint that the row violates.
    pub constraint: Option<String>,
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
    /// The row and its reason, for the message of its upload. A long name of a column is cut.
    pub fn reason(&self) -> String {
        let Self {
            row, code, message, ..
        } = self;
        let Some(column) = &self.column else {
            return format!("row {row} is rejected as `{code}`: {message}");
        };
        let (column, mark) = match column.char_indices().nth(NAME_CHARS) {
            None => (column.as_str(), ""),
            Some((end, _)) => (&column[..end], "…"),
        };
        format!("row {row} is rejected as `{code}` in column `{column}{mark}`: {message}")
    }

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

/// The message of `too_many_rejects` if more than `max_rejects` rows are rejected.
pub fn more_than_max(max: u64) -> String {
    format!("more than {max} rows were rejected (max_rejects)")
}

/// The message of `too_many_rejects` if more rows are rejected than are kept of any upload.
pub fn more_than_kept(kept: u64) -> String {
    format!(
        "more than {kept} rows were rejected, the most that are kept of an upload (CARGA_MAX_REJECTS)"
    )
}

/// The message of `too_many_rejects` if more than `max` percent of the rows are rejected.
pub fn larger_share(rejected: u64, read: u64, max: f64) -> String {
    format!("{rejected} of {read} rows were rejected, more than {max}% (max_rejects)")
}

/// The message of `no_row_fits` if the intake rejects all rows. `hint` is the end of the message.
pub fn no_row_fits(read: u64, hint: &str) -> String {
    format!("none of the {read} rows fits the columns; {hint}")
}

/// The message of `no_row_fits` if the table of a dataset has rejected rows, and no row is left.
/// `first` is the reason of the first rejected row.
pub fn no_row_stored(read: u64, dataset: &DatasetName, first: Option<&str>) -> String {
    let reason = first.map(|first| format!("; {first}")).unwrap_or_default();
    format!(
        "none of the {read} rows could be stored in dataset `{dataset}`{reason}; compare the file with the constraints of its table"
    )
}
