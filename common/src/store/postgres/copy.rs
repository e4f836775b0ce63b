//! Rows as Postgres' binary COPY format wants them (PostgreSQL manual, COPY, "Binary Format").
//!
//! Text would have to be escaped twice, once as an array literal and once for COPY; in binary a
//! cell is its length and its bytes.

use crate::batch::Batch;

/// What a binary COPY begins with: the signature, no flags, no extension.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// What it ends with: a tuple of -1 fields.
pub(super) const TRAILER: &[u8] = &[0xff, 0xff];

/// The statement that takes it.
pub(super) const STATEMENT: &str =
    "COPY rows (upload_id, row_number, fields) FROM STDIN (FORMAT binary)";

const TEXT_OID: u32 = 25;

/// Appends every row of a batch. Fails for a cell whose JSON text is no Unicode.
pub fn append_rows(buffer: &mut Vec<u8>, batch: &Batch) -> Result<(), serde_json::Error> {
    let upload = batch.id.upload.id.as_uuid();
    let width = batch.columns.len() as u32;
    for (row_number, row) in batch.row_numbers().zip(batch.rows()) {
        buffer.extend_from_slice(&3u16.to_be_bytes());
        append_value(buffer, upload.as_bytes());
        append_value(buffer, &row_number.to_be_bytes());

        let length_at = buffer.len();
        buffer.extend_from_slice(&[0; 4]);
        // One dimension; nulls may occur; of text; so many elements, counted from 1.
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

/// A length and that many bytes. A message is under 8 MiB, so every length fits.
fn append_value(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    buffer.extend_from_slice(bytes);
}
