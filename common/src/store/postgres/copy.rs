//! Encodes rows in Postgres' binary COPY format (PostgreSQL manual, COPY, "Binary Format").
//!
//! In the text format every cell would be escaped twice, as an element of an array and for COPY. In
//! the binary format a cell is its length and its bytes.

use crate::batch::Batch;

/// The header of a binary COPY: the signature, no flags, no extension.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The trailer of a binary COPY: -1 instead of a field count.
pub(super) const TRAILER: &[u8] = &[0xff, 0xff];

/// The statement that starts the COPY.
pub(super) const STATEMENT: &str =
    "COPY landing (upload, row_number, fields) FROM STDIN (FORMAT binary)";

const TEXT_OID: u32 = 25;

/// Appends every row of a batch, with the number of its upload. Fails if the JSON text of a cell is
/// not valid Unicode.
pub fn append_rows(
    buffer: &mut Vec<u8>,
    upload: i64,
    batch: &Batch,
) -> Result<(), serde_json::Error> {
    let width = batch.columns.len() as u32;
    for (row_number, row) in batch.row_numbers().zip(batch.rows()) {
        buffer.extend_from_slice(&3u16.to_be_bytes());
        append_value(buffer, &upload.to_be_bytes());
        append_value(buffer, &row_number.to_be_bytes());

        let length_at = buffer.len();
        buffer.extend_from_slice(&[0; 4]);
        // One dimension, nulls possible, elements of type `text`, `width` elements, first index 1.
        for word in [1, 1, TEXT_OID, width, 1] {
            buffer.extend_from_slice(&word.to_be_bytes());
        }
        for cell in row {
            match cell.text()? {
                None => buffer.extend_from_slice(&(-1i32).to_be_bytes()),
                Some(text) => append_value(buffer, &text),
            }
        }
        let length = (buffer.len() - length_at - 4) as u32;
        buffer[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// Appends the length of `bytes` and the bytes. A message is under 8 MiB, so the length fits into
/// 32 bits.
fn append_value(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    buffer.extend_from_slice(bytes);
}
