//! Opens a file: decides how to read it, and reads its header.

use carga_common::upload::{Dialect, DialectEvidence};
use encoding_rs::Encoding;

use super::detect::{self, Decision};
use super::fault::FileFault;
use super::header::{Header, MAX_REPORT_COLUMNS, Trailing, too_many_columns, trailing_delimiter};
use super::limits::CsvLimits;
use super::reader::CsvReader;
use super::records::{Next as NextRecord, Records};
use super::row::Reading;
use super::suspicion::first_in_sample;
use super::syntax::{Field, Syntax};
use super::transcode::{SourceLength, Transcoder};

/// How many bytes detection examines. It never examines more, even if more have arrived,
/// because the result must not depend on how the bytes arrive.
const SAMPLE_BYTES: usize = 64 << 10;

/// The longest byte order mark.
const MARK_BYTES: usize = 3;

/// What the client states about a file. Everything else is detected.
#[derive(Debug, Clone, Copy, Default)]
pub struct CsvOptions {
    /// The character that separates fields.
    pub delimiter: Option<char>,
    /// The character that quotes fields; `Some(None)` turns quoting off.
    pub quote: Option<Option<u8>>,
    /// The encoding of the file.
    pub encoding: Option<&'static Encoding>,
    /// Whether the first record names the columns; `None` means that it does.
    pub header: Option<bool>,
}

/// A file whose header has not been read.
#[derive(Debug)]
pub struct CsvOpening {
    options: CsvOptions,
    limits: CsvLimits,
    /// The bytes that arrived before it was decided how to read them.
    sample: Vec<u8>,
    ended: bool,
    /// Set once it is decided how to read the file.
    reading: Option<Reading>,
    blank_lines: u64,
}

impl CsvOpening {
    /// A file with these options and limits, of which no byte has arrived.
    pub fn new(options: CsvOptions, limits: CsvLimits) -> Self {
        Self {
            options,
            limits,
            sample: Vec::new(),
            ended: false,
            reading: None,
            blank_lines: 0,
        }
    }

    /// Adds the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        match &mut self.reading {
            None => self.sample.extend_from_slice(bytes),
            Some(reading) => reading.push(bytes),
        }
    }

    /// Marks the end of the file.
    pub fn end(&mut self) {
        self.ended = true;
        if let Some(reading) = &mut self.reading {
            reading.end();
        }
    }

    /// Decides how to read the file, and reads its header. Returns `None` if more bytes are
    /// needed. A fault in the header is a fault of the whole file.
    pub fn open(&mut self) -> Result<Option<CsvReader>, FileFault> {
        if self.reading.is_none() {
            // If nothing has to be detected, no sample is needed, and a slow client's header is
            // read as soon as it arrives.
            let needed = match self.needs_no_detection() {
                true => MARK_BYTES,
                false => SAMPLE_BYTES,
            };
            if self.sample.len() < needed && !self.ended {
                return Ok(None);
            }
            self.reading = Some(self.start_reading());
            self.sample = Vec::new();
        }
        let Some(mut reading) = self.reading.take() else {
            return Ok(None);
        };
        if !reading.read_header(&self.limits, &mut self.blank_lines)? {
            self.reading = Some(reading);
            return Ok(None);
        }
        Ok(Some(CsvReader {
            limits: self.limits,
            reading,
            rows_read: 0,
            blank_lines: self.blank_lines,
        }))
    }

    /// Whether the options leave nothing to detect.
    fn needs_no_detection(&self) -> bool {
        self.options.encoding.is_some() && self.options.delimiter.is_some()
    }

    /// Decides how to read the file.
    fn start_reading(&self) -> Reading {
        let whole = self.sample.len() < SAMPLE_BYTES;
        let (sample, rest) = self.sample.split_at(self.sample.len().min(SAMPLE_BYTES));
        let (encoding, mark_bytes) = self.decide_encoding(sample, whole);
        let mut transcoder = Transcoder::new(encoding.value);
        let mut text = Vec::new();
        transcoder.decode(&sample[mark_bytes..], false, &mut text);
        let delimiter = self.decide_delimiter(&text, whole);
        let syntax = Syntax::new(delimiter.value, self.quote());
        // Without a sample, the header alone decides.
        let trailing = match self.needs_no_detection() {
            true => Trailing::LikeHeader,
            false => trailing_delimiter(&text, syntax, whole),
        };
        transcoder.decode(rest, self.ended, &mut text);
        let quote = self.quote().map(char::from);
        let dialect = Dialect {
            compression: None,
            encoding: detect::label(encoding.value),
            bom: mark_bytes > 0,
            delimiter: delimiter.value.to_string(),
            quote: quote.map_or(String::new(), |quote| quote.to_string()),
            header: self.has_header(),
            trailing_delimiter: false,
            evidence: Some(DialectEvidence {
                encoding: encoding.evidence,
                delimiter: delimiter.evidence,
            }),
        };
        Reading {
            dialect,
            encoding: encoding.value,
            transcoder,
            records: self.records(syntax, encoding.value, mark_bytes, text),
            trailing,
            header: Header::unread(),
            first_row: None,
            leading_blank_rows: 0,
            is_blank: false,
            undoubled: String::new(),
            undoubled_ends: Vec::new(),
        }
    }

    /// Decides the encoding, and measures the byte order mark at the start of the file.
    fn decide_encoding(&self, sample: &[u8], whole: bool) -> (Decision<&'static Encoding>, usize) {
        let mark = Encoding::for_bom(sample);
        let encoding = match (self.options.encoding, mark) {
            (Some(encoding), _) => detect::decision(encoding, "given"),
            (None, Some((encoding, _))) => detect::decision(encoding, "a byte order mark"),
            (None, None) => detect::encoding(sample, whole),
        };
        // A byte order mark of another encoding is part of the text.
        let mark = mark.filter(|(marked, _)| *marked == encoding.value);
        (encoding, mark.map_or(0, |(_, length)| length))
    }

    fn decide_delimiter(&self, text: &[u8], whole: bool) -> Decision<char> {
        let mut delimiter = match self.options.delimiter {
            Some(delimiter) => detect::decision(delimiter, "given"),
            None => detect::delimiter(text, self.quote(), whole),
        };
        // Without a sample, the length of the text would depend on how the bytes arrive.
        if self.needs_no_detection() {
            return delimiter;
        }
        let syntax = Syntax::new(delimiter.value, self.quote());
        if let Some((row, lines)) = first_in_sample(text, syntax, whole, self.has_header()) {
            let warning =
                format!("; row {row} has a quoted field with {lines} lines that look like rows");
            delimiter.evidence.push_str(&warning);
        }
        delimiter
    }

    /// The file's records, starting with the text decoded so far.
    fn records(
        &self,
        syntax: Syntax,
        encoding: &'static Encoding,
        mark_bytes: usize,
        text: Vec<u8>,
    ) -> Records {
        // Without a header, the first record is a row like any other.
        let limit = match self.has_header() {
            true => self.limits.header_bytes,
            false => self.limits.row_bytes,
        };
        let length = SourceLength::of(encoding);
        // One more than any header allows, so that a wrong number is noticed.
        let max_fields = self.limits.columns.value + MAX_REPORT_COLUMNS + 1;
        let mut records = Records::new(syntax, length, mark_bytes as u64, limit.value, max_fields);
        *records.buffer() = text;
        if self.ended {
            records.end();
        }
        records
    }

    fn quote(&self) -> Option<u8> {
        self.options.quote.unwrap_or(Some(b'"'))
    }

    fn has_header(&self) -> bool {
        self.options.header.unwrap_or(true)
    }
}

impl Reading {
    fn read_header(
        &mut self,
        limits: &CsvLimits,
        blank_lines: &mut u64,
    ) -> Result<bool, FileFault> {
        loop {
            let bad_quote = match self.records.next() {
                NextRecord::More => return Ok(false),
                NextRecord::Blank => {
                    *blank_lines += 1;
                    continue;
                }
                NextRecord::End => {
                    let message = "the file is empty; no header line found";
                    return Err(FileFault::new("empty_file", message));
                }
                NextRecord::Broken(broken) => {
                    return Err(FileFault::broken_header(&broken, limits.header_bytes));
                }
                NextRecord::Record { bad_quote } => bad_quote,
            };
            let line = self.records.record_position().line;
            self.header = self
                .header(bad_quote, limits)
                .map_err(|fault| fault.on_line(line))?;
            self.dialect.trailing_delimiter = self.header.trailing_delimiter;
            if !self.dialect.header {
                self.first_row = Some(bad_quote);
                if self.header.width == 1 {
                    // If the file has one column, blank lines before the first record are rows,
                    // too.
                    self.leading_blank_rows = std::mem::take(blank_lines);
                }
            }
            self.records.set_limit(limits.row_bytes.value);
            return Ok(true);
        }
    }

    fn header(&self, bad_quote: Option<usize>, limits: &CsvLimits) -> Result<Header, FileFault> {
        if !self.dialect.header {
            return Header::numbered(self.records.field_count(), limits.columns);
        }
        if self.records.field_count() > self.records.fields().len() {
            return Err(too_many_columns(self.records.field_count(), limits.columns));
        }
        if let Some(field) = bad_quote {
            let number = field + 1;
            let message = format!(
                "the name of column {number} has text after its closing quote; double the quotes inside a quoted name"
            );
            return Err(FileFault::new("bad_quote", message));
        }
        let name = |field: &Field| {
            let name = self.cell_bytes(field);
            let name = String::from_utf8(name.into_owned());
            name.map_err(|error| self.escaped(error.as_bytes()))
        };
        let names = self.records.fields().iter().map(name).collect();
        Header::named(names, self.trailing, limits)
    }
}
