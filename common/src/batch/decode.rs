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
    /// `row_number` of its first row.
    pub first_row: u64,
    /// The upload's columns.
    pub columns: Vec<String>,
    /// The W3C `traceparent` of the request it came with.
    pub trace: String,
    body: Bytes,
    cells: Vec<Range<u32>>,
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
            first_row: wire.first_row,
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
    first_row: u64,
    #[serde(borrow)]
    trace: Cow<'a, str>,
    #[serde(borrow)]
    columns: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    rows: Rows<'a>,
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
mod tests {
    use super::super::{BatchEncoder, BatchLimits, EncodedBatch};
    use super::*;
    use proptest::prelude::*;

    fn encode(columns: &[String], rows: &[Vec<String>], limits: BatchLimits) -> Vec<EncodedBatch> {
        let upload = UploadId::generate();
        let mut encoder = BatchEncoder::new(upload, 1, columns, "00-trace", limits);
        let mut batches: Vec<_> = rows
            .iter()
            .filter_map(|row| encoder.push(row.iter().map(String::as_str)).unwrap())
            .collect();
        let (last, count) = encoder.finish();
        batches.extend(last);
        assert_eq!(batches.len(), count as usize);
        batches
    }

    fn texts(batch: &Batch) -> Vec<Vec<String>> {
        let text =
            |cell: Cell<'_>| String::from_utf8(cell.text().unwrap().unwrap().into_owned()).unwrap();
        batch.rows().map(|row| row.map(text).collect()).collect()
    }

    proptest! {
        #[test]
        fn every_row_comes_back_once_and_in_order(
            rows in prop::collection::vec(prop::collection::vec("\\PC*|[\"\\\\\n\r\t\u{1}é🦀]*", 3), 0..40),
            max_rows in 1u32..12,
            max_bytes in 400usize..2000,
        ) {
            let columns: Vec<String> = ["a", "b \"quoted\"", "ü"].map(String::from).to_vec();
            let limits = BatchLimits { rows: max_rows, bytes: max_bytes };
            let rows: Vec<_> = rows.into_iter().filter(|row| row.iter().map(|cell| cell.len() * 6 + 3).sum::<usize>() + 8 < max_bytes).collect();
            let mut back = Vec::new();
            for (index, encoded) in encode(&columns, &rows, limits).into_iter().enumerate() {
                let batch = Batch::decode(encoded.body).unwrap();
                prop_assert_eq!(batch.id, encoded.id);
                prop_assert_eq!(batch.id.seq as usize, index + 1);
                prop_assert_eq!(batch.first_row as usize, back.len() + 1);
                prop_assert_eq!(batch.row_count(), encoded.rows as usize);
                prop_assert!(batch.row_count() <= max_rows as usize);
                prop_assert_eq!(&batch.columns, &columns);
                back.extend(texts(&batch));
            }
            prop_assert_eq!(back, rows);
        }
    }

    fn message(v: u32, rows: &str) -> Bytes {
        let upload = UploadId::generate();
        Bytes::from(format!(
            r#"{{"v":{v},"upload":"{upload}","epoch":1,"seq":1,"first_row":1,"trace":"","columns":["a","b"],"rows":{rows}}}"#
        ))
    }

    #[test]
    fn an_unknown_version_is_named_even_when_its_shape_is_unknown_too() {
        let body = Bytes::from_static(br#"{"v":7,"anything":{}}"#);
        assert!(matches!(
            Batch::decode(body),
            Err(DecodeError::UnknownVersion(7))
        ));
        assert!(matches!(
            Batch::decode(message(2, "[]")),
            Err(DecodeError::UnknownVersion(2))
        ));
    }

    #[test]
    fn a_null_is_not_an_empty_text() {
        let batch = Batch::decode(message(1, r#"[[null,""]]"#)).unwrap();
        let row: Vec<_> = batch.rows().next().unwrap().collect();
        assert_eq!(row, [Cell::Null, Cell::Json(b"\"\"")]);
        assert!(batch.rows_json().eq([b"null,\"\""]));
    }

    #[test]
    fn rows_that_are_not_lists_of_as_many_texts_as_columns_are_malformed() {
        for rows in [
            r#"[["1"]]"#,
            r#"[["1","2"],["3"]]"#,
            r#"[["1",2]]"#,
            r#"[["1","2"]"#,
            r#"[["1","\ud800"]]"#,
            r#"[{}]"#,
            "7",
        ] {
            let decoded = Batch::decode(message(1, rows));
            assert!(matches!(decoded, Err(DecodeError::Malformed(_))), "{rows}");
        }
    }

    #[test]
    fn a_row_that_does_not_fit_is_named_with_its_size_and_leaves_the_batch_as_it_was() {
        let limits = BatchLimits {
            rows: 10,
            bytes: 40,
        };
        let columns = ["a".to_owned()];
        let mut encoder = BatchEncoder::new(UploadId::generate(), 1, &columns, "", limits);
        assert!(encoder.push(["x"].into_iter()).unwrap().is_none());
        let wide = "y".repeat(60);
        let error = encoder.push([wide.as_str()].into_iter()).unwrap_err();
        assert_eq!((error.limit, error.actual), (40, 66));
        let (last, count) = encoder.finish();
        assert_eq!(count, 1);
        let batch = Batch::decode(last.unwrap().body).unwrap();
        assert_eq!(texts(&batch), [["x"]]);
    }
}
