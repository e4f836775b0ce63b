//! The report of rejected rows: their text and the reasons, ready to be corrected and sent again.

use std::borrow::Cow;
use std::io;

use carga_common::rejects::RejectedRow;

use super::export::RecordForm;

/// Follow the file's own columns. The importer does not store columns whose names begin like these,
/// so a corrected report is a file.
const COLUMNS: [&str; 8] = [
    "_carga_row",
    "_carga_line",
    "_carga_offset",
    "_carga_column",
    "_carga_code",
    CONSTRAINT,
    "_carga_message",
    "_carga_raw",
];

/// Only the report of an upload with a dataset has this column, because only the table of a dataset
/// has constraints.
const CONSTRAINT: &str = "_carga_constraint";

/// What happens to cells that a spreadsheet would run as a formula.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Formulas {
    /// They stay as they are.
    Keep,
    /// An apostrophe is put before them, which changes the data (OWASP, "CSV Injection").
    Escape,
}

/// Rejected rows: the columns of their upload, then `_carga_…`.
#[derive(Debug)]
pub struct RejectForm {
    columns: Vec<String>,
    has_dataset: bool,
    formulas: Formulas,
}

impl RejectForm {
    /// The form of the rejected rows of an upload with these columns. If it has a dataset, the form
    /// has a column for the constraint that a row violates.
    pub fn new(columns: Vec<String>, has_dataset: bool, formulas: Formulas) -> Self {
        Self {
            columns,
            has_dataset,
            formulas,
        }
    }

    fn cell<'r>(&self, cell: Cow<'r, str>) -> Cow<'r, str> {
        let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
        match self.formulas {
            Formulas::Escape if is_formula => Cow::Owned(format!("'{cell}")),
            _ => cell,
        }
    }
}

impl RecordForm<RejectedRow> for RejectForm {
    fn header(&self) -> impl Iterator<Item = Cow<'_, str>> + Send {
        let names = self.columns.iter().map(String::as_str);
        let ours = COLUMNS.into_iter();
        let ours = ours.filter(|name| self.has_dataset || *name != CONSTRAINT);
        names.chain(ours).map(|name| self.cell(name.into()))
    }

    fn cells<'r>(&'r self, row: &'r RejectedRow) -> impl Iterator<Item = Cow<'r, str>> + Send {
        let fields = row.fields.as_deref().unwrap_or_default();
        let fields = (0..self.columns.len()).map(|index| {
            let field = fields.get(index);
            field.map_or("", String::as_str).into()
        });
        let numbers = [row.row, row.line, row.offset].map(|number| number.to_string().into());
        let constraint = row.constraint.as_deref().unwrap_or("");
        let texts = [
            Some(row.column.as_deref().unwrap_or("")),
            Some(row.code.as_str()),
            self.has_dataset.then_some(constraint),
            Some(row.message.as_str()),
            Some(row.raw.as_deref().unwrap_or("")),
        ];
        let texts = texts.into_iter().flatten().map(Cow::Borrowed);
        let ours = numbers.into_iter().chain(texts);
        fields.chain(ours).map(|cell| self.cell(cell))
    }

    fn append_json(&self, row: &RejectedRow, page: &mut Vec<u8>) -> io::Result<()> {
        Ok(serde_json::to_writer(page, row)?)
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt, TryStreamExt, stream};

    use super::super::export::{Format, export};
    use super::*;

    fn rows() -> [RejectedRow; 2] {
        let of_fields = RejectedRow {
            row: 3,
            line: 5,
            offset: 70,
            column: Some("b".to_owned()),
            code: "undecodable".to_owned(),
            constraint: None,
            message: "not UTF-8".to_owned(),
            raw: None,
            fields: Some(vec!["=1+1".to_owned(), "x,\n\\xE9".to_owned()]),
        };
        let raw = RejectedRow {
            row: 4,
            column: None,
            code: "too_few_fields".to_owned(),
            message: "1 of 2".to_owned(),
            raw: Some("@x".to_owned()),
            fields: None,
            ..of_fields.clone()
        };
        [of_fields, raw]
    }

    fn written(formulas: Formulas, format: Format) -> String {
        let form = RejectForm::new(["a", "b"].map(String::from).to_vec(), false, formulas);
        exported(rows(), form, format)
    }

    fn exported(rows: [RejectedRow; 2], form: RejectForm, format: Format) -> String {
        let pages = export(stream::iter(rows.map(Ok)).boxed(), form, format);
        // Nothing here waits, so the future is ready at once.
        let pages = pages.try_collect::<Vec<_>>().now_or_never();
        String::from_utf8(pages.unwrap().unwrap().concat()).unwrap()
    }

    #[test]
    fn the_report_has_the_columns_of_the_file_and_then_ours() {
        let head = "a,b,_carga_row,_carga_line,_carga_offset,_carga_column,_carga_code,_carga_message,_carga_raw\n";
        assert_eq!(
            written(Formulas::Keep, Format::Csv),
            format!(
                "{head}=1+1,\"x,\n\\xE9\",3,5,70,b,undecodable,not UTF-8,\n,,4,5,70,,too_few_fields,1 of 2,@x\n"
            )
        );
        assert_eq!(
            written(Formulas::Escape, Format::Csv),
            format!(
                "{head}'=1+1,\"x,\n\\xE9\",3,5,70,b,undecodable,not UTF-8,\n,,4,5,70,,too_few_fields,1 of 2,'@x\n"
            )
        );
    }

    #[test]
    fn the_report_of_an_upload_with_a_dataset_names_the_constraint() {
        let [row, other] = rows();
        let violating = RejectedRow {
            code: "check_violation".to_owned(),
            constraint: Some("=positive".to_owned()),
            ..row
        };
        let form = |formulas| RejectForm::new(vec!["a".to_owned()], true, formulas);
        let rows = [violating, other];
        let head = "a,_carga_row,_carga_line,_carga_offset,_carga_column,_carga_code,_carga_constraint,_carga_message,_carga_raw\n";
        assert_eq!(
            exported(rows.clone(), form(Formulas::Keep), Format::Csv),
            format!(
                "{head}=1+1,3,5,70,b,check_violation,=positive,not UTF-8,\n,4,5,70,,too_few_fields,,1 of 2,@x\n"
            )
        );
        let escaped = exported(rows.clone(), form(Formulas::Escape), Format::Csv);
        assert!(escaped.contains(",'=positive,"), "{escaped}");
        let objects = exported(rows, form(Formulas::Keep), Format::Ndjson);
        assert!(objects.contains(r#""code":"check_violation","constraint":"=positive","#));
    }

    #[test]
    fn in_ndjson_a_row_is_an_object() {
        let written = written(Formulas::Keep, Format::Ndjson);
        let lines: Vec<RejectedRow> = written
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines, rows());
        assert!(written.starts_with(r#"{"row":3,"line":5,"offset":70,"column":"b","#));
    }
}
