//! COPY into the tables of datasets. Each cell becomes a value of its column's type.

use std::ops::Range;

use sqlx::error::BoxDynError;
use sqlx::postgres::PgConnection;

use super::{PIECE_BYTES, Pieces, append_value};
use crate::batch::{Batch, Cell};
use crate::dataset::{TypedColumn, quote_identifier};
use crate::store::sql;
use crate::typed::append_binary;

/// The columns of Carga behind the columns of the dataset: `upload_id` and `row_number`.
const OWN_COLUMNS: u16 = 2;

/// The length of a value that is NULL.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// Consecutive rows of a batch.
#[derive(Debug)]
pub(in crate::store::postgres) struct Segment<'a> {
    pub(in crate::store::postgres) batch: &'a Batch,
    /// The columns of the dataset, which are those of the batch.
    pub(in crate::store::postgres) columns: &'a [TypedColumn],
    /// The indexes of the rows in the batch.
    pub(in crate::store::postgres) rows: Range<usize>,
}

/// Sends these rows in one COPY. `statement` is from [`statement`]. Returns how many rows the table
/// has taken, since a trigger may leave rows out.
pub(in crate::store::postgres) async fn send_segments(
    connection: &mut PgConnection,
    statement: &str,
    segments: Vec<Segment<'_>>,
) -> sqlx::Result<u64> {
    let copy = connection.copy_in_raw(statement).await?;
    let mut pieces = Pieces::new(copy);
    for mut segment in segments {
        while !segment.rows.is_empty() {
            let next = append_typed_rows(&mut pieces.buffer, &segment).map_err(sql::invalid)?;
            segment.rows.start = next;
            pieces.send_piece().await?;
        }
    }
    pieces.finish().await
}

/// The statement that starts the COPY into a table with these columns. The name of the table is
/// quoted already.
pub(in crate::store::postgres) fn statement(table: &str, columns: &[TypedColumn]) -> String {
    let columns: String = columns
        .iter()
        .map(|column| quote_identifier(&column.name) + ", ")
        .collect();
    format!("COPY {table} ({columns}upload_id, row_number) FROM STDIN (FORMAT binary)")
}

/// Appends the rows of a segment until the buffer has a piece. Returns the index of the next row.
/// Fails if a cell is not a canonical text of its column's type.
fn append_typed_rows(buffer: &mut Vec<u8>, segment: &Segment<'_>) -> Result<usize, BoxDynError> {
    let Segment {
        batch,
        columns,
        rows,
    } = segment;
    let upload = batch.id.upload.id.as_uuid();
    let mut next = rows.start;
    // A segment may be one row near the end of its batch. `skip` passes over whole runs of numbers,
    // and a row is found by its index.
    let numbers = batch.row_numbers().skip(rows.start);
    for (row_number, index) in numbers.zip(rows.clone()) {
        append_cells(buffer, columns, batch.row(index))?;
        append_value(buffer, upload.as_bytes());
        append_value(buffer, &row_number.to_be_bytes());
        next += 1;
        if buffer.len() >= PIECE_BYTES {
            break;
        }
    }
    Ok(next)
}

fn append_cells<'a>(
    buffer: &mut Vec<u8>,
    columns: &[TypedColumn],
    row: impl Iterator<Item = Cell<'a>>,
) -> Result<(), BoxDynError> {
    let fields = columns.len() as u16 + OWN_COLUMNS;
    buffer.extend_from_slice(&fields.to_be_bytes());
    for (column, cell) in columns.iter().zip(row) {
        let Some(text) = cell.text()? else {
            buffer.extend_from_slice(&NULL);
            continue;
        };
        let text = std::str::from_utf8(&text)?;
        append_binary(buffer, column.kind, text)
            .map_err(|fault| format!("column `{}`: {fault}", column.name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::ColumnType;

    fn column(name: &str, kind: ColumnType) -> TypedColumn {
        let name = name.to_owned();
        TypedColumn { name, kind }
    }

    #[test]
    fn the_statement_quotes_the_names_of_the_columns() {
        let columns = [
            column("sku", ColumnType::Text),
            column("a\"b", ColumnType::Date),
        ];
        assert_eq!(
            statement("datasets.\"sales\"", &columns),
            "COPY datasets.\"sales\" (\"sku\", \"a\"\"b\", upload_id, row_number) \
             FROM STDIN (FORMAT binary)"
        );
    }

    #[test]
    fn a_row_has_its_cells_as_typed_values() {
        let columns = [
            column("sku", ColumnType::Text),
            column("sold", ColumnType::Boolean),
            column("note", ColumnType::Text),
        ];
        let cells = [Cell::Plain(b"\"A1\""), Cell::Plain(b"\"true\""), Cell::Null];
        let mut buffer = Vec::new();
        append_cells(&mut buffer, &columns, cells.into_iter()).unwrap();
        assert_eq!(buffer, b"\0\x05\0\0\0\x02A1\0\0\0\x01\x01\xff\xff\xff\xff");
    }

    #[test]
    fn the_fault_of_a_cell_names_the_column_and_not_the_value() {
        let columns = [column("sold on", ColumnType::Date)];
        let cells = [Cell::Plain(b"\"secret\"")];
        let fault = append_cells(&mut Vec::new(), &columns, cells.into_iter()).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "column `sold on`: a cell is not a canonical `date`"
        );
    }
}
