//! The record at hand: whether it is a row, its cells, and what is kept of it where it is none.

use std::borrow::Cow;
use std::mem;

use carga_common::rejects::RejectedRow;
use carga_common::settings::FileLimits;
use carga_common::upload::Dialect;
use encoding_rs::{Encoding, UTF_8};

use super::detect;
use super::header::{Header, Trailing};
use super::reader::Rejection;
use super::records::{Broken, Fault, Place, Records};
use super::syntax::Field;
use super::text::{Transcoder, shown};
use crate::problem::Refusal;

/// The settings, for messages.
pub(super) const MAX_COLUMNS: &str = "CARGA_MAX_COLUMNS";
pub(super) const MAX_HEADER_BYTES: &str = "CARGA_MAX_HEADER_BYTES";
const MAX_FIELD_BYTES: &str = "CARGA_MAX_FIELD_BYTES";
const MAX_ROW_BYTES: &str = "CARGA_MAX_ROW_BYTES";

/// A file that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) dialect: Dialect,
    pub(super) encoding: &'static Encoding,
    pub(super) transcoder: Transcoder,
    pub(super) records: Records,
    pub(super) trailing: Trailing,
    pub(super) header: Header,
    /// The first record is a row and has been read, with this of its fields having text behind its closing quote.
    pub(super) first_row: Option<Option<usize>>,
    /// Blank lines before it that are rows.
    pub(super) leading_rows: u64,
    /// The row at hand is a blank line before the first record.
    pub(super) is_blank: bool,
    /// The row at hand, as far as it is not in the file like that: cells with doubled quotes.
    pub(super) undoubled: String,
    /// Where each of them ends.
    pub(super) undoubled_ends: Vec<usize>,
}

/// Why a row is rejected.
pub(super) struct RowFault {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) field: Option<usize>,
    /// It has a field for every column.
    pub(super) fits: bool,
    pub(super) limit: Option<(u64, u64)>,
}

impl Reading {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.transcoder.decode(bytes, false, self.records.buffer());
    }

    pub(super) fn end(&mut self) {
        self.transcoder.decode(&[], true, self.records.buffer());
        self.records.end();
    }

    pub(super) fn field(&self, field: &Field) -> &[u8] {
        &self.records.record()[field.start..field.end]
    }

    /// Fields of the record at hand, without one that is only a delimiter too many.
    fn fields(&self) -> &[Field] {
        let fields = self.records.fields();
        match fields.split_last() {
            Some((last, others))
                if self.header.trailing_delimiter
                    && others.len() == self.header.width
                    && last.start == last.end =>
            {
                others
            }
            _ => fields,
        }
    }

    /// Whether the record at hand is a row. Its cells are ready then.
    pub(super) fn check(
        &mut self,
        bad_quote: Option<usize>,
        limits: &FileLimits,
    ) -> Result<(), RowFault> {
        let fault = |code, message: String, field, fits| {
            Err(RowFault {
                code,
                message,
                field,
                fits,
                limit: None,
            })
        };
        if let Some(field) = bad_quote {
            let message =
                "there is text behind the closing quote; a quote inside a quoted field is doubled";
            return fault("bad_quote", message.to_owned(), Some(field), false);
        }
        let (found, expected) = (self.fields().len(), self.header.width);
        if found != expected {
            let code = if found < expected {
                "too_few_fields"
            } else {
                "too_many_fields"
            };
            let message = format!("the row has {found} fields, there are {expected} columns");
            return fault(code, message, None, false);
        }
        let record = self.records.record();
        let position = |is_faulty: &dyn Fn(&[u8]) -> bool| {
            let mut fields = self.fields().iter().enumerate();
            // What is not stored may be as it likes.
            fields.position(|(index, field)| {
                self.header.stores(index) && is_faulty(self.field(field))
            })
        };
        if record.len() > limits.field_bytes
            && let Some(field) = position(&|field| field.len() > limits.field_bytes)
        {
            let (limit, actual) = (limits.field_bytes, self.field(&self.fields()[field]).len());
            let message =
                format!("the field has {actual} bytes, the limit is {limit} ({MAX_FIELD_BYTES})");
            return Err(RowFault {
                code: "field_too_large",
                message,
                field: Some(field),
                fits: true,
                limit: Some((limit as u64, actual as u64)),
            });
        }
        let Ok(text) = std::str::from_utf8(record) else {
            let field = position(&|field| std::str::from_utf8(field).is_err());
            let message = self.undecodable(field);
            return fault("undecodable", message, field, true);
        };
        if memchr::memchr(0, record).is_some() {
            let field = position(&|field| field.contains(&0));
            let message = "the field has a NUL character, which databases do not store as text";
            return fault("nul_character", message.to_owned(), field, true);
        }
        self.undoubled.clear();
        self.undoubled_ends.clear();
        let quote = self.records.syntax().quote();
        for field in self.records.fields().iter().filter(|field| field.doubled) {
            let cell = undoubled(&text.as_bytes()[field.start..field.end], quote);
            // Without a quote, which is ASCII, it is still text.
            self.undoubled.push_str(&String::from_utf8_lossy(&cell));
            self.undoubled_ends.push(self.undoubled.len());
        }
        Ok(())
    }

    fn undecodable(&self, field: Option<usize>) -> String {
        let bytes = field.map_or(self.records.record(), |field| {
            self.field(&self.fields()[field])
        });
        let name = self.encoding.name();
        let mut message = format!("the field has bytes that are not {name}");
        if self.encoding == UTF_8 {
            let guess = detect::label(detect::guess(bytes));
            message.push_str(&format!(
                "; if the file is {guess}, send it with encoding={guess}"
            ));
        }
        message
    }

    pub(super) fn cells(&self) -> impl Iterator<Item = &str> {
        // `check` has seen that it is text, and fields are cut at characters.
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

    pub(super) fn rejected(&self, row: u64, fault: RowFault) -> Rejection {
        let Place { line, offset } = self.records.record_place();
        let fields = fault.fits.then(|| {
            let shown = |(index, field): (usize, &Field)| {
                let stores = self.header.stores(index);
                stores.then(|| self.shown(&self.cell_bytes(field)))
            };
            self.fields().iter().enumerate().filter_map(shown).collect()
        });
        let row = RejectedRow {
            row,
            line,
            offset,
            column: fault
                .field
                .and_then(|field| self.header.column_of(field))
                .map(str::to_owned),
            code: fault.code.to_owned(),
            message: fault.message,
            raw: fields.is_none().then(|| self.shown(self.records.record())),
            fields,
        };
        Rejection {
            row,
            limit: fault.limit,
        }
    }

    pub(super) fn broken(&self, row: u64, broken: Broken, limits: &FileLimits) -> Rejection {
        let (code, message) = told(broken.fault, "row", limits.row_bytes, MAX_ROW_BYTES);
        let limit = match broken.fault {
            Fault::TooLong { actual } | Fault::Endless { actual } => {
                Some((limits.row_bytes as u64, actual))
            }
            Fault::UnclosedQuote => None,
        };
        let message = match limit {
            Some(_) => format!("{message}; only its beginning is kept"),
            None => message,
        };
        let row = RejectedRow {
            row,
            line: broken.place.line,
            offset: broken.place.offset,
            column: None,
            code: code.to_owned(),
            message,
            raw: Some(self.shown(&broken.bytes)),
            fields: None,
        };
        Rejection { row, limit }
    }

    pub(super) fn shown(&self, bytes: &[u8]) -> String {
        shown(bytes, self.encoding)
    }

    /// A cell as it is meant, be it text or not.
    pub(super) fn cell_bytes(&self, field: &Field) -> Cow<'_, [u8]> {
        match field.doubled {
            false => Cow::Borrowed(self.field(field)),
            true => Cow::Owned(undoubled(self.field(field), self.records.syntax().quote())),
        }
    }
}

/// Two quotes become one.
fn undoubled(bytes: &[u8], quote: Option<u8>) -> Vec<u8> {
    let mut undoubled = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = quote.and_then(|quote| memchr::memchr(quote, rest)) {
        undoubled.extend_from_slice(&rest[..=at]);
        // Every quote between quotes has another behind it.
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    undoubled.extend_from_slice(rest);
    undoubled
}

pub(super) fn endless_row(row: u64, broken: &Broken, limits: &FileLimits) -> Refusal {
    let (code, message) = told(broken.fault, "row", limits.row_bytes, MAX_ROW_BYTES);
    let mut refusal = Refusal::unprocessable(code, message).on_line(broken.place.line);
    refusal.failure.row = Some(row);
    match broken.fault {
        Fault::TooLong { actual } | Fault::Endless { actual } => {
            refusal.limit(limits.row_bytes as u64, actual)
        }
        Fault::UnclosedQuote => refusal,
    }
}

pub(super) fn told(
    fault: Fault,
    what: &'static str,
    limit: usize,
    setting: &str,
) -> (&'static str, String) {
    match fault {
        Fault::UnclosedQuote => (
            "unclosed_quote",
            format!(
                "a quote is opened on this line and not closed within {limit} bytes ({setting}) or before the file ends"
            ),
        ),
        Fault::TooLong { actual } | Fault::Endless { actual } => {
            let code = if what == "row" {
                "row_too_large"
            } else {
                "header_too_large"
            };
            let message =
                format!("the {what} has at least {actual} bytes, the limit is {limit} ({setting})");
            (code, message)
        }
    }
}
