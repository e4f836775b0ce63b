//! The bytes that a row takes in a page of Postgres.
//!
//! A row must fit into one page. A long value does not count, because Postgres moves it out of the
//! row and leaves a pointer (PostgreSQL manual, "TOAST"). Values of up to 24 bytes stay in the row,
//! so a row with several hundred short values may not fit. The functions `heap_form_tuple` and
//! `heap_toast_insert_or_update` define these figures.

use crate::dataset::{ColumnType, TypedColumn};

/// The most bytes of a row in Postgres (`MaxHeapTupleSize`).
#[cfg(feature = "postgres")]
pub(crate) const POSTGRES_ROW_BYTES: usize = 8160;

/// The bytes before the map of the values that are NULL.
const HEAD_BYTES: usize = 23;

/// The columns behind those of the dataset: `upload_id` and `row_number`.
const OWN_COLUMNS: usize = 2;

/// Room for other padding, because columns that were added later are behind `row_number`.
const SPARE_BYTES: usize = 8;

/// The longest value that is never moved out of its row, including one byte for its length.
const LONGEST_INLINE: usize = 24;

/// The pointer to a value that was moved.
const POINTER_BYTES: usize = 18;

/// A row that is too wide for the table of its dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the row takes {actual} bytes in the database, which stores at most {limit} for a row with so many columns; use fewer columns, or import without a dataset"
)]
pub struct RowTooWide {
    /// The most bytes of a row.
    pub limit: usize,
    /// The bytes of this row.
    pub actual: usize,
}

/// Measures the rows of one upload.
#[derive(Debug, Clone)]
pub struct RowWidth {
    kinds: Vec<ColumnType>,
    limit: usize,
}

impl RowWidth {
    /// Prepares to measure rows of these columns. Returns `None` if every such row fits into the
    /// limit, as with 300 columns or fewer in Postgres.
    pub fn new(columns: &[TypedColumn], limit: usize) -> Option<Self> {
        let kinds: Vec<ColumnType> = columns.iter().map(|column| column.kind).collect();
        let widest = kinds.iter().map(|kind| {
            let (bytes, alignment) = layout(*kind, LONGEST_INLINE - 1);
            bytes + alignment - 1
        });
        let widest: usize = widest.sum();
        (whole_row(kinds.len(), widest) > limit).then_some(Self { kinds, limit })
    }

    /// Measures a row of canonical texts. `None` is NULL.
    pub fn check<'a>(
        &self,
        cells: impl Iterator<Item = Option<&'a str>>,
    ) -> Result<(), RowTooWide> {
        let mut bytes = 0;
        for (kind, cell) in self.kinds.iter().zip(cells) {
            if let Some(text) = cell {
                let length = match kind {
                    ColumnType::Numeric => numeric_bytes(text),
                    _ => text.len(),
                };
                let (value, alignment) = layout(*kind, length);
                bytes = align(bytes, alignment) + value;
            }
        }
        let (actual, limit) = (whole_row(self.kinds.len(), bytes), self.limit);
        match actual <= limit {
            true => Ok(()),
            false => Err(RowTooWide { limit, actual }),
        }
    }
}

/// The bytes of a row whose values take `values` bytes.
fn whole_row(columns: usize, values: usize) -> usize {
    let head = HEAD_BYTES + (columns + OWN_COLUMNS).div_ceil(8);
    let (upload_id, row_number) = (16, 8);
    align(head, 8) + align(values + upload_id, 8) + row_number + SPARE_BYTES
}

/// The bytes that a value takes in its row, and its alignment. `length` is that of its content.
fn layout(kind: ColumnType, length: usize) -> (usize, usize) {
    match kind {
        ColumnType::Integer | ColumnType::Float | ColumnType::Timestamp => (8, 8),
        ColumnType::Date => (4, 4),
        ColumnType::Boolean => (1, 1),
        ColumnType::Uuid => (16, 1),
        // Short JSON takes more bytes than its text.
        ColumnType::Json => (LONGEST_INLINE, 1),
        ColumnType::Text | ColumnType::Numeric if length < LONGEST_INLINE => (length + 1, 1),
        ColumnType::Text | ColumnType::Numeric => (POINTER_BYTES, 1),
    }
}

/// The bytes of a numeric value: its head, and two for each group of four digits on either side of
/// the decimal mark.
fn numeric_bytes(text: &str) -> usize {
    const NUMERIC_HEAD: usize = 2;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (integer, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    NUMERIC_HEAD + 2 * (integer.len().div_ceil(4) + fraction.len().div_ceil(4))
}

fn align(bytes: usize, alignment: usize) -> usize {
    bytes.next_multiple_of(alignment)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 8160;

    fn columns(kind: ColumnType, count: usize) -> Vec<TypedColumn> {
        let column = |number| TypedColumn {
            name: format!("column {number}"),
            kind,
        };
        (0..count).map(column).collect()
    }

    /// The most columns that may have this value in one row of 1,598 columns.
    fn most(kind: ColumnType, text: &str) -> usize {
        let Some(width) = RowWidth::new(&columns(kind, 1598), LIMIT) else {
            return 1598;
        };
        let fits = |count: &usize| {
            let row = (0..1598).map(|column| (column < *count).then_some(text));
            width.check(row).is_ok()
        };
        (0..=1598).take_while(fits).last().unwrap()
    }

    #[test]
    fn a_row_has_the_bytes_that_postgres_counts() {
        let kinds = [
            (ColumnType::Boolean, "true"),
            (ColumnType::Integer, "1"),
            (ColumnType::Text, "abc"),
            (ColumnType::Date, "2024-02-29"),
            (ColumnType::Numeric, "-12345.678"),
        ];
        let width = RowWidth {
            kinds: kinds.map(|(kind, _)| kind).to_vec(),
            limit: 0,
        };
        // The head has 24 bytes. The values begin at 0, 8, 16, 20, 24, and those of Carga at 33
        // and 56.
        let row = kinds.iter().map(|(_, text)| Some(*text));
        let row = width.check(row).unwrap_err();
        assert_eq!(row.actual, 24 + 64 + SPARE_BYTES);
        let nulls = width.check(kinds.iter().map(|_| None)).unwrap_err();
        assert_eq!(nulls.actual, 24 + 24 + SPARE_BYTES);
    }

    #[test]
    fn rows_of_few_columns_are_not_measured() {
        for kind in ColumnType::ALL {
            let width = RowWidth::new(&columns(kind, 300), LIMIT);
            assert!(width.is_none(), "{kind}");
        }
        let width = RowWidth::new(&columns(ColumnType::Text, 400), LIMIT);
        assert!(width.is_some());
    }

    #[test]
    fn short_values_fill_a_row_and_long_ones_only_with_their_pointers() {
        // The head of such a row has 224 bytes, and the columns of Carga have 24.
        let bytes = LIMIT - 224 - 24 - SPARE_BYTES;
        for (kind, text, each) in [
            (ColumnType::Integer, "1", 8),
            (ColumnType::Timestamp, "2024-02-29T00:00:00.000000Z", 8),
            (ColumnType::Uuid, "67e55044-10b1-426f-9247-bb680e5fe0c8", 16),
            (ColumnType::Text, "12345678901234567890123", 24),
            (ColumnType::Text, "123456789012345678901234", 18),
            (ColumnType::Numeric, "1234.5", 7),
        ] {
            assert_eq!(most(kind, text), bytes / each, "{kind} {text}");
        }
        let long = "x".repeat(100_000);
        assert_eq!(most(ColumnType::Text, &long), bytes / 18);
        assert_eq!(most(ColumnType::Boolean, "true"), 1598);
    }
}
