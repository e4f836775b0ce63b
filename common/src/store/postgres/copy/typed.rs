//! COPY into the tables of datasets. Each cell becomes a value of its column's type.

use std::collections::{BTreeMap, HashMap};

use sqlx::error::BoxDynError;
use sqlx::postgres::PgConnection;

use super::{PIECE_BYTES, Pieces, append_value};
use crate::batch::{Batch, Cell};
use crate::dataset::{TypedColumn, quote_identifier};
use crate::store::postgres::datasets;
use crate::store::sql;
use crate::typed::append_binary;
use crate::upload::{UploadDataset, UploadId};

/// The columns of Carga behind the columns of the dataset: `upload_id` and `row_number`.
const OWN_COLUMNS: u16 = 2;

/// The length of a value that is NULL.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// Sends every row of the batches to the tables of their datasets. There is one COPY for each table
/// and list of columns: an upload that began before a column was added does not have it.
pub(in crate::store::postgres) async fn send_typed_rows(
    connection: &mut PgConnection,
    batches: &[&Batch],
    datasets: &HashMap<UploadId, UploadDataset>,
) -> sqlx::Result<()> {
    // In a fixed order, so that all workers lock the tables in the same order.
    let mut copies: BTreeMap<String, Vec<(&Batch, &UploadDataset)>> = BTreeMap::new();
    for &batch in batches {
        let dataset = &datasets[&batch.id.upload.id];
        check_columns(batch, dataset)?;
        let rows = copies.entry(statement(dataset)).or_default();
        rows.push((batch, dataset));
    }
    for (statement, rows) in copies {
        let sent = send(connection, &statement, &rows).await;
        sent.map_err(|error| match is_changed_by_hand(&error) {
            true => sql::invalid(error),
            false => error,
        })?;
    }
    Ok(())
}

async fn send(
    connection: &mut PgConnection,
    statement: &str,
    rows: &[(&Batch, &UploadDataset)],
) -> sqlx::Result<()> {
    let copy = connection.copy_in_raw(statement).await?;
    let mut pieces = Pieces::new(copy);
    for (batch, dataset) in rows {
        let mut next = 0;
        while next < batch.row_count() {
            next = append_typed_rows(&mut pieces.buffer, &dataset.columns, batch, next)
                .map_err(sql::invalid)?;
            pieces.send_piece().await?;
        }
    }
    pieces.finish().await
}

fn statement(dataset: &UploadDataset) -> String {
    let columns = dataset.columns.iter();
    let columns: String = columns
        .map(|column| quote_identifier(&column.name) + ", ")
        .collect();
    format!(
        "COPY {} ({columns}upload_id, row_number) FROM STDIN (FORMAT binary)",
        datasets::table(dataset.name.as_str())
    )
}

fn check_columns(batch: &Batch, dataset: &UploadDataset) -> sqlx::Result<()> {
    let names = dataset.columns.iter().map(|column| &column.name);
    match batch.columns.iter().eq(names) {
        true => Ok(()),
        false => Err(sql::invalid(
            "the columns of the batch are not those of its dataset",
        )),
    }
}

/// Whether the schema, the table or a column is missing, because somebody has changed it by hand.
/// Elsewhere such an error is *misconfigured*, and a worker stores nothing until an operator
/// repairs the fault. Here the batches of other uploads can still be stored.
fn is_changed_by_hand(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("3F000" | "42P01" | "42703"))
}

/// Appends the rows of a batch from this index on, until the buffer has a piece. Returns the index
/// of the next row. Fails if a cell is not a canonical text of its column's type.
fn append_typed_rows(
    buffer: &mut Vec<u8>,
    columns: &[TypedColumn],
    batch: &Batch,
    from: usize,
) -> Result<usize, BoxDynError> {
    let upload = batch.id.upload.id.as_uuid();
    let mut next = from;
    for (row_number, row) in batch.row_numbers().zip(batch.rows()).skip(from) {
        append_cells(buffer, columns, row)?;
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
    fn the_statement_quotes_the_names_of_the_table_and_the_columns() {
        let dataset = UploadDataset {
            name: "sales \"2024\"".parse().unwrap(),
            columns: vec![
                column("sku", ColumnType::Text),
                column("a\"b", ColumnType::Date),
            ],
            missing: Vec::new(),
            ignored: Vec::new(),
        };
        assert_eq!(
            statement(&dataset),
            "COPY datasets.\"sales \"\"2024\"\"\" (\"sku\", \"a\"\"b\", upload_id, row_number) \
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
