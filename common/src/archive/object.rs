//! The format of the archive's objects.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::batch::{Batch, Cell, write_json};
use crate::sha256::Sha256;
use crate::upload::{Epoch, UploadId};

/// Encodes a batch as a JSON array with one object per row and one row per line. DuckDB, Athena and
/// jq read this format. The same batch always gives the same bytes.
pub fn batch_object(batch: &Batch) -> Bytes {
    let names = name_prefixes(batch);
    let mut object = Vec::with_capacity(object_capacity(batch, &names));
    object.push(b'[');
    for (index, row) in batch.rows().enumerate() {
        object.extend_from_slice(if index == 0 { b"\n{" } else { b",\n{" });
        for (column, (cell, name)) in row.zip(&names).enumerate() {
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
    object.extend_from_slice(b"\n]\n");
    Bytes::from(object)
}

/// The memory of a batch's object, in bytes: slightly more than its size.
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
/// before the upload's status becomes final. Its bytes depend only on the upload, so any worker may
/// write it again.
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
    /// The object's key below the archive's prefix.
    pub key: String,
    /// The batch's first row number.
    pub first_row: u64,
    /// How many rows the object has.
    pub rows: u32,
    /// The size of the object.
    pub bytes: u64,
    /// CRC-32 (IEEE) of the object in hex, to detect damage.
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
mod tests {
    use super::*;
    use crate::batch::{BatchEncoder, BatchLimits};
    use crate::upload::UploadKey;

    #[test]
    fn a_batch_object_is_json_with_one_row_per_line() {
        let columns = ["id".to_owned(), "say \"hi\"".to_owned()];
        let limits = BatchLimits {
            rows: 10,
            bytes: 1000,
        };
        let upload = UploadKey::first(UploadId::generate());
        let mut encoder = BatchEncoder::new(upload, &columns, "", limits);
        encoder.push(1, ["007", "a\nb"].into_iter()).unwrap();
        encoder.push(2, ["", "🦀"].into_iter()).unwrap();
        let (batch, _) = encoder.finish();
        let batch = Batch::decode(batch.unwrap().body).unwrap();
        let object = batch_object(&batch);
        let expected = concat!(
            "[\n",
            r#"{"id":"007","say \"hi\"":"a\nb"},"#,
            "\n",
            r#"{"id":"","say \"hi\"":"🦀"}"#,
            "\n]\n"
        );
        assert_eq!(std::str::from_utf8(&object).unwrap(), expected);
    }
}
