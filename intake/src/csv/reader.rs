//! Rows: each of the width of the header, each cell sound; or rejected, with its place and its text.

use carga_common::upload::Dialect;

use super::fault::{Exceeded, FileFault, Rejection, RowFault};
use super::limits::CsvLimits;
use super::records::{BrokenKind, Next as NextRecord};
use super::row::Reading;

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// A row: see [`CsvReader::cells`].
    Row,
    /// A record that is no row.
    Rejected(Box<Rejection>),
    /// More bytes are needed.
    More,
    /// There is nothing more.
    End,
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
    /// Takes the next bytes of the file. Only when there is nothing to read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.reading.push(bytes);
    }

    /// There are no more bytes.
    pub fn end(&mut self) {
        self.reading.end();
    }

    /// How the file is read.
    pub fn dialect(&self) -> &Dialect {
        &self.reading.dialect
    }

    /// The columns of a row.
    pub fn columns(&self) -> &[String] {
        &self.reading.header.columns
    }

    /// Rows so far, with those that were rejected.
    pub fn rows_read(&self) -> u64 {
        self.rows_read
    }

    /// Lines so far that are no rows because there is nothing on them.
    pub fn blank_lines(&self) -> u64 {
        self.blank_lines
    }

    /// The next row, of a file that is open. Fails where there is no point in reading on.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator cannot ask for more bytes"
    )]
    pub fn next(&mut self) -> Result<Next, FileFault> {
        let reading = &mut self.reading;
        reading.is_blank = reading.leading_rows > 0;
        if reading.is_blank {
            reading.leading_rows -= 1;
            self.rows_read += 1;
            return Ok(Next::Row);
        }
        loop {
            let bad_quote = match reading.first_row.take() {
                Some(bad_quote) => bad_quote,
                None => match reading.records.next() {
                    NextRecord::More => return Ok(Next::More),
                    NextRecord::End => return Ok(Next::End),
                    NextRecord::Record { bad_quote } => bad_quote,
                    // A cell that is empty, where there is but one.
                    NextRecord::Blank if reading.header.width == 1 => None,
                    NextRecord::Blank => {
                        self.blank_lines += 1;
                        continue;
                    }
                    NextRecord::Broken(broken) => {
                        self.rows_read += 1;
                        let (row, limit) = (self.rows_read, self.limits.row_bytes);
                        if let BrokenKind::Endless { .. } = broken.kind {
                            return Err(FileFault::endless_row(row, &broken, limit));
                        }
                        let rejected = reading.broken(row, broken, limit);
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

    /// The cells of the row at hand, in the order of the columns.
    pub fn cells(&self) -> impl Iterator<Item = &str> {
        self.reading.cells()
    }

    /// Makes a rejected row of the current row, which exceeds a limit that the reader does not know.
    pub fn reject(&self, code: &'static str, message: String, exceeded: Exceeded) -> Rejection {
        let mut fault = RowFault::of_field(code, message, None);
        fault.exceeded = Some(exceeded);
        self.reading.rejected(self.rows_read, fault)
    }
}
