//! Yields the rows that fit the header, and the rejected rows with their position and text.

use carga_common::upload::Dialect;

use super::broken::{BrokenKind, Position};
use super::fault::{Exceeded, FileFault, Rejection, RowFault, Warning};
use super::limits::CsvLimits;
use super::reading::Reading;
use super::records::Next as NextRecord;
use super::suspicion::row_like_lines;

/// The result of [`CsvReader::next`].
#[derive(Debug)]
pub enum Next {
    /// A row: see [`CsvReader::cells`].
    Row,
    /// A record that is not a row.
    Rejected(Box<Rejection>),
    /// More bytes are needed.
    More,
    /// The file has ended.
    End,
}

/// The result of [`CsvReader::cut_quote`].
#[derive(Debug)]
pub enum CutQuote {
    /// The lines after the quote look like rows, so the quote was probably not meant to open a
    /// field.
    Rejected(Box<Rejection>),
    /// The field may be valid and end in the rest of the file.
    Warning(Warning),
}

/// Reads the rows of one file.
#[derive(Debug)]
pub struct CsvReader {
    pub(super) limits: CsvLimits,
    pub(super) reading: Reading,
    pub(super) rows_read: u64,
    pub(super) blank_lines: u64,
}

impl CsvReader {
    /// Adds the next bytes of the file. Call it only after [`Next::More`], because it discards
    /// the current record.
    pub fn push(&mut self, bytes: &[u8]) {
        self.reading.push(bytes);
    }

    /// Marks the end of the file.
    pub fn end(&mut self) {
        self.reading.end();
    }

    /// Marks a cut: the file goes on, but the rest of it is not read. Until the next
    /// [`Next::More`], [`Self::next`] yields the complete rows that it has not yielded yet. Without
    /// this call it may hold some of them back: after an incomplete long record, it scans again
    /// only when it has twice as many bytes, and the text from the first non-ASCII byte on may
    /// wait until its encoding is decided.
    pub fn cut(&mut self) {
        self.reading.cut();
    }

    /// How the file is read.
    pub fn dialect(&self) -> &Dialect {
        &self.reading.dialect
    }

    /// The dialect, if it has changed since the header was read.
    pub fn changed_dialect(&self) -> Option<Dialect> {
        self.reading.is_late.then(|| self.reading.dialect.clone())
    }

    /// The names of the columns, in the order of a row's cells.
    pub fn columns(&self) -> &[String] {
        &self.reading.header.columns
    }

    /// The number of cells that the current row lacks at its end, which are NULL.
    pub fn missing_cells(&self) -> usize {
        self.reading.missing_cells()
    }

    /// How many lines above the header the option `skip` should skip, if they may be data.
    pub fn proposed_skip(&self) -> Option<u64> {
        self.reading.proposed_skip
    }

    /// The number of rows read so far, including rejected rows.
    pub fn rows_read(&self) -> u64 {
        self.rows_read
    }

    /// The number of blank lines so far that are not rows.
    pub fn blank_lines(&self) -> u64 {
        self.blank_lines
    }

    /// Reads the next row. An error means that the rest of the file cannot be read.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator cannot ask for more bytes"
    )]
    pub fn next(&mut self) -> Result<Next, FileFault> {
        let reading = &mut self.reading;
        // In a file with one column, blank lines before the first record are rows with an empty
        // cell.
        reading.is_blank = reading.leading_blank_rows > 0;
        if reading.is_blank {
            reading.leading_blank_rows -= 1;
            self.rows_read += 1;
            return Ok(Next::Row);
        }
        loop {
            // Without a header, the first record was already scanned when the file was opened.
            let bad_quote = match reading.first_row.take() {
                Some(bad_quote) => bad_quote,
                None => match reading.next_record() {
                    no_record @ (NextRecord::More | NextRecord::End) => {
                        // The transcoder ends the text if it cannot tell the encoding. That is a
                        // fault, and the file goes on.
                        if let Some(fault) = reading.transcoder.fault() {
                            return Err(fault);
                        }
                        let is_end = no_record == NextRecord::End;
                        return Ok(if is_end { Next::End } else { Next::More });
                    }
                    NextRecord::Record { bad_quote } => bad_quote,
                    // If the file has one column, a blank line is a row with an empty cell.
                    NextRecord::Blank if reading.header.width == 1 => None,
                    NextRecord::Blank => {
                        self.blank_lines += 1;
                        continue;
                    }
                    NextRecord::Broken(broken) => {
                        self.rows_read += 1;
                        let (row, limit) = (self.rows_read, self.limits.row_bytes);
                        if let BrokenKind::Endless { .. } = broken.kind {
                            return Err(FileFault::broken_row(row, &broken, limit));
                        }
                        let rejected = reading.rejected_broken(row, broken, limit);
                        return Ok(Next::Rejected(Box::new(rejected)));
                    }
                },
            };
            self.rows_read += 1;
            return Ok(match reading.check(bad_quote, &self.limits) {
                Ok(()) => Next::Row,
                Err(fault) => Next::Rejected(Box::new(reading.rejected(self.rows_read, fault))),
            });
        }
    }

    /// The position at which the current row begins.
    pub fn position(&self) -> Position {
        self.reading.position()
    }

    /// The cells of the current row, in the order of the columns.
    pub fn cells(&self) -> impl Iterator<Item = &str> {
        self.reading.cells()
    }

    /// A warning if the current row has a quoted field whose lines look like rows. The row is
    /// valid.
    pub fn warning(&self) -> Option<Warning> {
        let lines = self.reading.row_like_lines()?;
        let message = format!(
            "a quoted field has {lines} lines that look like rows; if they are rows, double or remove the quote that opens the field"
        );
        Some(Warning {
            row: self.rows_read,
            line: self.reading.records.record_position().line,
            code: "suspicious_quote",
            message,
        })
    }

    /// The record in which the bytes so far end, if they end in a quoted field with line ends.
    /// Call it after [`Self::cut`] and [`Next::More`].
    pub fn cut_quote(&mut self) -> Option<CutQuote> {
        let reading = &mut self.reading;
        let syntax = reading.records.syntax();
        let width = reading.header.width + reading.header.unnamed;
        let (broken, text) = reading.records.cut_quote()?;
        let lines = row_like_lines(text, syntax, width);
        let (row, line) = (self.rows_read + 1, broken.position.line);
        let open = "a quote opened on this line is not closed in the bytes that were read";
        let Some(lines) = lines else {
            return Some(CutQuote::Warning(Warning {
                row,
                line,
                code: "unclosed_quote",
                message: format!("{open}, so the lines after it were not read as rows"),
            }));
        };
        self.rows_read = row;
        let mut rejected = reading.rejected_broken(row, broken, self.limits.row_bytes);
        rejected.row.message = format!(
            "{open}, and {lines} lines after it look like rows; double or remove the quote"
        );
        Some(CutQuote::Rejected(Box::new(rejected)))
    }

    /// Turns the current row into a rejected row. The caller has found that it exceeds a limit
    /// that the reader does not know.
    pub fn reject(&self, code: &'static str, message: String, exceeded: Exceeded) -> Rejection {
        let mut fault = RowFault::of_field(code, message, None);
        fault.exceeded = Some(exceeded);
        self.reading.rejected(self.rows_read, fault)
    }

    /// Turns the current row into a rejected row. The caller has found that the cell in this
    /// column, an index of [`Self::columns`], is not of the type that the column has in a dataset.
    pub fn reject_cell(&self, column: usize, code: &'static str, message: String) -> Rejection {
        let fault = RowFault::of_field(code, message, None);
        let mut rejection = self.reading.rejected(self.rows_read, fault);
        // The column does not give the index of a field: a row may lack this cell, and a reject
        // report that is sent again has fields without a column.
        rejection.row.column = self.columns().get(column).cloned();
        rejection
    }
}
