//! Opens a file: decides how to read it, step by step as its first bytes arrive.

use std::mem;

use carga_common::upload::{Dialect, DialectEvidence};

use super::charset::Charset;
use super::decoding::{Decoding, bytes_needed};
use super::detect::{Found, detect};
use super::fault::FileFault;
use super::header::{Header, MAX_REPORT_COLUMNS};
use super::limits::CsvLimits;
use super::reader::CsvReader;
use super::reading::{CellRules, Reading};
use super::records::Records;
use super::sampling::{SAMPLE_BYTES, sample};
use super::source_length::SourceLength;
use super::stated::CsvOptions;
use super::syntax::{Syntax, Trim};

/// A file whose header has not been read.
#[derive(Debug)]
pub struct CsvOpening {
    options: CsvOptions,
    limits: CsvLimits,
    stage: Stage,
    ended: bool,
    blank_lines: u64,
    /// Set once the syntax is decided.
    dialect: Option<Dialect>,
}

/// How far the opening of a file is.
#[derive(Debug)]
enum Stage {
    /// Bytes are gathered until the encoding can be decided.
    Bytes(Vec<u8>),
    /// Text is gathered until the syntax can be decided.
    Sample(Box<Decoding>),
    /// The syntax is decided, and the header is being read.
    Header(Box<Reading>),
    Open,
}

impl CsvOpening {
    /// A file with these options and limits, of which no byte has arrived.
    pub fn new(options: CsvOptions, limits: CsvLimits) -> Self {
        Self {
            options,
            limits,
            stage: Stage::Bytes(Vec::new()),
            ended: false,
            blank_lines: 0,
            dialect: None,
        }
    }

    /// How the file is read, as far as it is decided: a header may be refused after that.
    pub fn dialect(&self) -> Option<&Dialect> {
        self.dialect.as_ref()
    }

    /// Adds the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        match &mut self.stage {
            Stage::Bytes(first) => first.extend_from_slice(bytes),
            Stage::Sample(decoding) => decoding.push(bytes, false),
            Stage::Header(reading) => reading.push(bytes),
            Stage::Open => {}
        }
    }

    /// Marks the end of the file.
    pub fn end(&mut self) {
        self.ended = true;
        match &mut self.stage {
            Stage::Sample(decoding) => decoding.push(&[], true),
            Stage::Header(reading) => reading.end(),
            Stage::Bytes(_) | Stage::Open => {}
        }
    }

    /// Decides how to read the file, and reads its header. Returns `None` if more bytes are
    /// needed. A fault in the header is a fault of the whole file.
    pub fn open(&mut self) -> Result<Option<CsvReader>, FileFault> {
        loop {
            self.stage = match mem::replace(&mut self.stage, Stage::Open) {
                Stage::Bytes(first)
                    if first.len() < bytes_needed(self.options.encoding) && !self.ended =>
                {
                    self.stage = Stage::Bytes(first);
                    return Ok(None);
                }
                Stage::Bytes(first) => {
                    let decoding = Decoding::start(&first, self.options.encoding, self.ended)?;
                    Stage::Sample(Box::new(decoding))
                }
                Stage::Sample(decoding) => match self.start_reading(*decoding)? {
                    Ok(reading) => {
                        self.dialect = Some(reading.dialect.clone());
                        Stage::Header(Box::new(reading))
                    }
                    Err(decoding) => {
                        self.stage = Stage::Sample(Box::new(decoding));
                        return Ok(None);
                    }
                },
                Stage::Header(mut reading) => {
                    if !reading.read_header(&self.options, &self.limits, &mut self.blank_lines)? {
                        self.stage = Stage::Header(reading);
                        return Ok(None);
                    }
                    return Ok(Some(CsvReader {
                        limits: self.limits,
                        reading: *reading,
                        rows_read: 0,
                        blank_lines: self.blank_lines,
                    }));
                }
                Stage::Open => return Ok(None),
            };
        }
    }

    /// Decides the syntax, or returns the text if more of it is needed.
    fn start_reading(
        &self,
        mut decoding: Decoding,
    ) -> Result<Result<Reading, Decoding>, FileFault> {
        // With a sample of full length, the fault is reported after the rows before it.
        if let Some(fault) = decoding.transcoder.fault()
            && decoding.text.len() < SAMPLE_BYTES
        {
            return Err(fault);
        }
        if let Some(decision) = decoding.transcoder.take_decision() {
            decoding.evidence = decision.evidence;
        }
        if decoding.text.len() < decoding.wanted && !self.ended {
            return Ok(Err(decoding));
        }
        let limit = self.limits.header_bytes;
        // The text ends before an unknown encoding.
        let is_last = self.ended || decoding.transcoder.fault().is_some();
        let range = sample(&decoding.text, &self.options, limit, is_last)?;
        let Some((start, end)) = range else {
            let length = decoding.text.len();
            decoding.wanted = length + (length / 8).min(SAMPLE_BYTES);
            return Ok(Err(decoding));
        };
        // A sample of full length may be followed by more text that has not arrived.
        let whole = self.ended && end == decoding.text.len() && end - start < SAMPLE_BYTES;
        let found = detect(&decoding.text[start..end], self.options.stated(), whole);
        Ok(Ok(self.reading(decoding, found)))
    }

    /// Starts to read the file as it was found to be written.
    fn reading(&self, mut decoding: Decoding, found: Found) -> Reading {
        let mut records = self.records(&mut decoding, &found);
        let charset = decoding.transcoder.charset();
        let (syntax, has_header) = (found.syntax.value, found.header.value);
        let evidence = DialectEvidence {
            encoding: decoding.evidence,
            delimiter: found.syntax.evidence,
            header: found.header.evidence,
            skip: found.skipped.evidence,
        };
        let mut dialect = dialect(charset, syntax, has_header, evidence);
        dialect.bom = decoding.mark_bytes > 0;
        dialect.skipped_lines = records.skip_lines(found.skipped.value);
        let pad_short_rows = self.options.pad_short_rows;
        // Without any names, only the rows tell the number of columns.
        let has_names = has_header || self.options.columns.is_some();
        Reading {
            dialect,
            charset,
            is_late: false,
            transcoder: decoding.transcoder,
            records,
            header: Header::default(),
            layout: match pad_short_rows && has_names {
                true => found.layout.without_width(),
                false => found.layout,
            },
            proposed_skip: found.proposed_skip,
            cells: CellRules {
                trim: match (self.options.trim, found.has_blanks) {
                    (Some(true), _) => Trim::All,
                    (None, true) => Trim::AfterDelimiters,
                    _ => Trim::Nothing,
                },
                pad_short_rows,
            },
            first_row: None,
            first_broken: None,
            first_blank: None,
            leading_blank_rows: 0,
            is_blank: false,
            undoubled: String::new(),
            undoubled_ends: Vec::new(),
        }
    }

    /// The records of the file. The text that was decoded so far moves into them.
    fn records(&self, decoding: &mut Decoding, found: &Found) -> Records {
        // Without a header, the first record is a row like any other.
        let limit = match found.header.value {
            true => self.limits.header_bytes,
            false => self.limits.row_bytes,
        };
        let length = SourceLength::of(decoding.transcoder.charset());
        // One more than any header allows, so that a wrong number is noticed.
        let max_fields = self.limits.columns.value + MAX_REPORT_COLUMNS + 1;
        let offset = decoding.mark_bytes as u64;
        let syntax = found.syntax.value;
        let mut records = Records::new(syntax, length, offset, limit.value, max_fields);
        *records.buffer() = mem::take(&mut decoding.text);
        if self.ended && decoding.transcoder.fault().is_none() {
            records.end();
        }
        records
    }
}

/// The dialect of a file with this syntax. The caller adds the byte order mark and the skipped
/// lines, and the header adds its changes.
fn dialect(
    charset: Charset,
    syntax: Syntax,
    has_header: bool,
    evidence: DialectEvidence,
) -> Dialect {
    let character = |byte: u8| char::from(byte).to_string();
    Dialect {
        compression: None,
        encoding: charset.name().to_owned(),
        bom: false,
        delimiter: syntax.delimiter().to_string(),
        quote: syntax.quote().map_or(String::new(), character),
        escape: syntax.escape().map(character),
        header: has_header,
        skipped_lines: 0,
        trailing_delimiter: false,
        renamed: Vec::new(),
        evidence: Some(evidence),
    }
}
