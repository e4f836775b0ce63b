//! Reads the header of a file from its first record. If the client or the rows tell the columns,
//! the first record may be a row.

use std::mem;

use super::broken::{Broken, BrokenKind};
use super::fault::FileFault;
use super::header::{Header, MAX_REPORT_COLUMNS, too_many_columns};
use super::limits::CsvLimits;
use super::names::{HeaderCell, Names};
use super::reading::Reading;
use super::records::Next;
use super::stated::CsvOptions;
use super::syntax::{Field, Fields, line_end};
use super::transcode::escaped;

impl Reading {
    /// Reads the header. Returns whether it is complete; otherwise more bytes are needed. The
    /// blank lines above it are added to `blank_lines`.
    pub(super) fn read_header(
        &mut self,
        options: &CsvOptions,
        limits: &CsvLimits,
        blank_lines: &mut u64,
    ) -> Result<bool, FileFault> {
        loop {
            let next = self.records.next();
            if let Next::More | Next::End = next
                && let Some(fault) = self.transcoder.fault()
            {
                return Err(fault);
            }
            let header = match next {
                Next::More => return Ok(false),
                Next::Blank => {
                    *blank_lines += 1;
                    let position = self.records.record_position();
                    self.first_blank.get_or_insert(position);
                    continue;
                }
                Next::End => self.header_without_record(options, limits)?,
                Next::Broken(broken) => {
                    self.header_of_broken(broken, options, limits, blank_lines)?
                }
                Next::Record { bad_quote } => {
                    self.header_of_record(bad_quote, options, limits, blank_lines)?
                }
            };
            self.set_header(header);
            return Ok(true);
        }
    }

    /// The header of a file without a record.
    fn header_without_record(
        &self,
        options: &CsvOptions,
        limits: &CsvLimits,
    ) -> Result<Header, FileFault> {
        match &options.columns {
            Some(columns) => Header::given(columns.clone(), &self.layout, limits),
            None => Err(self.empty_file(options.skip)),
        }
    }

    /// The header of a file whose first record is broken. If the record is a row, it is kept for
    /// the report of rejected rows.
    fn header_of_broken(
        &mut self,
        broken: Broken,
        options: &CsvOptions,
        limits: &CsvLimits,
        blank_lines: &mut u64,
    ) -> Result<Header, FileFault> {
        if self.is_readable_header(&broken, options) {
            let header = match &options.columns {
                Some(columns) => Header::given(columns.clone(), &self.layout, limits),
                None => self.header_as_text(&broken.bytes, limits),
            };
            let line = broken.position.line;
            let header = header.map_err(|fault| fault.on_line(line))?;
            self.records.set_limit(limits.row_bytes.value);
            return Ok(header);
        }
        if self.dialect.header {
            return Err(FileFault::broken_header(&broken, limits.header_bytes));
        }
        let header = self.header_without_names(options, limits)?;
        let header = header.ok_or_else(|| FileFault::broken_row(1, &broken, limits.row_bytes))?;
        self.first_broken = Some(broken);
        self.count_leading_rows(&header, blank_lines);
        Ok(header)
    }

    /// The header of a file whose first record is complete. If the record is a row, it is kept as
    /// the first one.
    fn header_of_record(
        &mut self,
        bad_quote: Option<usize>,
        options: &CsvOptions,
        limits: &CsvLimits,
        blank_lines: &mut u64,
    ) -> Result<Header, FileFault> {
        let line = self.records.record_position().line;
        let header = self.header(bad_quote, options, limits);
        let header = header.map_err(|fault| fault.on_line(line))?;
        if !self.dialect.header {
            self.first_row = Some(bad_quote);
            self.count_leading_rows(&header, blank_lines);
        }
        self.records.set_limit(limits.row_bytes.value);
        Ok(header)
    }

    /// If the file has one column, blank lines before its first row are rows, too.
    fn count_leading_rows(&mut self, header: &Header, blank_lines: &mut u64) {
        if header.width == 1 {
            self.leading_blank_rows = mem::take(blank_lines);
        }
    }

    /// The header of a file whose first record is a row that cannot be read. `None` if nothing else
    /// tells the number of columns.
    fn header_without_names(
        &self,
        options: &CsvOptions,
        limits: &CsvLimits,
    ) -> Result<Option<Header>, FileFault> {
        match (&options.columns, self.layout.trusted_width()) {
            (Some(columns), _) => Header::given(columns.clone(), &self.layout, limits).map(Some),
            (None, Some(width)) => Header::numbered(width, limits.columns).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn set_header(&mut self, header: Header) {
        self.dialect.trailing_delimiter = header.unnamed > 0;
        self.dialect.renamed.clone_from(&header.renamed);
        self.header = header;
    }

    fn empty_file(&self, skip: Option<u64>) -> FileFault {
        let what = match self.dialect.header {
            true => "no header line",
            false => "no row",
        };
        let message = match skip {
            Some(lines) if lines > 0 => {
                format!("the file has {what} after the first {lines} lines")
            }
            _ => format!("the file is empty; it has {what}"),
        };
        FileFault::new("empty_file", message)
    }

    fn header(
        &mut self,
        bad_quote: Option<usize>,
        options: &CsvOptions,
        limits: &CsvLimits,
    ) -> Result<Header, FileFault> {
        let count = self.records.field_count();
        if let Some(columns) = &options.columns {
            return Header::given(columns.clone(), &self.layout, limits);
        }
        if !self.dialect.header {
            return Header::numbered(self.layout.trusted_width().unwrap_or(count), limits.columns);
        }
        if count > self.records.fields().len() {
            return Err(too_many_columns(count, limits.columns));
        }
        if let Some(field) = bad_quote {
            // As text, a record of several lines would lose all but its first line.
            let has_lines = self.records.inner_lines() > 0;
            if options.names == Names::Strict || has_lines {
                return Err(bad_quote_in_header(field, has_lines));
            }
            let line = self.records.record().to_vec();
            return self.header_as_text(&line, limits);
        }
        let record = self.records.record();
        let cell = |field: &Field| {
            let name = String::from_utf8(self.cell_bytes(field).into_owned());
            let before = field.start.checked_sub(1).map(|at| record[at]);
            HeaderCell {
                name: name.map_err(|error| self.escaped(error.as_bytes())),
                is_quoted: before.is_some() && before == self.records.syntax().quote(),
            }
        };
        let cells = self.records.fields().iter().map(cell).collect();
        Header::named(cells, options.names, &self.layout, limits)
    }

    /// Whether a line that is not a well-formed record can be read as a header.
    fn is_readable_header(&self, broken: &Broken, options: &CsvOptions) -> bool {
        let is_quote = matches!(
            broken.kind,
            BrokenKind::UnclosedQuote | BrokenKind::StrayQuote { .. }
        );
        // As text, a record of several lines would lose all but its first line.
        let keeps_all = options.columns.is_some() || line_end(&broken.bytes).is_none();
        self.dialect.header && is_quote && keeps_all && options.names == Names::Repair
    }

    /// Reads the header as text, because its quotes do not belong together. A quote at both ends of
    /// a name is removed.
    fn header_as_text(&mut self, line: &[u8], limits: &CsvLimits) -> Result<Header, FileFault> {
        const NOTE: &str = "; its quotes do not belong together, so it is read as text";
        if let Some(evidence) = &mut self.dialect.evidence {
            evidence.header.push_str(NOTE);
        }
        let syntax = self.records.syntax();
        let mut fields = Fields::new(limits.columns.value + MAX_REPORT_COLUMNS + 1);
        syntax.unquoted().scan(line, true, &mut fields);
        if fields.count() > fields.kept().len() {
            return Err(too_many_columns(fields.count(), limits.columns));
        }
        let quote = syntax.quote().unwrap_or(b'"');
        let cell = |field: &Field| {
            let text = line[field.start..field.end].trim_ascii();
            let inner = text
                .strip_prefix(&[quote])
                .and_then(|text| text.strip_suffix(&[quote]));
            let name = std::str::from_utf8(inner.unwrap_or(text)).map(str::to_owned);
            HeaderCell {
                name: name.map_err(|_| escaped(text, self.charset)),
                is_quoted: false,
            }
        };
        let cells = fields.kept().iter().map(cell).collect();
        Header::named(cells, Names::Repair, &self.layout, limits)
    }
}

fn bad_quote_in_header(field: usize, has_lines: bool) -> FileFault {
    let number = field + 1;
    let instead = match has_lines {
        true => "name the columns with columns= and skip the header with skip=",
        false => "send the file with names=repair",
    };
    let message = format!(
        "the name of column {number} has text after its closing quote; double the quotes inside a quoted name, or {instead}"
    );
    FileFault::new("bad_quote", message)
}
