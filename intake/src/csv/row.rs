//! Validates the current record, and yields its cells.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::mem;

use super::charset;
use super::corrections::{MISSING_VALUE, ReportColumns, has_escaped_byte, may_have_escaped_bytes};
use super::fault::{Exceeded, RowFault};
use super::header::Header;
use super::limits::{CsvLimits, Limit};
use super::reading::Reading;
use super::suspicion::{MIN_LINE_ENDS, row_like_lines};
use super::syntax::{Field, Syntax, Trim};

impl Reading {
    fn field(&self, field: &Field) -> &[u8] {
        &self.records.record()[field.start..field.end]
    }

    /// The fields of the current record, without empty ones that have no column.
    pub(super) fn fields(&self) -> &[Field] {
        let fields = self.records.fields();
        let Header { width, unnamed, .. } = self.header;
        if unnamed == 0 || fields.len() <= width || fields.len() > width + unnamed {
            return fields;
        }
        let (named, others) = fields.split_at(width);
        match others.iter().all(|field| field.start == field.end) {
            true => named,
            false => fields,
        }
    }

    /// Checks that the current record is a row, and prepares its cells.
    pub(super) fn check(
        &mut self,
        bad_quote: Option<usize>,
        limits: &CsvLimits,
    ) -> Result<(), RowFault> {
        if self.cells.trim != Trim::Nothing {
            self.records.trim(self.cells.trim);
        }
        self.check_shape(bad_quote)?;
        self.check_corrected()?;
        self.check_field_sizes(limits.field_bytes)?;
        self.check_text()?;
        self.undouble_quotes();
        Ok(())
    }

    fn check_shape(&self, bad_quote: Option<usize>) -> Result<(), RowFault> {
        if let Some(field) = bad_quote {
            let message = "the field has text after its closing quote; double the quotes inside a quoted field";
            let mut fault = RowFault::of_record("bad_quote", message);
            fault.field = Some(field);
            return Err(fault);
        }
        // Only `field_count` counts the fields beyond the maximum, which are not kept.
        let without_column = self.records.fields().len() - self.fields().len();
        let found = self.records.field_count() - without_column;
        let expected = self.header.width;
        let (code, hint) = match found.cmp(&expected) {
            Ordering::Equal => return Ok(()),
            Ordering::Less if self.cells.pad_short_rows => return Ok(()),
            Ordering::Less => (
                "too_few_fields",
                "; if cells at the end may be missing, send the file with short_rows=pad",
            ),
            Ordering::Greater if found == expected + 1 => (
                "too_many_fields",
                "; if a value contains the delimiter, quote the value",
            ),
            Ordering::Greater => ("too_many_fields", ""),
        };
        let message = format!("expected {expected} fields, found {found}{hint}");
        Err(RowFault::of_record(code, message))
    }

    /// The number of cells that a short row lacks at its end.
    pub(super) fn missing_cells(&self) -> usize {
        match self.cells.pad_short_rows && !self.is_blank {
            true => self.header.stored_from(self.fields().len()),
            false => 0,
        }
    }

    /// Checks that the current row was corrected, if the file is a reject report.
    fn check_corrected(&self) -> Result<(), RowFault> {
        let ReportColumns { raw, code, column } = self.header.report;
        if raw.is_none() && code.is_none() {
            return Ok(());
        }
        let (raw, code) = (self.cell_or_empty(raw), self.cell_or_empty(code));
        let has_cells = self.first_stored_field(|bytes| !bytes.is_empty()).is_some();
        if !raw.is_empty() && !has_cells {
            let message = "the row was not corrected: its cells are empty, and its text is in `_carga_raw`; fill the cells, or empty `_carga_raw` if they are right";
            let mut fault = RowFault::of_record("not_corrected", message);
            fault.original = Some(self.escaped(&raw));
            return Err(fault);
        }
        if may_have_escaped_bytes(&code, &raw)
            && let Some(field) = self.first_stored_field(has_escaped_byte)
        {
            let message = "the cell was not corrected: it has bytes written as `\\xNN`; write its characters, or empty `_carga_code` and `_carga_raw` if the cell is right";
            return Err(RowFault::of_field("not_corrected", message, Some(field)));
        }
        let column = self.cell_or_empty(column);
        if *code == *MISSING_VALUE.as_bytes()
            && let Some(field) = self.field_of_column(&column)
            && self.cell_or_empty(Some(field)).is_empty()
        {
            let message = "the cell was not corrected: the row lacked it in a required column, and it is empty; fill it, or empty `_carga_code` if an empty text is right";
            // With the same code, so that the row is recognised again in the next report.
            return Err(RowFault::of_field(MISSING_VALUE, message, Some(field)));
        }
        Ok(())
    }

    /// The index of the field that belongs to the column with this name.
    fn field_of_column(&self, name: &[u8]) -> Option<usize> {
        let Header { columns, width, .. } = &self.header;
        let index = columns
            .iter()
            .position(|column| column.as_bytes() == name)?;
        let mut fields = (0..*width).filter(|field| self.header.stores(*field));
        fields.nth(index)
    }

    fn cell_or_empty(&self, field: Option<usize>) -> Cow<'_, [u8]> {
        let field = field.and_then(|field| self.fields().get(field));
        field.map_or(Cow::Borrowed(&[]), |field| self.cell_bytes(field))
    }

    fn check_field_sizes(&self, limit: Limit) -> Result<(), RowFault> {
        let Limit { value, setting } = limit;
        if self.records.record().len() <= value {
            return Ok(());
        }
        let Some(field) = self.first_stored_field(|bytes| bytes.len() > value) else {
            return Ok(());
        };
        let actual = self.field(&self.fields()[field]).len();
        let message = format!("the field has {actual} bytes; the limit is {value} ({setting})");
        let mut fault = RowFault::of_field("field_too_large", message, Some(field));
        fault.exceeded = Some(Exceeded::new(limit, actual as u64));
        Err(fault)
    }

    /// Checks that the record is UTF-8 without NUL characters, which databases do not store.
    fn check_text(&self) -> Result<(), RowFault> {
        let record = self.records.record();
        if std::str::from_utf8(record).is_err() {
            let field = self.first_stored_field(|bytes| std::str::from_utf8(bytes).is_err());
            let message = self.undecodable_message(field);
            return Err(RowFault::of_field("undecodable", message, field));
        }
        if memchr::memchr(0, record).is_some() {
            let field = self.first_stored_field(|bytes| bytes.contains(&0));
            let message =
                "the field contains a NUL character, which databases cannot store as text";
            return Err(RowFault::of_field("nul_character", message, field));
        }
        Ok(())
    }

    /// The index of the first stored field that is faulty.
    fn first_stored_field(&self, is_faulty: impl Fn(&[u8]) -> bool) -> Option<usize> {
        let mut fields = self.fields().iter().enumerate();
        fields.position(|(index, field)| self.header.stores(index) && is_faulty(self.field(field)))
    }

    /// Replaces doubled quotes by single ones in the cells that contain them.
    fn undouble_quotes(&mut self) {
        self.undoubled.clear();
        self.undoubled_ends.clear();
        let syntax = self.records.syntax();
        let record = self.records.record();
        for field in self.records.fields().iter().filter(|field| field.doubled) {
            let cell = undoubled(&record[field.start..field.end], syntax);
            // The record is UTF-8, and removing ASCII characters keeps it valid.
            self.undoubled.push_str(&String::from_utf8_lossy(&cell));
            self.undoubled_ends.push(self.undoubled.len());
        }
    }

    fn undecodable_message(&self, field: Option<usize>) -> String {
        let bytes = field.map_or(self.records.record(), |field| {
            self.field(&self.fields()[field])
        });
        let name = self.charset.name();
        let mut message = format!("the field contains bytes that are not valid {name}");
        if self.charset.is_utf8() {
            let guess = charset::guess(bytes).name();
            message.push_str(&format!(
                "; if the file is {guess}, send it with encoding={guess}"
            ));
        }
        message
    }

    pub(super) fn cells(&self) -> impl Iterator<Item = &str> {
        // `check` has verified that the record is UTF-8, and fields begin and end at
        // characters.
        let text = std::str::from_utf8(self.records.record()).unwrap_or_default();
        let mut undoubled_start = 0;
        let mut ends = self.undoubled_ends.iter();
        let (blank, fields) = match self.is_blank {
            true => (Some(""), &[][..]),
            false => (None, self.fields()),
        };
        let cells = fields.iter().enumerate().filter_map(move |(index, field)| {
            let cell = if field.doubled {
                let end = ends.next().copied().unwrap_or(undoubled_start);
                let start = mem::replace(&mut undoubled_start, end);
                self.undoubled.get(start..end)
            } else {
                text.get(field.start..field.end)
            };
            self.header
                .stores(index)
                .then_some(cell.unwrap_or_default())
        });
        blank.into_iter().chain(cells)
    }

    /// The number of lines in a quoted field of the current row that look like rows.
    pub(super) fn row_like_lines(&self) -> Option<u64> {
        // Most rows have no line ends and need no second look.
        if self.is_blank || self.records.inner_lines() < MIN_LINE_ENDS {
            return None;
        }
        let (syntax, width) = (self.records.syntax(), self.records.field_count());
        let mut fields = self.records.fields().iter();
        fields.find_map(|field| row_like_lines(self.field(field), syntax, width))
    }

    /// A cell with its doubled quotes replaced by single ones. It may contain bytes that are
    /// not UTF-8.
    pub(super) fn cell_bytes(&self, field: &Field) -> Cow<'_, [u8]> {
        match field.doubled {
            false => Cow::Borrowed(self.field(field)),
            true => Cow::Owned(undoubled(self.field(field), self.records.syntax())),
        }
    }
}

/// Replaces doubled quotes by single ones, and removes escape characters.
fn undoubled(bytes: &[u8], syntax: Syntax) -> Vec<u8> {
    let mut undoubled = Vec::with_capacity(bytes.len());
    let Some(quote) = syntax.quote() else {
        return bytes.to_vec();
    };
    let find = |text: &[u8]| match syntax.escape() {
        Some(escape) => memchr::memchr2(quote, escape, text),
        None => memchr::memchr(quote, text),
    };
    let mut rest = bytes;
    while let Some(at) = find(rest) {
        undoubled.extend_from_slice(&rest[..at]);
        let (first, next) = (rest[at], rest.get(at + 1).copied());
        // A program escapes what would end the field or the record. Before any other character the
        // escape character is text, as in `C:\dir`.
        let is_escape = first == quote || syntax.needs_escape(&rest[at + 1..]);
        if !is_escape {
            undoubled.push(first);
        }
        undoubled.extend(next);
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    undoubled.extend_from_slice(rest);
    undoubled
}
