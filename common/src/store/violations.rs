//! Makes rejected rows of the rows that violate a constraint of a dataset's table.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::batch::{Batch, Cell, DecodeError, Origin};
use crate::rejects::RejectedRow;
use crate::typed::usual_text;
use crate::upload::UploadDataset;

/// The most characters of a message. A trigger may write a long one, and every rejected row keeps
/// its own copy.
const MAX_MESSAGE_CHARS: usize = 1000;

/// Why the table does not take a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    /// The stable code for programs.
    pub(super) code: &'static str,
    /// The database's own message, at most [`MAX_MESSAGE_CHARS`] long (see [`shortened`]).
    pub(super) message: String,
    /// The column of the table, if one column is at fault.
    pub(super) column: Option<String>,
    /// The name of the constraint, if it has one.
    pub(super) constraint: Option<String>,
}

/// Cuts a database's message for a [`Violation`]. A message that was cut ends in `…`.
pub(super) fn shortened(message: &str) -> String {
    if message.chars().nth(MAX_MESSAGE_CHARS).is_none() {
        return message.to_owned();
    }
    let kept = message.chars().take(MAX_MESSAGE_CHARS - 1);
    kept.chain(['…']).collect()
}

/// A row that waits for its upload's merge.
#[derive(Debug)]
pub(super) struct StagedRow<'a> {
    /// The record's number in the file.
    pub(super) number: u64,
    /// The position in the file and the changed cells, as [`origin_json`] writes them.
    pub(super) origin: &'a str,
    /// The canonical texts of the values, in the order of the dataset's columns.
    pub(super) cells: &'a [Option<String>],
}

/// The element behind the cells of a staged row: line, offset and, if there are any, the changed
/// cells.
pub(super) fn origin_json(origin: &Origin) -> String {
    let Origin {
        line,
        offset,
        changed,
    } = origin;
    if changed.is_empty() {
        return format!("[{line},{offset}]");
    }
    serde_json::json!([line, offset, changed]).to_string()
}

/// An origin as [`origin_json`] writes it.
#[derive(Deserialize)]
struct StagedOrigin(u64, u64, #[serde(default)] Vec<(u32, String)>);

/// Makes the rejected row of a staged row. `file_columns` are the columns of the file. Fails if the
/// origin is malformed.
pub(super) fn rejected_staged_row(
    row: &StagedRow<'_>,
    dataset: &UploadDataset,
    file_columns: &[String],
    violation: &Violation,
) -> Result<RejectedRow, serde_json::Error> {
    let StagedOrigin(line, offset, changed) = serde_json::from_str(row.origin)?;
    let origin = Origin {
        line,
        offset,
        changed,
    };
    let source = Source {
        number: row.number,
        origin,
        cells: row.cells,
    };
    Ok(rejected_row(source, dataset, file_columns, violation))
}

/// Makes the rejected rows of a batch, in order. `violations` has their indexes in the batch, and
/// `file_columns` are the columns of the file. Fails if the message does not say where its rows
/// were in the file.
pub(super) fn rejected_rows(
    batch: &Batch,
    dataset: &UploadDataset,
    file_columns: &[String],
    violations: &BTreeMap<usize, Violation>,
) -> Result<Vec<RejectedRow>, DecodeError> {
    let indexes: Vec<usize> = violations.keys().copied().collect();
    let origins = batch.origins(&indexes)?;
    let numbers: Vec<u64> = batch.row_numbers().collect();
    let mut rows = Vec::with_capacity(indexes.len());
    for ((&index, violation), origin) in violations.iter().zip(origins) {
        let source = Source {
            number: numbers.get(index).copied().unwrap_or_default(),
            origin,
            cells: &texts(batch, index)?,
        };
        rows.push(rejected_row(source, dataset, file_columns, violation));
    }
    Ok(rows)
}

/// The canonical texts of a row of a batch.
fn texts(batch: &Batch, index: usize) -> Result<Vec<Option<String>>, serde_json::Error> {
    let text = |cell: Cell<'_>| {
        let text = cell.text()?;
        Ok(text.map(|text| String::from_utf8_lossy(&text).into_owned()))
    };
    batch.row(index).map(text).collect()
}

/// A row that the table does not take.
struct Source<'a> {
    number: u64,
    origin: Origin,
    cells: &'a [Option<String>],
}

fn rejected_row(
    row: Source<'_>,
    dataset: &UploadDataset,
    file_columns: &[String],
    violation: &Violation,
) -> RejectedRow {
    let column = violation.column.as_deref();
    RejectedRow {
        row: row.number,
        line: row.origin.line,
        offset: row.origin.offset,
        column: column.map(|column| name_in_file(column, dataset, file_columns)),
        code: violation.code.to_owned(),
        constraint: violation.constraint.clone(),
        message: violation.message.clone(),
        raw: None,
        fields: Some(fields(row, dataset, file_columns.len())),
    }
}

/// The name of the file's column that a column of the table is read from, or the name in the table
/// if the file lacks the column.
fn name_in_file(column: &str, dataset: &UploadDataset, file_columns: &[String]) -> String {
    let mut sources = dataset.columns.iter().zip(&dataset.sources);
    let source = sources.find(|(known, _)| known.name == column);
    let in_file = source.and_then(|(_, source)| file_columns.get((*source)? as usize));
    in_file.map_or_else(|| column.to_owned(), Clone::clone)
}

/// The texts of a row as they were in the file, one for each of its `width` columns.
fn fields(row: Source<'_>, dataset: &UploadDataset, width: usize) -> Vec<String> {
    let mut fields = vec![String::new(); width];
    let columns = dataset.columns.iter().zip(&dataset.sources);
    for ((column, source), cell) in columns.zip(row.cells) {
        let field = source.and_then(|source| fields.get_mut(source as usize));
        if let (Some(field), Some(text)) = (field, cell) {
            *field = usual_text(column.kind, text).into_owned();
        }
    }
    for (source, text) in row.origin.changed {
        if let Some(field) = fields.get_mut(source as usize) {
            *field = text;
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchEncoder, BatchLimits, RowOrigin};
    use crate::dataset::{ColumnType, TypedColumn};
    use crate::upload::{RejectLimit, UploadId, UploadKey};

    /// A dataset of the columns `sku`, `at` and `note`. The file lacks `note`, and has a column
    /// before the others that is not stored.
    fn dataset() -> UploadDataset {
        let column = |name: &str, kind| TypedColumn {
            name: name.to_owned(),
            kind,
        };
        UploadDataset {
            name: "sales".parse().unwrap(),
            tenant: Default::default(),
            columns: vec![
                column("sku", ColumnType::Text),
                column("at", ColumnType::Timestamp),
                column("note", ColumnType::Text),
            ],
            missing: vec!["note".to_owned()],
            ignored: vec!["Internal".to_owned()],
            sources: vec![Some(2), Some(1), None],
            reject_limit: RejectLimit::default(),
            merge: None,
            table: None,
        }
    }

    fn file_columns() -> Vec<String> {
        ["Internal", "Sold at", "Article"]
            .map(String::from)
            .to_vec()
    }

    /// A batch with the rows 4, 5 and 9.
    fn batch() -> Batch {
        let columns = ["sku", "at", "note"].map(String::from);
        let limits = BatchLimits {
            rows: 10,
            bytes: 10_000,
        };
        let upload = UploadKey::first(UploadId::generate());
        let mut encoder = BatchEncoder::typed(upload, &columns, "00-trace", limits);
        let rows = [
            (4, Some("A1"), "2024-02-29T10:00:00.000000Z", vec![]),
            (5, None, "2024-02-29T10:00:00.500000Z", vec![]),
            (
                9,
                Some("A\"9"),
                "2024-02-29T11:00:00.000000Z",
                vec![(0, "x"), (1, "29.02.2024 11:00")],
            ),
        ];
        for (number, sku, at, changed) in rows {
            let origin = RowOrigin {
                line: number + 1,
                offset: number * 100,
                changed: changed.into_iter(),
            };
            let cells = [sku, Some(at), None].into_iter();
            encoder.push_typed(number, cells, origin).unwrap();
        }
        Batch::decode(encoder.finish().0.unwrap().body).unwrap()
    }

    fn violation(column: Option<&str>) -> Violation {
        Violation {
            code: "unique_violation",
            message: "duplicate key".to_owned(),
            column: column.map(str::to_owned),
            constraint: Some("one_sku".to_owned()),
        }
    }

    fn reject(violations: &[(usize, Option<&str>)]) -> Vec<RejectedRow> {
        let violations = violations.iter();
        let violations = violations.map(|(index, column)| (*index, violation(*column)));
        let violations = violations.collect();
        rejected_rows(&batch(), &dataset(), &file_columns(), &violations).unwrap()
    }

    #[test]
    fn a_long_message_is_cut() {
        let message = "ä".repeat(MAX_MESSAGE_CHARS);
        assert_eq!(shortened(&message), message);
        let cut = shortened(&(message + "b"));
        assert_eq!(cut.chars().count(), MAX_MESSAGE_CHARS);
        assert!(cut.ends_with("ä…"));
    }

    #[test]
    fn a_rejected_row_has_its_position_and_its_reason() {
        let rejected = reject(&[(1, Some("sku"))]);
        assert_eq!(
            rejected,
            [RejectedRow {
                row: 5,
                line: 6,
                offset: 500,
                column: Some("Article".to_owned()),
                code: "unique_violation".to_owned(),
                constraint: Some("one_sku".to_owned()),
                message: "duplicate key".to_owned(),
                raw: None,
                fields: Some(
                    ["", "2024-02-29T10:00:00.500000Z", ""]
                        .map(String::from)
                        .to_vec()
                ),
            }]
        );
    }

    #[test]
    fn a_rejected_row_has_the_texts_of_the_file() {
        let rejected = reject(&[(0, None), (2, None)]);
        let fields: Vec<_> = rejected
            .into_iter()
            .map(|row| row.fields.unwrap())
            .collect();
        let expected = [
            ["", "2024-02-29T10:00:00Z", "A1"],
            ["x", "29.02.2024 11:00", "A\"9"],
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_column_that_the_file_lacks_has_its_name_in_the_table() {
        for column in ["note", "added by hand"] {
            let rejected = reject(&[(0, Some(column))]);
            assert_eq!(rejected[0].column.as_deref(), Some(column));
        }
    }

    #[test]
    fn a_staged_row_is_rejected_like_a_row_of_its_batch() {
        let expected = reject(&[(0, Some("sku")), (2, None)]);
        let batch = batch();
        let numbers: Vec<u64> = batch.row_numbers().collect();
        for (rejected, (index, column)) in expected.iter().zip([(0, Some("sku")), (2, None)]) {
            let origin = origin_json(&batch.origins(&[index]).unwrap()[0]);
            let row = StagedRow {
                number: numbers[index],
                origin: &origin,
                cells: &texts(&batch, index).unwrap(),
            };
            let violation = violation(column);
            let staged = rejected_staged_row(&row, &dataset(), &file_columns(), &violation);
            assert_eq!(staged.unwrap(), *rejected);
        }
    }

    #[test]
    fn a_batch_that_does_not_say_where_its_rows_were_is_a_fault() {
        let upload = UploadId::generate();
        let message = format!(
            r#"{{"v":3,"upload":"{upload}","epoch":1,"seq":1,"trace":"","columns":["sku"],"rows":[["A1"]],"runs":[[1,1]]}}"#
        );
        let batch = Batch::decode(message.into()).unwrap();
        let violations = [(0, violation(None))].into();
        assert!(rejected_rows(&batch, &dataset(), &file_columns(), &violations).is_err());
    }
}
