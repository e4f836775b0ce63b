//! Encodes rows into messages.
//!
//! The body is JSON with one row per line: `{"v":2,…,"columns":[…],"rows":[`, a line per row, and
//! `],"runs":[[1,1000]]}`. The runs give the row numbers, because a rejected row leaves a gap. The
//! decoder searches for the exact bytes `,"rows":[`. Rows are written directly into the published
//! buffer, without a string or a value tree per cell.
//!
//! A message with rows of a dataset has another version. Its cells are the canonical texts of
//! their values, or null. It ends with the origins of the rows:
//! `],"runs":[[1,1000]],"origins":[`, a line per row, and `]}`. If a row violates a constraint of
//! the table, the worker rejects it with its text and its position in the file, which are there.

mod origins;

use bytes::Bytes;

pub use self::origins::RowOrigin;
use self::origins::{Entry, Origins};
use super::{BatchId, MESSAGE_VERSION, TYPED_MESSAGE_VERSION, write_json};
use crate::upload::UploadKey;

/// The limits at which a batch closes.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// The most rows of a batch.
    pub rows: u32,
    /// The most encoded bytes of a batch's rows and their origins. One row with its origin cannot
    /// have more either. A batch closes before the row that would exceed this limit.
    pub bytes: usize,
}

impl BatchLimits {
    /// The most bytes of a batch's object in the archive, unless a single row has more. The object
    /// repeats the column names in every row, so it may be far larger than the message.
    pub fn object_bytes(&self) -> usize {
        2 * self.bytes
    }
}

/// A batch ready to publish.
#[derive(Debug, Clone)]
pub struct EncodedBatch {
    /// The batch's id, which is also its message id on the broker.
    pub id: BatchId,
    /// How many rows the batch has.
    pub rows: u32,
    /// The message body.
    pub body: Bytes,
}

/// A row exceeds the limit of a whole batch.
#[derive(Debug, thiserror::Error)]
#[error("the encoded row has {actual} bytes, the limit is {limit}")]
pub struct RowTooLarge {
    /// The limit in encoded bytes.
    pub limit: usize,
    /// The encoded bytes of the row.
    pub actual: usize,
}

/// Cuts a stream of rows into batches. The cuts depend only on the rows, and never on the timing of
/// the upload.
#[derive(Debug)]
pub struct BatchEncoder {
    limits: BatchLimits,
    /// The version of every message.
    version: u32,
    id: BatchId,
    /// The part that is the same in every batch: `,"trace":"…","columns":[…],"rows":[`.
    shared: Vec<u8>,
    /// The bytes that the column names add to a row in the archive.
    names_bytes: usize,
    /// The open batch: its envelope, then its rows.
    buffer: Vec<u8>,
    /// The offset of the first row in `buffer`.
    rows_start: usize,
    rows: u32,
    /// The row numbers of the open batch as runs without a gap: first number and length.
    runs: Vec<(u64, u32)>,
    /// The origins of the rows of the open batch; unused if the rows go into the landing table.
    origins: Origins,
}

impl BatchEncoder {
    /// Starts batch 1 of an upload. `trace` is the W3C `traceparent` for every message.
    pub fn new(upload: UploadKey, columns: &[String], trace: &str, limits: BatchLimits) -> Self {
        Self::with_version(MESSAGE_VERSION, upload, columns, trace, limits)
    }

    /// Starts the batch with this id, whose rows go into the landing table.
    pub(crate) fn at(id: BatchId, columns: &[String], limits: BatchLimits) -> Self {
        let mut encoder = Self::new(id.upload, columns, "", limits);
        encoder.id = id;
        encoder.open(0);
        encoder
    }

    /// Starts batch 1 of an upload whose rows go into a dataset. The columns are those of the
    /// dataset; everything else is as in `new`.
    pub fn typed(upload: UploadKey, columns: &[String], trace: &str, limits: BatchLimits) -> Self {
        Self::with_version(TYPED_MESSAGE_VERSION, upload, columns, trace, limits)
    }

    fn with_version(
        version: u32,
        upload: UploadKey,
        columns: &[String],
        trace: &str,
        limits: BatchLimits,
    ) -> Self {
        let mut shared = b",\"trace\":".to_vec();
        write_json(&mut shared, trace);
        shared.extend_from_slice(b",\"columns\":");
        let columns_start = shared.len();
        write_json(&mut shared, columns);
        // `["a","b"]` in the message becomes `"a":` and `"b":` in every row of the object.
        let names_bytes = shared.len() - columns_start - 1;
        shared.extend_from_slice(b",\"rows\":[");
        let mut encoder = Self {
            limits,
            version,
            id: BatchId { upload, seq: 1 },
            shared,
            names_bytes,
            buffer: Vec::new(),
            rows_start: 0,
            rows: 0,
            runs: Vec::new(),
            origins: Origins::default(),
        };
        encoder.open(0);
        encoder
    }

    /// Adds a row. Row numbers must increase. Returns the batch that this row completes: the batch
    /// with this row if it is full, or the previous batch if this row did not fit.
    pub fn push<'a>(
        &mut self,
        row_number: u64,
        cells: impl Iterator<Item = &'a str>,
    ) -> Result<Option<EncodedBatch>, RowTooLarge> {
        self.push_short(row_number, cells, 0)
    }

    /// Adds a row that lacks this number of cells at its end. They are NULL. A row has at least one
    /// cell.
    pub fn push_short<'a>(
        &mut self,
        row_number: u64,
        cells: impl Iterator<Item = &'a str>,
        missing: usize,
    ) -> Result<Option<EncodedBatch>, RowTooLarge> {
        let start = self.begin_row();
        for (index, cell) in cells.enumerate() {
            if index > 0 {
                self.buffer.push(b',');
            }
            write_json(&mut self.buffer, cell);
        }
        for _ in 0..missing {
            self.buffer.extend_from_slice(b",null");
        }
        self.end_row(row_number, start, None)
    }

    /// Adds a row of a dataset with its origin. `typed` must have made the encoder. A row has at
    /// least one cell, and a cell may be NULL. Everything else is as in `push`.
    pub fn push_typed<'a>(
        &mut self,
        row_number: u64,
        cells: impl Iterator<Item = Option<&'a str>>,
        origin: RowOrigin<impl Iterator<Item = (u32, &'a str)>>,
    ) -> Result<Option<EncodedBatch>, RowTooLarge> {
        let start = self.begin_row();
        for (index, cell) in cells.enumerate() {
            if index > 0 {
                self.buffer.push(b',');
            }
            match cell {
                Some(text) => write_json(&mut self.buffer, text),
                None => self.buffer.extend_from_slice(b"null"),
            }
        }
        let entry = self.origins.push(origin);
        self.end_row(row_number, start, Some(entry))
    }

    /// Opens a row, and returns its offset in the buffer. This function and `end_row` are always
    /// inlined, so that sharing them adds no calls to the encoding of a row.
    #[inline(always)]
    fn begin_row(&mut self) -> usize {
        let start = self.buffer.len();
        self.buffer
            .extend_from_slice(if self.rows == 0 { b"\n[" } else { b",\n[" });
        start
    }

    /// Closes the row that starts at this offset and whose origin has this entry. Returns the batch
    /// that the row completes.
    #[inline(always)]
    fn end_row(
        &mut self,
        row_number: u64,
        start: usize,
        entry: Option<Entry>,
    ) -> Result<Option<EncodedBatch>, RowTooLarge> {
        self.buffer.push(b']');

        let origin_bytes = entry.map_or(0, |entry| self.origins.bytes_alone(entry));
        let row_bytes = self.buffer.len() - start + origin_bytes;
        if row_bytes > self.limits.bytes {
            self.buffer.truncate(start);
            if let Some(entry) = entry {
                self.origins.remove(entry);
            }
            return Err(RowTooLarge {
                limit: self.limits.bytes,
                actual: row_bytes,
            });
        }
        let mut full = None;
        if self.rows > 0 && self.is_over_limit() {
            // The first row of a batch has no comma before it, so byte 0 is skipped.
            let row = self.buffer.split_off(start);
            let origin = entry.map(|entry| (entry, self.origins.take_rest(entry)));
            full = Some(self.close());
            self.buffer.extend_from_slice(&row[1..]);
            if let Some((entry, rest)) = origin {
                self.origins.push_moved(entry, &rest);
            }
        }
        self.rows += 1;
        match self.runs.last_mut() {
            Some((first, count)) if *first + u64::from(*count) == row_number => *count += 1,
            _ => self.runs.push((row_number, 1)),
        }
        if self.rows == self.limits.rows {
            // This never replaces a batch that the overflow has closed: the open batch then has one
            // row, and under a limit of one row no open batch can overflow.
            full = Some(self.close());
        }
        Ok(full)
    }

    /// Returns the last batch if it has rows, and the number of all batches.
    pub fn finish(mut self) -> (Option<EncodedBatch>, u32) {
        let last = (self.rows > 0).then(|| self.close());
        (last, self.id.seq - 1)
    }

    /// Whether the open batch, with the row at its end, is too large as a message or as an object.
    fn is_over_limit(&self) -> bool {
        let rows_bytes = self.buffer.len() - self.rows_start;
        let names_bytes = (self.rows as usize + 1) * self.names_bytes;
        // The archived object does not have the origins.
        rows_bytes + self.origins.len() > self.limits.bytes
            || rows_bytes + names_bytes > self.limits.object_bytes()
    }

    fn close(&mut self) -> EncodedBatch {
        self.buffer.extend_from_slice(b"\n],\"runs\":");
        write_json(&mut self.buffer, &self.runs);
        if self.version == TYPED_MESSAGE_VERSION {
            self.origins.close(&mut self.buffer);
        }
        self.buffer.push(b'}');
        self.runs.clear();
        let body = Bytes::from(std::mem::take(&mut self.buffer));
        let batch = EncodedBatch {
            id: self.id,
            rows: self.rows,
            body,
        };
        self.rows = 0;
        self.id.seq += 1;
        self.open(batch.body.len());
        batch
    }

    fn open(&mut self, expected_bytes: usize) {
        // An eighth more than the last batch, so that the buffer rarely grows.
        self.buffer = Vec::with_capacity(expected_bytes + expected_bytes / 8);
        let BatchId { upload, seq } = self.id;
        let UploadKey { id, epoch } = upload;
        let version = self.version;
        let ids = format!("{{\"v\":{version},\"upload\":\"{id}\",\"epoch\":{epoch},\"seq\":{seq}");
        self.buffer.extend_from_slice(ids.as_bytes());
        self.buffer.extend_from_slice(&self.shared);
        self.rows_start = self.buffer.len();
    }
}
