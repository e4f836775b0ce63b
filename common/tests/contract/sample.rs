//! Batches to send and to store.

use anyhow::{Context, Result};
use bytes::Bytes;
use carga_common::archive::ArchiveCompression;
use carga_common::batch::{Batch, BatchEncoder, BatchLimits, EncodedBatch, RowOrigin};
use carga_common::store::ArchivedBatch;
use carga_common::upload::{UploadId, UploadKey};

/// The key of an upload in its first epoch.
pub(crate) fn first(id: UploadId) -> UploadKey {
    UploadKey::first(id)
}

/// The key of an upload in any epoch.
pub(crate) fn in_epoch(id: UploadId, epoch: i32) -> UploadKey {
    UploadKey {
        id,
        epoch: epoch.into(),
    }
}

/// The columns of a sample, unless a case has its own.
pub(crate) fn columns() -> Vec<String> {
    ["number", "name"].map(String::from).to_vec()
}

/// The cells of the sample row with this number.
pub(crate) fn cells(row_number: u64) -> Vec<String> {
    vec![row_number.to_string(), format!("name of {row_number}")]
}

/// Batches of `per_batch` rows each, ready to be stored.
pub(crate) fn batches_of(
    upload: UploadId,
    columns: &[String],
    rows: impl IntoIterator<Item = Vec<String>>,
    per_batch: u32,
) -> Result<Vec<ArchivedBatch>> {
    let limits = BatchLimits {
        rows: per_batch,
        bytes: 4 << 20,
    };
    let mut encoder = BatchEncoder::new(UploadKey::first(upload), columns, "00-trace", limits);
    let mut batches = Vec::new();
    for (number, row) in (1..).zip(rows) {
        batches.extend(encoder.push(number, row.iter().map(String::as_str))?);
    }
    batches.extend(encoder.finish().0);
    decoded(batches)
}

/// A row of a dataset.
pub(crate) struct TypedRow {
    /// The canonical text of each value, or NULL.
    pub(crate) cells: Vec<Option<String>>,
    /// The cells of the file whose text differs, with the index of the file's column.
    pub(crate) changed: Vec<(u32, String)>,
}

impl From<Vec<Option<String>>> for TypedRow {
    fn from(cells: Vec<Option<String>>) -> Self {
        let changed = Vec::new();
        Self { cells, changed }
    }
}

/// The line and the byte at which the typed row with this number begins in its file.
pub(crate) fn position(row_number: u64) -> (u64, u64) {
    (row_number + 1, row_number * 100)
}

/// Batches of `per_batch` typed rows each, ready to be stored.
pub(crate) fn typed_batches_of(
    upload: UploadId,
    columns: &[String],
    rows: impl IntoIterator<Item = impl Into<TypedRow>>,
    per_batch: u32,
) -> Result<Vec<ArchivedBatch>> {
    decoded(encoded_batches_of(upload, columns, rows, per_batch)?)
}

/// Batches of `per_batch` typed rows each, as messages.
pub(crate) fn encoded_batches_of(
    upload: UploadId,
    columns: &[String],
    rows: impl IntoIterator<Item = impl Into<TypedRow>>,
    per_batch: u32,
) -> Result<Vec<EncodedBatch>> {
    let limits = BatchLimits {
        rows: per_batch,
        bytes: 4 << 20,
    };
    let mut encoder = BatchEncoder::typed(UploadKey::first(upload), columns, "00-trace", limits);
    let mut batches = Vec::new();
    for (number, row) in (1..).zip(rows) {
        let TypedRow { cells, changed } = row.into();
        let (line, offset) = position(number);
        let changed = changed
            .iter()
            .map(|(column, text)| (*column, text.as_str()));
        let origin = RowOrigin {
            line,
            offset,
            changed,
        };
        batches.extend(encoder.push_typed(number, cells.iter().map(Option::as_deref), origin)?);
    }
    batches.extend(encoder.finish().0);
    Ok(batches)
}

fn decoded(batches: Vec<EncodedBatch>) -> Result<Vec<ArchivedBatch>> {
    let decoded = batches.into_iter().map(|batch| Batch::decode(batch.body));
    decoded.map(|batch| Ok(archived(batch?))).collect()
}

/// `count` batches of `per_batch` sample rows each.
pub(crate) fn batches(upload: UploadId, count: u32, per_batch: u32) -> Result<Vec<ArchivedBatch>> {
    let rows = (1..=u64::from(count) * u64::from(per_batch)).map(cells);
    batches_of(upload, &columns(), rows, per_batch)
}

/// One batch of sample rows with these numbers.
pub(crate) fn batch_of(
    upload: UploadId,
    seq: u32,
    row_numbers: impl IntoIterator<Item = u64>,
) -> Result<ArchivedBatch> {
    let limits = BatchLimits {
        rows: u32::MAX,
        bytes: 4 << 20,
    };
    let mut encoder = BatchEncoder::new(UploadKey::first(upload), &columns(), "00-trace", limits);
    for number in row_numbers {
        encoder.push(number, cells(number).iter().map(String::as_str))?;
    }
    let mut batch = Batch::decode(
        encoder
            .finish()
            .0
            .context("the encoder made no batch")?
            .body,
    )?;
    batch.id.seq = seq;
    Ok(archived(batch))
}

/// The batch of an upload with one row.
pub(crate) fn batch(upload: UploadId) -> Result<ArchivedBatch> {
    let only = batches(upload, 1, 1)?.pop();
    only.context("the encoder made no batch")
}

/// A batch whose rows are given as JSON, a list of lists: the encoder writes no nulls and few
/// escapes.
pub(crate) fn by_hand(upload: UploadId, seq: u32, columns: &[String], rows: &str) -> Result<Batch> {
    let columns = serde_json::to_string(columns)?;
    let count = serde_json::from_str::<Vec<serde_json::Value>>(rows)?.len();
    let runs: Vec<_> = (count > 0).then_some((1, count)).into_iter().collect();
    let runs = serde_json::to_string(&runs)?;
    let message = format!(
        r#"{{"v":2,"upload":"{upload}","epoch":1,"seq":{seq},"trace":"","columns":{columns},"rows":{rows},"runs":{runs}}}"#
    );
    Ok(Batch::decode(Bytes::from(message))?)
}

/// The batch as if its object were archived, with figures that differ from batch to batch.
pub(crate) fn archived(batch: Batch) -> ArchivedBatch {
    let bytes = batch.size_bytes() as u64;
    ArchivedBatch {
        archive_compression: ArchiveCompression::None,
        archive_bytes: bytes,
        archive_crc32: u32::MAX - batch.id.seq,
        object_bytes: bytes,
        batch,
    }
}
