//! Typed cells, from their canonical text to the values that the databases store.
//!
//! A message has the cells of a dataset as canonical text, so that storing them needs no rules for
//! reading.
//!
//! | Type | Canonical text |
//! |---|---|
//! | `text` | the text itself |
//! | `integer` | decimal digits without leading zeros, in 64 bits with a sign |
//! | `numeric` | decimal digits without leading zeros or an exponent; zeros at the end are kept |
//! | `float` | the shortest digits that are read back as the same number; finite |
//! | `boolean` | `true` or `false` |
//! | `date` | `YYYY-MM-DD`, from year 1 to year 9999 |
//! | `timestamp` | `YYYY-MM-DDTHH:MM:SS.ffffffZ` |
//! | `uuid` | lower case with hyphens |
//! | `json` | the text as it was sent |
//!
//! [`usual_text`] is the text that a file usually has for a value.

#[cfg(feature = "postgres")]
mod binary;
#[cfg(feature = "postgres")]
mod calendar;
#[cfg(feature = "postgres")]
mod numeric;
mod usual;
mod width;

#[cfg(feature = "postgres")]
pub use binary::append_binary;
pub use usual::{is_usual_text, usual_text};
#[cfg(feature = "postgres")]
pub(crate) use width::POSTGRES_ROW_BYTES;
pub use width::{RowTooWide, RowWidth};

use crate::dataset::ColumnType;

/// A cell of a message is not a canonical text of its type, so the database cannot store it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cell is not a canonical `{0}`")]
pub struct NotCanonical(ColumnType);

/// The SQL expression for one cell of a row in SQLite. The row is a JSON list of canonical texts in
/// the column `value` of `json_each`, and `index` counts its cells from 0.
///
/// The affinity of the table's columns converts the texts of numbers.
pub fn sqlite_value(kind: ColumnType, index: usize) -> String {
    match kind {
        ColumnType::Boolean => format!("(value ->> {index}) = 'true'"),
        ColumnType::Text
        | ColumnType::Integer
        | ColumnType::Numeric
        | ColumnType::Float
        | ColumnType::Date
        | ColumnType::Timestamp
        | ColumnType::Uuid
        | ColumnType::Json => format!("value ->> {index}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_gets_texts_and_booleans() {
        assert_eq!(sqlite_value(ColumnType::Numeric, 0), "value ->> 0");
        assert_eq!(
            sqlite_value(ColumnType::Boolean, 12),
            "(value ->> 12) = 'true'"
        );
    }

    #[test]
    fn the_message_of_a_fault_names_the_type() {
        let fault = NotCanonical(ColumnType::Date).to_string();
        assert_eq!(fault, "a cell is not a canonical `date`");
    }
}
