//! COPY of staged rows into `landing`, or into a table with the same columns. A row has the
//! canonical texts of its cells, and its origin behind them.

use sqlx::error::BoxDynError;
use sqlx::postgres::{PgConnection, PgCopyIn};

use super::{PIECE_BYTES, Pieces, append_row};
use crate::batch::{Batch, Cell, Origin};
use crate::dataset::TypedColumn;
use crate::store::sql;
use crate::store::violations::origin_json;
use crate::typed::append_binary;

/// A batch whose rows are staged.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::postgres) struct StagedBatch<'a> {
    /// The number of the upload in the table.
    pub(in crate::store::postgres) upload: i64,
    pub(in crate::store::postgres) batch: &'a Batch,
    /// The columns of the dataset, which are those of the batch.
    pub(in crate::store::postgres) columns: &'a [TypedColumn],
}

/// Sends every row of the batches, each with the number of its upload, and ends the COPY. Fails if
/// a cell is not a canonical text of its column's type, or if a batch does not say where its rows
/// were in the file.
pub(in crate::store::postgres) async fn send_rows(
    copy: PgCopyIn<&mut PgConnection>,
    batches: &[StagedBatch<'_>],
) -> sqlx::Result<()> {
    let mut pieces = Pieces::new(copy);
    for staged in batches {
        let StagedBatch {
            upload,
            batch,
            columns,
        } = *staged;
        let indexes: Vec<usize> = (0..batch.row_count()).collect();
        let staged = Staged {
            upload,
            batch,
            columns,
            origins: batch.origins(&indexes).map_err(sql::invalid)?,
        };
        let mut next = 0;
        while next < batch.row_count() {
            next = append_rows(&mut pieces.buffer, &staged, next).map_err(sql::invalid)?;
            pieces.send_piece().await?;
        }
    }
    pieces.finish().await?;
    Ok(())
}

/// The rows of a batch, and what is stored with them.
struct Staged<'a> {
    upload: i64,
    batch: &'a Batch,
    columns: &'a [TypedColumn],
    /// One for each row.
    origins: Vec<Origin>,
}

/// Appends rows from this index on until the buffer has a piece. Returns the index of the next row.
fn append_rows(
    buffer: &mut Vec<u8>,
    staged: &Staged<'_>,
    from: usize,
) -> Result<usize, BoxDynError> {
    let width = staged.columns.len() as u32;
    let numbered = staged.batch.row_numbers().zip(staged.batch.rows());
    let mut scratch = Vec::new();
    let mut next = from;
    for ((row_number, row), origin) in numbered.zip(&staged.origins).skip(from) {
        check_cells(&mut scratch, staged.columns, staged.batch.row(next))?;
        let origin = origin_json(origin);
        let ids = (staged.upload, row_number);
        append_row(buffer, ids, width, row, Some(&origin))?;
        next += 1;
        if buffer.len() >= PIECE_BYTES {
            break;
        }
    }
    Ok(next)
}

/// Checks that every cell is a canonical text, so that a merge can read it. `scratch` is a buffer
/// that is used again for each row.
fn check_cells<'a>(
    scratch: &mut Vec<u8>,
    columns: &[TypedColumn],
    cells: impl Iterator<Item = Cell<'a>>,
) -> Result<(), BoxDynError> {
    for (column, cell) in columns.iter().zip(cells) {
        let Some(text) = cell.text()? else {
            continue;
        };
        scratch.clear();
        append_binary(scratch, column.kind, std::str::from_utf8(&text)?)
            .map_err(|fault| format!("column `{}`: {fault}", column.name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::ColumnType;

    fn column(kind: ColumnType) -> TypedColumn {
        let name = "sold on".to_owned();
        TypedColumn { name, kind }
    }

    #[test]
    fn a_row_has_its_origin_behind_its_cells() {
        let cells = [Cell::Plain(b"\"A1\""), Cell::Null];
        let mut buffer = Vec::new();
        append_row(&mut buffer, (7, 3), 2, cells.into_iter(), Some("[4,90]")).unwrap();
        let ids = b"\0\x03\0\0\0\x08\0\0\0\0\0\0\0\x07\0\0\0\x08\0\0\0\0\0\0\0\x03";
        let header = b"\0\0\0\x28\0\0\0\x01\0\0\0\x01\0\0\0\x19\0\0\0\x03\0\0\0\x01";
        let elements = b"\0\0\0\x02A1\xff\xff\xff\xff\0\0\0\x06[4,90]";
        assert_eq!(buffer, [&ids[..], header, elements].concat());
    }

    #[test]
    fn a_cell_that_a_merge_could_not_read_is_a_fault() {
        let check = |text: &'static [u8]| {
            let columns = [column(ColumnType::Date)];
            check_cells(&mut Vec::new(), &columns, [Cell::Plain(text)].into_iter())
        };
        assert!(check(b"\"2024-02-29\"").is_ok());
        assert_eq!(
            check(b"\"secret\"").unwrap_err().to_string(),
            "column `sold on`: a cell is not a canonical `date`"
        );
    }
}
