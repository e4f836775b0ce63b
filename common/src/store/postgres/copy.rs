//! Encodes rows in Postgres' binary COPY format (PostgreSQL manual, COPY, "Binary Format").
//!
//! In the text format every cell would be escaped twice, as an element of an array and for COPY. In
//! the binary format a cell is its length and its bytes. Rows for the tables of datasets are in
//! `typed`, and rows that are staged in `landing` are in `staged`.

pub(super) mod staged;
pub(super) mod typed;

use std::collections::HashMap;

use sqlx::postgres::{PgConnection, PgCopyIn};

use crate::batch::{Batch, Cell};
use crate::store::sql;
use crate::upload::UploadId;

/// The header of a binary COPY: the signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The trailer of a binary COPY: -1 instead of a field count.
const TRAILER: &[u8] = &[0xff, 0xff];

/// The statement that starts the COPY.
pub(super) const STATEMENT: &str =
    "COPY landing (upload, row_number, fields) FROM STDIN (FORMAT binary)";

const TEXT_OID: u32 = 25;

/// Rows are sent in pieces of this size or a row more. sqlx keeps a buffer for each connection that
/// is as large as the largest piece.
const PIECE_BYTES: usize = 256 << 10;

/// A COPY that is sent in pieces.
///
/// After an error the connection may still be in COPY. `Connections` closes it after every error
/// except a refusal by the server, which ends the COPY.
struct Pieces<'c> {
    copy: PgCopyIn<&'c mut PgConnection>,
    buffer: Vec<u8>,
}

impl<'c> Pieces<'c> {
    fn new(copy: PgCopyIn<&'c mut PgConnection>) -> Self {
        let mut buffer = Vec::with_capacity(2 * PIECE_BYTES);
        buffer.extend_from_slice(HEADER);
        Self { copy, buffer }
    }

    /// Sends the buffer if it has a piece.
    async fn send_piece(&mut self) -> sqlx::Result<()> {
        if self.buffer.len() >= PIECE_BYTES {
            self.copy.send(self.buffer.as_slice()).await?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Sends the rest, and ends the COPY. Returns how many rows the table has taken.
    async fn finish(mut self) -> sqlx::Result<u64> {
        self.buffer.extend_from_slice(TRAILER);
        self.copy.send(self.buffer.as_slice()).await?;
        self.copy.finish().await
    }
}

/// Sends every row of the batches, each with the number of its upload, and ends the COPY.
pub(super) async fn send_rows(
    copy: PgCopyIn<&mut PgConnection>,
    batches: &[&Batch],
    numbers: &HashMap<UploadId, i64>,
) -> sqlx::Result<()> {
    let mut pieces = Pieces::new(copy);
    for batch in batches {
        let upload = numbers[&batch.id.upload.id];
        let mut next = 0;
        while next < batch.row_count() {
            next = append_rows(&mut pieces.buffer, upload, batch, next).map_err(sql::invalid)?;
            pieces.send_piece().await?;
        }
    }
    pieces.finish().await?;
    Ok(())
}

/// Appends the rows of a batch from this index on, each with the number of its upload, until the
/// buffer has a piece. Returns the index of the next row. Fails if the JSON text of a cell is not
/// valid Unicode.
pub fn append_rows(
    buffer: &mut Vec<u8>,
    upload: i64,
    batch: &Batch,
    from: usize,
) -> Result<usize, serde_json::Error> {
    let width = batch.columns.len() as u32;
    let mut next = from;
    for (row_number, row) in batch.row_numbers().zip(batch.rows()).skip(from) {
        append_row(buffer, (upload, row_number), width, row, None)?;
        next += 1;
        if buffer.len() >= PIECE_BYTES {
            break;
        }
    }
    Ok(next)
}

/// Appends a row of this many cells. A staged row has its origin behind them.
fn append_row<'a>(
    buffer: &mut Vec<u8>,
    (upload, row_number): (i64, u64),
    width: u32,
    row: impl Iterator<Item = Cell<'a>>,
    origin: Option<&str>,
) -> Result<(), serde_json::Error> {
    buffer.extend_from_slice(&3u16.to_be_bytes());
    append_value(buffer, &upload.to_be_bytes());
    append_value(buffer, &row_number.to_be_bytes());

    let length_at = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    let elements = width + u32::from(origin.is_some());
    // One dimension, nulls possible, elements of type `text`, the number of them, first index 1.
    for word in [1, 1, TEXT_OID, elements, 1] {
        buffer.extend_from_slice(&word.to_be_bytes());
    }
    for cell in row {
        match cell.text()? {
            None => buffer.extend_from_slice(&(-1i32).to_be_bytes()),
            Some(text) => append_value(buffer, &text),
        }
    }
    if let Some(origin) = origin {
        append_value(buffer, origin.as_bytes());
    }
    let length = (buffer.len() - length_at - 4) as u32;
    buffer[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Appends the length of `bytes` and the bytes. A message is under 8 MiB, so the length fits into
/// 32 bits.
fn append_value(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    buffer.extend_from_slice(bytes);
}
