//! Rows into messages.
//!
//! The body is JSON with one row per line: `{"v":2,…,"columns":[…],"rows":[`, then a line per row, then `],"runs":[[1,1000]]}`: which
//! row numbers they are (the decoder looks for `,"rows":[` as it stands here), since a rejected row leaves a gap. It is written straight into the buffer that is published; no
//! value tree and no string is made for a cell.

use bytes::Bytes;

use super::{BatchId, MESSAGE_VERSION, write_json};
use crate::upload::UploadKey;

/// When a batch closes.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Rows of a full batch.
    pub rows: u32,
    /// Encoded bytes of its rows beyond which it closes before the next row; also the most that one row may take.
    pub bytes: usize,
}

/// A batch ready to publish.
#[derive(Debug, Clone)]
pub struct EncodedBatch {
    /// Its name.
    pub id: BatchId,
    /// How many rows it carries.
    pub rows: u32,
    /// The message body.
    pub body: Bytes,
}

/// One row is larger than a whole batch may be.
#[derive(Debug, thiserror::Error)]
#[error("the row takes {actual} bytes when encoded, the limit is {limit}")]
pub struct RowTooLarge {
    /// Encoded bytes allowed.
    pub limit: usize,
    /// Encoded bytes needed.
    pub actual: usize,
}

/// Cuts a stream of rows into batches. Which rows share a batch depends on the rows alone, never on how the bytes of the
/// file arrived.
#[derive(Debug)]
pub struct BatchEncoder {
    limits: BatchLimits,
    id: BatchId,
    /// `,"trace":"…","columns":[…],"rows":[`, the same in every batch.
    shared: Vec<u8>,
    /// The open batch: its envelope, then its rows.
    buffer: Vec<u8>,
    /// Where the rows start in `buffer`.
    rows_start: usize,
    rows: u32,
    /// Row numbers of the open batch: first ones, and how many follow without a gap.
    runs: Vec<(u64, u32)>,
}

impl BatchEncoder {
    /// Starts batch 1 of an upload. `trace` is the W3C `traceparent` that the message carries on.
    pub fn new(upload: UploadKey, columns: &[String], trace: &str, limits: BatchLimits) -> Self {
        let mut shared = b",\"trace\":".to_vec();
        write_json(&mut shared, trace);
        shared.extend_from_slice(b",\"columns\":");
        write_json(&mut shared, columns);
        shared.extend_from_slice(b",\"rows\":[");
        let mut encoder = Self {
            limits,
            id: BatchId { upload, seq: 1 },
            shared,
            buffer: Vec::new(),
            rows_start: 0,
            rows: 0,
            runs: Vec::new(),
        };
        encoder.open(0);
        encoder
    }

    /// Adds a row; row numbers grow. Returns the batch that this row completed, or the one that had to close because the row
    /// did not fit.
    pub fn push<'a>(
        &mut self,
        row_number: u64,
        cells: impl Iterator<Item = &'a str>,
    ) -> Result<Option<EncodedBatch>, RowTooLarge> {
        let start = self.buffer.len();
        self.buffer
            .extend_from_slice(if self.rows == 0 { b"\n[" } else { b",\n[" });
        for (index, cell) in cells.enumerate() {
            if index > 0 {
                self.buffer.push(b',');
            }
            write_json(&mut self.buffer, cell);
        }
        self.buffer.push(b']');

        let row_bytes = self.buffer.len() - start;
        if row_bytes > self.limits.bytes {
            self.buffer.truncate(start);
            return Err(RowTooLarge {
                limit: self.limits.bytes,
                actual: row_bytes,
            });
        }
        let mut full = None;
        if self.rows > 0 && self.buffer.len() - self.rows_start > self.limits.bytes {
            // Byte 0 is the comma that follows a row; the first row of a batch has none.
            let row = self.buffer.split_off(start);
            full = Some(self.close());
            self.buffer.extend_from_slice(&row[1..]);
        }
        self.rows += 1;
        match self.runs.last_mut() {
            Some((first, count)) if *first + u64::from(*count) == row_number => *count += 1,
            _ => self.runs.push((row_number, 1)),
        }
        if self.rows == self.limits.rows {
            // Never both reasons at once: a batch that overflowed has one row now, and a limit of one row leaves no batch
            // open to overflow.
            full = Some(self.close());
        }
        Ok(full)
    }

    /// The last batch, if rows are left, and how many batches there were in all.
    pub fn finish(mut self) -> (Option<EncodedBatch>, u32) {
        let last = (self.rows > 0).then(|| self.close());
        (last, self.id.seq - 1)
    }

    fn close(&mut self) -> EncodedBatch {
        self.buffer.extend_from_slice(b"\n],\"runs\":");
        write_json(&mut self.buffer, &self.runs);
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
        // An eighth more than the last batch, so that a typical one never grows its buffer.
        self.buffer = Vec::with_capacity(expected_bytes + expected_bytes / 8);
        let BatchId { upload, seq } = self.id;
        let UploadKey { id, epoch } = upload;
        self.buffer.extend_from_slice(
            format!(
                "{{\"v\":{MESSAGE_VERSION},\"upload\":\"{id}\",\"epoch\":{epoch},\"seq\":{seq}"
            )
            .as_bytes(),
        );
        self.buffer.extend_from_slice(&self.shared);
        self.rows_start = self.buffer.len();
    }
}
