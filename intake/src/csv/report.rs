//! The report of rejected rows: what did not make it and why, ready to be mended and sent again.

use std::borrow::Cow;

use carga_common::rejects::RejectedRow;

/// Behind the file's own columns. The importer takes no column that begins like this, so a corrected report is a file.
const COLUMNS: [&str; 7] = [
    "_carga_row",
    "_carga_line",
    "_carga_offset",
    "_carga_column",
    "_carga_code",
    "_carga_message",
    "_carga_raw",
];

/// Rows of a report that are written together.
pub const PAGE_ROWS: usize = 256;

/// What a report looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportForm {
    /// The file's columns, then ours.
    Csv,
    /// The same with what a spreadsheet would take for a formula behind an apostrophe (OWASP, "CSV Injection"). That changes the
    /// data.
    SpreadsheetCsv,
    /// An object per line.
    Ndjson,
}

/// Writes the report of an upload with these columns.
#[derive(Debug)]
pub struct RejectReport {
    form: ReportForm,
    columns: Vec<String>,
}

impl RejectReport {
    /// A report that has not been begun.
    pub fn new(form: ReportForm, columns: Vec<String>) -> Self {
        Self { form, columns }
    }

    /// What comes before the rows.
    pub fn head(&self) -> csv::Result<Vec<u8>> {
        if self.form == ReportForm::Ndjson {
            return Ok(Vec::new());
        }
        let names = self.columns.iter().map(String::as_str);
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(
            names
                .chain(COLUMNS)
                .map(|name| self.cell(name).into_owned()),
        )?;
        finish(writer)
    }

    /// The next rows.
    pub fn page(&self, rows: &[RejectedRow]) -> csv::Result<Vec<u8>> {
        if self.form == ReportForm::Ndjson {
            let mut page = Vec::new();
            for row in rows {
                serde_json::to_writer(&mut page, row).map_err(std::io::Error::from)?;
                page.push(b'\n');
            }
            return Ok(page);
        }
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in rows {
            for index in 0..self.columns.len() {
                let field = row.fields.as_ref().and_then(|fields| fields.get(index));
                writer.write_field(self.cell(field.map_or("", String::as_str)).as_bytes())?;
            }
            let places = [row.row, row.line, row.offset].map(|place| place.to_string());
            let texts = [
                row.column.as_deref().unwrap_or(""),
                &row.code,
                &row.message,
                row.raw.as_deref().unwrap_or(""),
            ];
            let ours = places.iter().map(String::as_str).chain(texts);
            for cell in ours {
                writer.write_field(self.cell(cell).as_bytes())?;
            }
            writer.write_record(None::<&[u8]>)?;
        }
        finish(writer)
    }

    fn cell<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
        match self.form {
            ReportForm::SpreadsheetCsv if is_formula => Cow::Owned(format!("'{text}")),
            _ => Cow::Borrowed(text),
        }
    }
}

fn finish(writer: csv::Writer<Vec<u8>>) -> csv::Result<Vec<u8>> {
    writer
        .into_inner()
        .map_err(|error| error.into_error().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> [RejectedRow; 2] {
        let of_fields = RejectedRow {
            row: 3,
            line: 5,
            offset: 70,
            column: Some("b".to_owned()),
            code: "undecodable".to_owned(),
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

    fn written(form: ReportForm) -> String {
        let report = RejectReport::new(form, ["a", "b"].map(String::from).to_vec());
        let written = [report.head().unwrap(), report.page(&rows()).unwrap()].concat();
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn the_report_has_the_columns_of_the_file_and_then_ours() {
        let head = "a,b,_carga_row,_carga_line,_carga_offset,_carga_column,_carga_code,_carga_message,_carga_raw\n";
        assert_eq!(
            written(ReportForm::Csv),
            format!(
                "{head}=1+1,\"x,\n\\xE9\",3,5,70,b,undecodable,not UTF-8,\n,,4,5,70,,too_few_fields,1 of 2,@x\n"
            )
        );
        assert_eq!(
            written(ReportForm::SpreadsheetCsv),
            format!(
                "{head}'=1+1,\"x,\n\\xE9\",3,5,70,b,undecodable,not UTF-8,\n,,4,5,70,,too_few_fields,1 of 2,'@x\n"
            )
        );
    }

    #[test]
    fn in_ndjson_a_row_is_an_object() {
        let written = written(ReportForm::Ndjson);
        let lines: Vec<RejectedRow> = written
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines, rows());
        assert!(written.starts_with(r#"{"row":3,"line":5,"offset":70,"column":"b","#));
    }
}
