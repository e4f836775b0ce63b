//! The beginning of a file: how to read it, and its header.

use carga_common::upload::{Dialect, DialectEvidence};
use encoding_rs::Encoding;

use super::detect::{self, Found};
use super::fault::FileFault;
use super::header::{Header, Trailing, trailing_delimiter};
use super::limits::CsvLimits;
use super::reader::CsvReader;
use super::records::{Next as NextRecord, Records};
use super::row::Reading;
use super::syntax::{Field, Syntax};
use super::transcode::{SourceLength, Transcoder};

/// Bytes of a file that are looked at before anything is decided; never more, however many are there already.
const SAMPLE_BYTES: usize = 64 << 10;

/// The longest byte order mark.
const MARK_BYTES: usize = 3;

/// What is said about a file beforehand. What is not is detected.
#[derive(Debug, Clone, Copy, Default)]
pub struct CsvOptions {
    /// What separates fields.
    pub delimiter: Option<char>,
    /// What quotes them; `Some(None)` is nothing.
    pub quote: Option<Option<u8>>,
    /// How its bytes become text.
    pub encoding: Option<&'static Encoding>,
    /// Whether the first record names the columns, which it does unless this says otherwise.
    pub header: Option<bool>,
}

/// A file whose header has not been read.
#[derive(Debug)]
pub struct CsvOpening {
    options: CsvOptions,
    limits: CsvLimits,
    /// Too few bytes yet to decide how to read them.
    sample: Vec<u8>,
    over: bool,
    /// Set when it is decided.
    reading: Option<Reading>,
    blank_lines: u64,
}

impl CsvOpening {
    /// A file of which nothing is known but `options`.
    pub fn new(options: CsvOptions, limits: CsvLimits) -> Self {
        Self {
            options,
            limits,
            sample: Vec::new(),
            over: false,
            reading: None,
            blank_lines: 0,
        }
    }

    /// Takes the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        match &mut self.reading {
            None => self.sample.extend_from_slice(bytes),
            Some(reading) => reading.push(bytes),
        }
    }

    /// There are no more bytes.
    pub fn end(&mut self) {
        self.over = true;
        if let Some(reading) = &mut self.reading {
            reading.end();
        }
    }

    /// Decides how to read the file and reads its header. None while that takes more bytes. A fault in the header is a fault
    /// of the whole file.
    pub fn open(&mut self) -> Result<Option<CsvReader>, FileFault> {
        if self.reading.is_none() {
            // What is known needs no sample, and a slow client's header is read as soon as it is here.
            let wanted = match self.is_told() {
                true => MARK_BYTES,
                false => SAMPLE_BYTES,
            };
            if self.sample.len() < wanted && !self.over {
                return Ok(None);
            }
            self.reading = Some(self.begin());
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

    /// Nothing is left to be detected.
    fn is_told(&self) -> bool {
        self.options.encoding.is_some() && self.options.delimiter.is_some()
    }

    /// Decides how to read the file.
    fn begin(&self) -> Reading {
        let whole = self.sample.len() < SAMPLE_BYTES;
        let (sample, rest) = self.sample.split_at(self.sample.len().min(SAMPLE_BYTES));
        let (encoding, mark_bytes) = self.decide_encoding(sample, whole);
        let mut transcoder = Transcoder::new(encoding.value);
        let mut text = Vec::new();
        transcoder.decode(&sample[mark_bytes..], false, &mut text);
        let delimiter = self.decide_delimiter(&text, whole);
        let syntax = Syntax::new(delimiter.value, self.quote());
        // Without a sample only the header can tell.
        let trailing = match self.is_told() {
            true => Trailing::AsTheHeader,
            false => trailing_delimiter(&text, syntax, whole),
        };
        transcoder.decode(rest, self.over, &mut text);
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
            leading_rows: 0,
            is_blank: false,
            undoubled: String::new(),
            undoubled_ends: Vec::new(),
        }
    }

    /// The encoding, and the length of the byte order mark that the file begins with.
    fn decide_encoding(&self, sample: &[u8], whole: bool) -> (Found<&'static Encoding>, usize) {
        let mark = Encoding::for_bom(sample);
        let encoding = match (self.options.encoding, mark) {
            (Some(encoding), _) => detect::found(encoding, "given"),
            (None, Some((encoding, _))) => detect::found(encoding, "a byte order mark"),
            (None, None) => detect::encoding(sample, whole),
        };
        // The mark of another encoding is text.
        let mark = mark.filter(|(marked, _)| *marked == encoding.value);
        (encoding, mark.map_or(0, |(_, length)| length))
    }

    fn decide_delimiter(&self, text: &[u8], whole: bool) -> Found<char> {
        match self.options.delimiter {
            Some(delimiter) => detect::found(delimiter, "given"),
            None => detect::delimiter(text, self.quote(), whole),
        }
    }

    /// The file's records from the first one on.
    fn records(
        &self,
        syntax: Syntax,
        encoding: &'static Encoding,
        mark_bytes: usize,
        text: Vec<u8>,
    ) -> Records {
        // Without names the first record is a row like any other.
        let limit = match self.has_header() {
            true => self.limits.header_bytes,
            false => self.limits.row_bytes,
        };
        let length = SourceLength::of(encoding);
        let mut records = Records::new(syntax, length, mark_bytes as u64, limit.value);
        *records.buffer() = text;
        if self.over {
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
                    let message = "the file is empty: there is no header line";
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
                    // They are rows with an empty cell, as behind it.
                    self.leading_rows = std::mem::take(blank_lines);
                }
            }
            self.records.limit(limits.row_bytes.value);
            return Ok(true);
        }
    }

    fn header(&self, bad_quote: Option<usize>, limits: &CsvLimits) -> Result<Header, FileFault> {
        if !self.dialect.header {
            return Header::numbered(self.records.fields().len(), limits.columns);
        }
        if let Some(field) = bad_quote {
            let number = field + 1;
            let message = format!("the name of column {number} has text behind its closing quote");
            return Err(FileFault::new("bad_quote", message));
        }
        let name = |field: &Field| {
            let name = self.cell_bytes(field);
            let name = String::from_utf8(name.into_owned());
            name.map_err(|error| self.escaped(error.as_bytes()))
        };
        let names = self.records.fields().iter().map(name).collect();
        Header::named(names, self.trailing, limits.columns)
    }
}
