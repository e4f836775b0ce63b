//! Decodes messages into rows, without a string per cell.
//!
//! The body stays one buffer, and a cell is a span of it. The archive copies the JSON of a cell
//! unchanged. Postgres gets the text of a cell, and only a cell with an escape must be decoded.

mod origins;
mod scan;

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::Error as _;

pub use self::origins::Origin;
use self::scan::{Kind, ScannedRows, Span};
use super::{BatchId, MESSAGE_VERSION, TYPED_MESSAGE_VERSION, is_supported};
use crate::upload::{Epoch, UploadId, UploadKey};

/// A decoded batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The batch's id.
    pub id: BatchId,
    /// The names of the cells of a row: the upload's columns, or those of its dataset.
    pub columns: Vec<String>,
    /// The W3C `traceparent` of the span that sent the batch.
    pub trace: String,
    body: Bytes,
    cells: Vec<Span>,
    /// The row numbers as runs without a gap: first number and length.
    runs: Vec<(u64, u32)>,
    /// The span of the list `origins` in `body`, if the message has this list.
    origins: Option<Range<usize>>,
}

/// The reason why a message cannot be decoded. Another attempt would give the same error, so the
/// message becomes a dead letter.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A newer build or another program wrote the message.
    #[error(
        "message version {0} is unsupported: this build reads versions {MESSAGE_VERSION} and {TYPED_MESSAGE_VERSION}"
    )]
    UnknownVersion(u32),
    /// The message is not the expected JSON.
    #[error("the message is malformed")]
    Malformed(#[from] serde_json::Error),
}

/// One cell of a row: no value, or a JSON string with its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell<'a> {
    /// No value.
    Null,
    /// A text without an escape: the bytes between the quotes.
    Plain(&'a [u8]),
    /// A text with an escape: the bytes between the quotes.
    Escaped(&'a [u8]),
}

impl<'a> Cell<'a> {
    /// The cell's text. It is decoded only if it has an escape. Fails for an escape that is not a
    /// Unicode character.
    pub fn text(self) -> Result<Option<Cow<'a, [u8]>>, serde_json::Error> {
        match self {
            Cell::Null => Ok(None),
            Cell::Plain(json) => Ok(Some(Cow::Borrowed(&json[1..json.len() - 1]))),
            Cell::Escaped(json) => {
                let text: String = serde_json::from_slice(json)?;
                Ok(Some(Cow::Owned(text.into_bytes())))
            }
        }
    }
}

impl Batch {
    /// Reads a message body. Every row must have one cell per column.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let Parts {
            envelope,
            cells,
            origins,
        } = decode(&body)?;
        Ok(Self {
            id: BatchId {
                upload: UploadKey {
                    id: envelope.upload,
                    epoch: envelope.epoch,
                },
                seq: envelope.seq,
            },
            runs: envelope.runs,
            columns: envelope.columns,
            trace: envelope.trace,
            cells,
            origins,
            body,
        })
    }

    /// How many rows the batch has.
    pub fn row_count(&self) -> usize {
        self.cells.len() / self.columns.len()
    }

    /// The `row_number` of the first row, or 0 if the batch is empty.
    pub fn first_row(&self) -> u64 {
        self.runs.first().map_or(0, |(first, _)| *first)
    }

    /// The `row_number` of the last row, or 0 if the batch is empty.
    pub fn last_row(&self) -> u64 {
        let last = self.runs.last();
        last.map_or(0, |(first, count)| first + u64::from(*count) - 1)
    }

    /// The row numbers as runs without a gap: the first number of each run, and its length. A
    /// rejected row leaves a gap.
    pub fn runs(&self) -> &[(u64, u32)] {
        &self.runs
    }

    /// The row numbers in the order of the rows.
    pub fn row_numbers(&self) -> impl Iterator<Item = u64> {
        let numbers = |(first, count): &(u64, u32)| *first..*first + u64::from(*count);
        self.runs.iter().flat_map(numbers)
    }

    /// The size of the message, which bounds the memory of the batch and the cost of storing it.
    pub fn size_bytes(&self) -> usize {
        self.body.len()
    }

    /// The rows in order, each as its cells in the order of the columns.
    pub fn rows(&self) -> impl Iterator<Item = impl Iterator<Item = Cell<'_>>> {
        self.cells
            .chunks_exact(self.columns.len())
            .map(|row| row.iter().map(|span| self.cell(span)))
    }

    /// The cells of the row with this index, from 0. Yields nothing if the batch lacks the row.
    pub fn row(&self, index: usize) -> impl Iterator<Item = Cell<'_>> {
        let mut rows = self.cells.chunks_exact(self.columns.len());
        let row = rows.nth(index).unwrap_or_default();
        row.iter().map(|span| self.cell(span))
    }

    /// The origins of the rows at these indexes. The indexes count from 0 and must ascend. Fails if
    /// the message has no origins, or if they are malformed.
    pub fn origins(&self, indexes: &[usize]) -> Result<Vec<Origin>, DecodeError> {
        let Some(origins) = self.origins.clone() else {
            return Err(serde_json::Error::custom("expected a list `origins`").into());
        };
        let json = &self.body[origins];
        Ok(origins::read(json, self.row_count(), indexes)?)
    }

    /// The rows in order, each as the JSON between the brackets of its list of cells.
    pub fn rows_json(&self) -> impl Iterator<Item = &[u8]> {
        self.cells
            .chunks_exact(self.columns.len())
            .map(|row| &self.body[row[0].range().start..row[row.len() - 1].range().end])
    }

    fn cell(&self, span: &Span) -> Cell<'_> {
        let json = &self.body[span.range()];
        match span.kind() {
            Kind::Null => Cell::Null,
            Kind::Plain => Cell::Plain(json),
            Kind::Escaped => Cell::Escaped(json),
        }
    }
}

/// The `trace` of a message, from its first bytes, before the message is decoded. `None` if it is
/// not where the encoder writes it.
pub fn trace_of(body: &[u8]) -> Option<&str> {
    const FIELD: &[u8] = b",\"trace\":\"";
    let head = &body[..body.len().min(TRACE_WITHIN)];
    let start = memchr::memmem::find(head, FIELD)? + FIELD.len();
    let length = memchr::memchr(b'"', &head[start..])?;
    std::str::from_utf8(&head[start..start + length]).ok()
}

#[derive(Deserialize)]
struct VersionOnly {
    v: u32,
}

/// A message without its rows and their origins.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    v: u32,
    upload: UploadId,
    epoch: Epoch,
    seq: u32,
    trace: String,
    columns: Vec<String>,
    #[serde(rename = "rows")]
    _rows: [(); 0],
    runs: Vec<(u64, u32)>,
}

/// The fields before the trace have at most 100 bytes, and the trace has 55.
const TRACE_WITHIN: usize = 256;

/// The bytes before the list of rows, exactly as the encoder writes them. A text cannot contain
/// these bytes, because JSON escapes a quote inside a text.
const ROWS: &[u8] = b",\"rows\":[";

/// The bytes before the list of origins, which is the last field of a message.
const ORIGINS: &[u8] = b",\"origins\":";

/// The parts of a message.
struct Parts {
    envelope: Envelope,
    cells: Vec<Span>,
    /// The span of the list `origins` in the message.
    origins: Option<Range<usize>>,
}

fn decode(body: &[u8]) -> Result<Parts, DecodeError> {
    read(body).map_err(|error| {
        // The version is read only after a failure, so that a good message is parsed once.
        match serde_json::from_slice::<VersionOnly>(body) {
            Ok(VersionOnly { v }) if !is_supported(v) => DecodeError::UnknownVersion(v),
            _ => error.into(),
        }
    })
}

fn read(body: &[u8]) -> Result<Parts, serde_json::Error> {
    let start = memchr::memmem::find(body, ROWS).map(|at| at + ROWS.len());
    let start = start.ok_or_else(|| serde_json::Error::custom("expected a list `rows`"))?;
    let ScannedRows {
        cells,
        rows,
        has_unicode_escape,
        end,
    } = scan::scan(body, start).map_err(serde_json::Error::custom)?;
    let origins = find_origins(body, end);
    let rest = match &origins {
        None => [&body[..start], &body[end..]].concat(),
        Some(list) => [&body[..start], &body[end..list.start - ORIGINS.len()], b"}"].concat(),
    };
    let envelope: Envelope = serde_json::from_slice(&rest)?;
    if !is_supported(envelope.v) {
        return Err(serde_json::Error::custom("unsupported message version"));
    }
    if origins.is_some() && envelope.v != TYPED_MESSAGE_VERSION {
        return Err(serde_json::Error::custom("unexpected list `origins`"));
    }
    let width = envelope.columns.len();
    if width == 0 || cells.len() != rows * width {
        let message = format!(
            "expected {rows} rows of {width} cells, found {} cells",
            cells.len()
        );
        return Err(serde_json::Error::custom(message));
    }
    check_runs(&envelope.runs, rows)?;
    std::str::from_utf8(&body[start..end]).map_err(serde_json::Error::custom)?;
    // JSON allows half a surrogate pair, but a text does not. This check fails before a COPY has
    // started. Carga's encoder rarely writes `\u`, so the check is rare too.
    if has_unicode_escape {
        for span in cells.iter().filter(|span| span.kind() == Kind::Escaped) {
            let json = &body[span.range()];
            let _text: String = serde_json::from_slice(json)?;
        }
    }
    Ok(Parts {
        envelope,
        cells,
        origins,
    })
}

/// Finds the span of the list `origins` in a message whose rows end at this offset.
fn find_origins(body: &[u8], rows_end: usize) -> Option<Range<usize>> {
    let at = memchr::memmem::find(&body[rows_end..], ORIGINS)?;
    let start = rows_end + at + ORIGINS.len();
    body.ends_with(b"}").then(|| start..body.len() - 1)
}

/// Checks that row numbers start at 1 or later, increase, and number every row.
fn check_runs(runs: &[(u64, u32)], rows: usize) -> Result<(), serde_json::Error> {
    let (mut next, mut count) = (1, 0);
    for (first, length) in runs {
        let end = first.checked_add(u64::from(*length));
        match end.filter(|_| *first >= next && *length > 0) {
            Some(end) => next = end,
            None => {
                let message = format!("row numbers must increase: run [{first},{length}]");
                return Err(serde_json::Error::custom(message));
            }
        }
        count += *length as usize;
    }
    if count == rows {
        return Ok(());
    }
    let message = format!("expected {rows} row numbers, found {count}");
    Err(serde_json::Error::custom(message))
}

#[cfg(test)]
mod tests;
