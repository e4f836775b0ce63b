//! The promise about the account of a file: each of its records is skipped, the header, a blank
//! line, a stored row or a rejected row, and no row has the text of another record.

use carga_common::rejects::RejectedRow;
use carga_common::upload::Dialect;
use carga_intake::csv::{Charset, CsvOptions};
use proptest::prelude::*;

use crate::limits::LIMITS;
use crate::oracle::{Grammar, Record, lines};
use crate::outcome::{MISSING, Outcome, check_accounts, read_with_dialect};
use crate::strategies::{options, sizes};

/// A text, and how it was read.
#[derive(Debug)]
struct Reading<'a> {
    text: &'a str,
    label: &'a str,
    options: &'a CsvOptions,
    dialect: Dialect,
    outcome: Outcome,
}

/// The text in the encoding with this label. The text has no characters that the encoding lacks.
fn encoded(text: &str, label: &str) -> Vec<u8> {
    match label {
        "utf-16le" => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        "windows-1252" => text
            .chars()
            .filter_map(|character| u8::try_from(character).ok())
            .collect(),
        _ => text.as_bytes().to_vec(),
    }
}

/// Reads a text in the encoding with this label, and compares each row with the record that the
/// oracle finds.
pub(crate) fn check_text(text: &str, label: &str, sizes: &[usize], options: &CsvOptions) {
    let options = CsvOptions {
        encoding: Charset::for_label(label),
        ..options.clone()
    };
    // The oracle knows neither byte order marks nor the columns of a reject report.
    if text.starts_with('\u{feff}') || text.contains("_carga_") {
        return;
    }
    let file = encoded(text, label);
    // Of a file that is refused, no row is stored.
    if let Ok((outcome, dialect)) = read_with_dialect(&file, sizes, options.clone(), LIMITS) {
        let reading = Reading {
            text,
            label,
            options: &options,
            dialect,
            outcome,
        };
        reading.check();
    }
}

impl Reading<'_> {
    fn check(&self) {
        let Reading {
            text,
            options,
            dialect,
            outcome,
            ..
        } = self;
        assert_eq!(outcome.fault, None, "{self:?}");
        check_accounts(outcome);
        if let Some(given) = options.skip {
            assert_eq!(dialect.skipped_lines, given.min(lines(text)), "{self:?}");
        }
        let Some(grammar) = Grammar::of(dialect, options.trim) else {
            return;
        };
        let records = grammar.records(text, dialect.skipped_lines);
        let header = match dialect.header {
            true => records.iter().position(|record| !record.text.is_empty()),
            false => None,
        };
        let accounted = u64::from(header.is_some()) + outcome.blank_lines + outcome.rows_read;
        assert_eq!(accounted, records.len() as u64, "{self:?}");
        self.check_rows(&records, header);
    }

    /// Checks each record below the header.
    fn check_rows(&self, records: &[Record<'_>], header: Option<usize>) {
        let width = self.outcome.columns.len();
        let first = header.map_or(0, |header| header + 1);
        let starts_blank = records.first().is_some_and(|record| record.text.is_empty());
        if header.is_none() && width == 1 && starts_blank {
            // It depends on the first record whether the blank lines above it are rows.
            return;
        }
        let is_row = |record: &&Record<'_>| width == 1 || !record.text.is_empty();
        let mut rows = 0;
        for record in records[first..].iter().filter(is_row) {
            rows += 1;
            self.check_row(rows, record);
        }
        assert_eq!(rows, self.outcome.rows_read, "{self:?}");
    }

    fn check_row(&self, number: u64, record: &Record<'_>) {
        let Outcome {
            columns,
            rows,
            rejected,
            ..
        } = &self.outcome;
        let (width, pads) = (columns.len(), self.options.pad_short_rows);
        let mut cells = record.cells.clone();
        let fits = cells
            .as_ref()
            .is_some_and(|cells| cells.len() == width || pads && cells.len() < width);
        if let Some(cells) = &mut cells
            && self.dialect.trailing_delimiter
        {
            while cells.len() > width && cells.last().is_some_and(String::is_empty) {
                cells.pop();
            }
        }
        if let Some((_, stored)) = rows.iter().find(|(row, _)| *row == number) {
            if let Some(cells) = &mut cells
                && pads
                && cells.len() < width
            {
                cells.resize(width, MISSING.to_owned());
            }
            assert_eq!(Some(stored), cells.as_ref(), "{record:?} in {self:?}");
            return;
        }
        // A NUL character is the only fault that a record of the right shape may have here.
        let is_faulty = !fits || record.text.contains('\0');
        assert!(is_faulty, "{record:?} in {self:?}");
        let row = rejected.iter().find(|row| row.row == number);
        let row = row.unwrap_or_else(|| panic!("{record:?} is lost in {self:?}"));
        self.check_rejected(row, record, cells);
    }

    fn check_rejected(&self, row: &RejectedRow, record: &Record<'_>, cells: Option<Vec<String>>) {
        let above = &self.text[..record.start];
        let offset = encoded(above, self.label).len() as u64;
        let position = (lines(above) + 1, offset);
        assert_eq!((row.line, row.offset), position, "{record:?} in {self:?}");
        let escaped = |text: &str| text.replace('\0', "\\x00");
        if let Some(raw) = &row.raw {
            assert_eq!(raw, &escaped(record.text), "{record:?} in {self:?}");
            return;
        }
        let cells: Option<Vec<String>> =
            cells.map(|cells| cells.iter().map(|cell| escaped(cell)).collect());
        assert_eq!(row.fields, cells, "{record:?} in {self:?}");
    }
}

/// Lines of cells, most of them well-formed, with line ends of every kind.
fn texts() -> impl Strategy<Value = String> {
    let cell = prop_oneof![
        4 => "[a-c1-3é ]{0,3}",
        1 => "[a,;\"'#\n\\\\]{0,4}",
        3 => prop::sample::select(vec![
            "\"x\"", "\"\"", "\"x,y\"", "\"two\nlines\"", "\"two\r\nlines\"", "\"a\"\"b\"",
            "\"a\\\"b\"", "\"c:\\\\d\"", "\"c:\\d\"", "'x,y'", "'it''s'", "  \"x\" ", "\"x\"y",
            "\"x", "\"x\ny\"z", " x", "\0", "\\",
        ]).prop_map(str::to_owned),
    ];
    let cells = prop_oneof![
        4 => prop::collection::vec(cell.clone(), 2),
        1 => prop::collection::vec(cell, 0..4),
    ];
    let line = (
        cells.prop_map(|cells| cells.join(",")),
        prop::sample::select(vec!["\n", "\n", "\r\n", "\r", ""]),
    );
    let lines = prop::collection::vec(line, 0..25);
    lines.prop_map(|lines| {
        let lines = lines.iter();
        let lines = lines.map(|(line, end)| format!("{line}{end}"));
        lines.collect::<String>()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is stated and whatever is detected, the account has each record exactly once.
    #[test]
    fn every_record_is_stored_or_rejected_with_exactly_its_own_text(
        text in texts(),
        sizes in sizes(),
        options in options(),
        label in prop::sample::select(vec!["utf-8", "utf-16le", "windows-1252"]),
    ) {
        check_text(&text, label, &sizes, &options);
    }
}
