//! Messages into rows, without a string per cell.
//!
//! The body stays one buffer; a cell is a place in it. The archive copies a cell's JSON text as it stands, Postgres gets it
//! unescaped, and only a cell that has an escape in it costs a decoding.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{BatchId, MESSAGE_VERSION};
use crate::upload::UploadId;

/// A batch as a worker holds it.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Its name.
    pub id: BatchId,
    /// The upload's columns.
    pub columns: Vec<String>,
    /// The W3C `traceparent` of the request it came with.
    pub trace: String,
    body: Bytes,
    cells: Vec<Range<u32>>,
    /// First row numbers, and how many follow without a gap; as many as there are rows.
    runs: Vec<(u64, u32)>,
}

/// Why a message is no batch. It will never become one, so it is a dead letter.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer build, or by something else.
    #[error("message version {0} is not known here (this build reads version {MESSAGE_VERSION})")]
    UnknownVersion(u32),
    /// Not the JSON it should be.
    #[error("the message is malformed")]
    Malformed(#[from] serde_json::Error),
}

/// One cell of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell<'a> {
    /// No value.
    Null,
    /// A JSON string with its quotes.
    Json(&'a [u8]),
}

impl<'a> Cell<'a> {
    /// The text itself, decoded only where it has an escape. Fails for an escape that is no Unicode.
    pub fn text(self) -> Result<Option<Cow<'a, [u8]>>, serde_json::Error> {
        let Cell::Json(json) = self else {
            return Ok(None);
        };
        if memchr::memchr(b'\\', json).is_none() {
            return Ok(Some(Cow::Borrowed(&json[1..json.len() - 1])));
        }
        let text: String = serde_json::from_slice(json)?;
        Ok(Some(Cow::Owned(text.into_bytes())))
    }
}

impl Batch {
    /// Reads a message body. Every row has as many cells as there are columns, or it is malformed.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let wire: Wire<'_> = match serde_json::from_slice(&body) {
            Ok(wire) => wire,
            // A foreign version is told apart only now: looking first would read every good message twice.
            Err(error) => {
                return Err(match serde_json::from_slice::<VersionOnly>(&body) {
                    Ok(VersionOnly { v }) if v != MESSAGE_VERSION => DecodeError::UnknownVersion(v),
                    _ => error.into(),
                });
            }
        };
        if wire.v != MESSAGE_VERSION {
            return Err(DecodeError::UnknownVersion(wire.v));
        }
        let width = wire.columns.len();
        if wire.rows.width.is_some_and(|found| found != width) || width == 0 {
            let message = format!("rows do not have the {width} cells of the columns");
            return Err(<serde_json::Error as de::Error>::custom(message).into());
        }
        check_runs(&wire.runs, wire.rows.cells.len() / width)?;
        // Half a surrogate pair is the one thing that JSON lets pass and text does not; it must not come up in the middle of
        // a COPY. Our own messages have hardly any `\u`.
        if memchr::memmem::find(&body, b"\\u").is_some() {
            for json in wire.rows.cells.iter().filter(|json| **json != NULL) {
                let _text: Cow<'_, str> = serde_json::from_str(json)?;
            }
        }
        let base = body.as_ptr() as usize;
        let cells = wire
            .rows
            .cells
            .iter()
            .map(|json| {
                let start = (json.as_ptr() as usize - base) as u32;
                start..start + json.len() as u32
            })
            .collect();
        Ok(Self {
            id: BatchId {
                upload: wire.upload,
                epoch: wire.epoch,
                seq: wire.seq,
            },
            runs: wire.runs,
            columns: wire.columns.into_iter().map(Cow::into_owned).collect(),
            trace: wire.trace.into_owned(),
            cells,
            body,
        })
    }

    /// How many rows it carries.
    pub fn row_count(&self) -> usize {
        self.cells.len() / self.columns.len()
    }

    /// The `row_number` of its first row; 0 where it has none.
    pub fn first_row(&self) -> u64 {
        self.runs.first().map_or(0, |(first, _)| *first)
    }

    /// The `row_number` of its last row; 0 where it has none.
    pub fn last_row(&self) -> u64 {
        let last = self.runs.last();
        last.map_or(0, |(first, count)| first + u64::from(*count) - 1)
    }

    /// The row numbers of its rows: the first of each run without a gap, and how many they are. A rejected row leaves a gap.
    pub fn runs(&self) -> &[(u64, u32)] {
        &self.runs
    }

    /// The row numbers of its rows in order.
    pub fn row_numbers(&self) -> impl Iterator<Item = u64> {
        let numbers = |(first, count): &(u64, u32)| *first..*first + u64::from(*count);
        self.runs.iter().flat_map(numbers)
    }

    /// The size of the message, which bounds what it costs to hold and to store.
    pub fn size_bytes(&self) -> usize {
        self.body.len()
    }

    /// Its rows in order, each as its cells in the order of the columns.
    pub fn rows(&self) -> impl Iterator<Item = impl Iterator<Item = Cell<'_>>> {
        self.cells
            .chunks_exact(self.columns.len())
            .map(|row| row.iter().map(|place| self.cell(place)))
    }

    /// Its rows in order, each as the JSON between the brackets of its list of cells.
    pub fn rows_json(&self) -> impl Iterator<Item = &[u8]> {
        self.cells
            .chunks_exact(self.columns.len())
            .map(|row| &self.body[row[0].start as usize..row[row.len() - 1].end as usize])
    }

    fn cell(&self, place: &Range<u32>) -> Cell<'_> {
        match &self.body[place.start as usize..place.end as usize] {
            json if json == NULL.as_bytes() => Cell::Null,
            json => Cell::Json(json),
        }
    }
}

#[derive(Deserialize)]
struct VersionOnly {
    v: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    v: u32,
    upload: UploadId,
    epoch: i32,
    seq: u32,
    #[serde(borrow)]
    trace: Cow<'a, str>,
    #[serde(borrow)]
    columns: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    rows: Rows<'a>,
    runs: Vec<(u64, u32)>,
}

/// Row numbers start at 1 and grow, and there is one for every row.
fn check_runs(runs: &[(u64, u32)], rows: usize) -> Result<(), serde_json::Error> {
    let (mut next, mut count) = (1, 0);
    for (first, length) in runs {
        let behind = first.checked_add(u64::from(*length));
        match behind.filter(|_| *first >= next && *length > 0) {
            Some(behind) => next = behind,
            None => return Err(de::Error::custom("row numbers do not grow")),
        }
        count += *length as usize;
    }
    if count == rows {
        return Ok(());
    }
    let message = format!("there are {rows} rows and {count} row numbers");
    Err(de::Error::custom(message))
}

/// A cell without a value.
const NULL: &str = "null";

/// All cells of all rows, one after the other, as they are written.
struct Rows<'a> {
    cells: Vec<&'a str>,
    /// Cells of the first row; every other row has as many.
    width: Option<usize>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Rows<'a> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RowsVisitor;
        impl<'de> Visitor<'de> for RowsVisitor {
            type Value = Rows<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of rows")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Self::Value, A::Error> {
                let mut all = Rows {
                    cells: Vec::new(),
                    width: None,
                };
                loop {
                    let before = all.cells.len();
                    if rows.next_element_seed(OneRow(&mut all.cells))?.is_none() {
                        return Ok(all);
                    }
                    let found = all.cells.len() - before;
                    if *all.width.get_or_insert(found) != found {
                        return Err(de::Error::custom("rows differ in their number of cells"));
                    }
                }
            }
        }
        deserializer.deserialize_seq(RowsVisitor)
    }
}

/// Appends the cells of one row.
struct OneRow<'b, 'a>(&'b mut Vec<&'a str>);

impl<'de> DeserializeSeed<'de> for OneRow<'_, 'de> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for OneRow<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row of strings and nulls")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut row: A) -> Result<(), A::Error> {
        while let Some(cell) = row.next_element::<&'de RawValue>()? {
            let json = cell.get();
            if json != NULL && !json.starts_with('"') {
                return Err(de::Error::custom("a cell is neither a string nor null"));
            }
            self.0.push(json);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
