//! The format of the archive's objects.

#[cfg(feature = "compression")]
use std::io::{self, Write};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[cfg(feature = "compression")]
use super::compression::{ArchiveCompression, gzip_encoder, zstd_encoder};
use crate::batch::{Batch, Cell, write_json};
use crate::sha256::Sha256;
use crate::upload::{Epoch, UploadId};

/// The bytes before the first row of an object, and those after its last row.
const BEGIN: &[u8] = b"[";
const END: &[u8] = b"\n]\n";

/// Encodes a batch as a JSON array with one object per row and one row per line. DuckDB, Athena and
/// jq read this format. The same batch always gives the same bytes.
pub fn batch_object(batch: &Batch) -> Bytes {
    let names = name_prefixes(batch);
    let mut object = Vec::with_capacity(object_capacity(batch, &names));
    object.extend_from_slice(BEGIN);
    for (index, row) in batch.rows().enumerate() {
        write_row(&mut object, index, row, &names);
    }
    object.extend_from_slice(END);
    Bytes::from(object)
}

fn write_row<'a>(
    object: &mut Vec<u8>,
    index: usize,
    row: impl Iterator<Item = Cell<'a>>,
    names: &[Vec<u8>],
) {
    object.extend_from_slice(if index == 0 { b"\n{" } else { b",\n{" });
    for (column, (cell, name)) in row.zip(names).enumerate() {
        if column > 0 {
            object.push(b',');
        }
        object.extend_from_slice(name);
        match cell {
            Cell::Null => object.extend_from_slice(b"null"),
            Cell::Plain(json) | Cell::Escaped(json) => object.extend_from_slice(json),
        }
    }
    object.push(b'}');
}

/// The object of a batch as it is archived.
#[cfg(feature = "compression")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchObject {
    /// The bytes to store.
    pub body: Bytes,
    /// The size of the object without compression.
    pub uncompressed_bytes: u64,
}

#[cfg(feature = "compression")]
impl BatchObject {
    /// Encodes and compresses a batch. The same batch always gives the same bytes.
    ///
    /// A compressed object is made piece by piece, so the memory of this call is at most
    /// [`batch_object_bytes`], apart from the longest row and the tables of the compressor.
    pub fn encode(batch: &Batch, compression: ArchiveCompression) -> io::Result<Self> {
        let output = || Vec::with_capacity(first_capacity(batch));
        match compression {
            ArchiveCompression::None => {
                let body = batch_object(batch);
                Ok(Self {
                    uncompressed_bytes: body.len() as u64,
                    body,
                })
            }
            ArchiveCompression::Gzip => {
                let mut encoder = gzip_encoder(output());
                let bytes = write_in_pieces(batch, &mut encoder)?;
                Ok(Self::compressed(encoder.finish()?, bytes))
            }
            ArchiveCompression::Zstd => {
                let mut encoder = zstd_encoder(output())?;
                let bytes = write_in_pieces(batch, &mut encoder)?;
                Ok(Self::compressed(encoder.finish()?, bytes))
            }
        }
    }

    fn compressed(mut body: Vec<u8>, uncompressed_bytes: u64) -> Self {
        // The object may wait long for a slow archive.
        body.shrink_to_fit();
        Self {
            body: Bytes::from(body),
            uncompressed_bytes,
        }
    }
}

/// The first capacity for a compressed object. Most objects shrink to less. For an object that does
/// not shrink, the vector doubles its capacity twice, to that of the object without compression.
#[cfg(feature = "compression")]
fn first_capacity(batch: &Batch) -> usize {
    batch_object_bytes(batch) / 4
}

/// Writes the object of a batch to an encoder. Returns how many bytes the encoder has got.
#[cfg(feature = "compression")]
fn write_in_pieces(batch: &Batch, encoder: &mut impl Write) -> io::Result<u64> {
    // An encoder takes far longer for many small pieces, such as cells, than for a few large ones.
    const PIECE_BYTES: usize = 64 << 10;
    let names = name_prefixes(batch);
    let mut piece = Vec::with_capacity(2 * PIECE_BYTES);
    let mut bytes = 0;
    piece.extend_from_slice(BEGIN);
    for (index, row) in batch.rows().enumerate() {
        write_row(&mut piece, index, row, &names);
        if piece.len() >= PIECE_BYTES {
            encoder.write_all(&piece)?;
            bytes += piece.len() as u64;
            piece.clear();
        }
    }
    piece.extend_from_slice(END);
    encoder.write_all(&piece)?;
    Ok(bytes + piece.len() as u64)
}

/// The memory of a batch's object without compression, in bytes: slightly more than its size.
pub fn batch_object_bytes(batch: &Batch) -> usize {
    object_capacity(batch, &name_prefixes(batch))
}

fn object_capacity(batch: &Batch, names: &[Vec<u8>]) -> usize {
    let names_bytes: usize = names.iter().map(|name| name.len() + 1).sum();
    batch.size_bytes() + batch.row_count() * names_bytes + 8
}

fn name_prefixes(batch: &Batch) -> Vec<Vec<u8>> {
    batch.columns.iter().map(|name| name_prefix(name)).collect()
}

/// `"name":`
fn name_prefix(name: &str) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(name.len() + 3);
    write_json(&mut prefix, name);
    prefix.push(b':');
    prefix
}

/// The content of `manifest.json`, the archive's record of a completed upload. A worker writes it
/// before the upload's status becomes final. Its bytes depend only on the upload and its dead
/// letters, so any worker may write it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this layout.
    pub version: u32,
    /// The id of the upload.
    pub upload: UploadId,
    /// The epoch in which the upload ended.
    pub epoch: Epoch,
    /// The client's name for the file.
    pub filename: Option<String>,
    /// SHA-256 of the file as it was sent.
    pub source_sha256: Option<Sha256>,
    /// Bytes of the file as it was sent.
    pub source_bytes: u64,
    /// When the upload was created.
    pub created_at: Timestamp,
    /// The names of the stored columns, in the order of the cells.
    pub columns: Vec<String>,
    /// Rows in all batches.
    pub rows: u64,
    /// The number of rows that were rejected before they got into a batch. The store has each
    /// rejected row with its reason.
    pub rejected: u64,
    /// The number of rows that are in no batch here, because their batches are dead letters. A
    /// retry writes the manifest again.
    #[serde(default)]
    pub dead: u64,
    /// The number of rows in the batches that violate a constraint of the dataset's table. The
    /// store has rejected them too, after their batches were archived. `None` if the rows were
    /// merged into the table at the end, because the manifest is written before the merge.
    #[serde(default)]
    pub violating: Option<u64>,
    /// The batches in order.
    pub batches: Vec<ManifestBatch>,
}

/// One object of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestBatch {
    /// The object's key below the archive's prefix. Its end names the compression.
    pub key: String,
    /// The batch's first row number.
    pub first_row: u64,
    /// How many rows the object has.
    pub rows: u32,
    /// The size of the object as it is stored, after its compression.
    pub bytes: u64,
    /// CRC-32 (IEEE) of the object as it is stored, in hex, to detect damage.
    pub crc32: String,
}

impl Manifest {
    /// The object's bytes.
    pub fn to_bytes(&self) -> serde_json::Result<Bytes> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(Bytes::from(bytes))
    }
}

#[cfg(test)]
mod tests;
