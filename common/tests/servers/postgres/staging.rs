//! Stages the rows of an upload into a dataset.

use anyhow::{Result, ensure};
use carga_common::archive::ArchiveCompression;
use carga_common::batch::{Batch, BatchEncoder, BatchLimits, EncodedBatch, RowOrigin};
use carga_common::sha256::Sha256;
use carga_common::store::{
    ArchivedBatch, BatchStore, NewUpload, PostgresStore, Seal, StoreOutcome, UploadStore,
};
use carga_common::upload::{UploadDataset, UploadId, UploadKey};

use super::new_upload;

/// The cells of a row, in the order of the dataset's columns.
pub(super) type RowCells<'a> = Vec<Option<&'a str>>;

/// Creates an upload, stores its rows in batches of 70, and seals it. `columns` are those of the
/// file.
pub(super) async fn stage(
    store: &PostgresStore,
    columns: Vec<String>,
    dataset: UploadDataset,
    rows: &[RowCells<'_>],
) -> Result<UploadKey> {
    let names = dataset.columns.iter().map(|column| column.name.clone());
    let names: Vec<String> = names.collect();
    let upload = NewUpload {
        columns,
        dataset: Some(dataset),
        ..new_upload()
    };
    let key = store.create(&upload).await?.key();
    let group = batches(key.id, &names, rows)?;
    for outcome in store.store(&group).await? {
        let stored = StoreOutcome::Stored { rejected: 0 };
        ensure!(outcome == stored, "{outcome:?}");
    }
    seal(store, key, rows.len(), group.len()).await?;
    Ok(key)
}

/// Seals an upload with these numbers of rows and batches.
pub(super) async fn seal(
    store: &PostgresStore,
    key: UploadKey,
    rows: usize,
    batches: usize,
) -> Result<()> {
    let seal = Seal {
        rows: rows as u64,
        rejected: 0,
        blank_lines: 0,
        batches: batches as u32,
        bytes: 1,
        sha256: Sha256::from([7; 32]),
        duplicate_of: None,
        dialect: None,
    };
    ensure!(store.seal(key, &seal).await?, "the upload is not sealed");
    Ok(())
}

/// The messages of rows, each with 70 rows.
pub(super) fn encoded(
    id: UploadId,
    names: &[String],
    rows: &[RowCells<'_>],
) -> Result<Vec<EncodedBatch>> {
    let limits = BatchLimits {
        rows: 70,
        bytes: 4 << 20,
    };
    let mut encoder = BatchEncoder::typed(UploadKey::first(id), names, "00-trace", limits);
    let mut encoded = Vec::new();
    for (number, cells) in (1..).zip(rows) {
        let origin = RowOrigin {
            line: number + 1,
            offset: number * 100,
            changed: std::iter::empty(),
        };
        encoded.extend(encoder.push_typed(number, cells.iter().copied(), origin)?);
    }
    encoded.extend(encoder.finish().0);
    Ok(encoded)
}

/// The archived batches of rows, each with 70 rows.
pub(super) fn batches(
    id: UploadId,
    names: &[String],
    rows: &[RowCells<'_>],
) -> Result<Vec<ArchivedBatch>> {
    encoded(id, names, rows)?
        .into_iter()
        .map(archived)
        .collect()
}

/// The batch of a message, as if it were in the archive.
pub(super) fn archived(message: EncodedBatch) -> Result<ArchivedBatch> {
    Ok(ArchivedBatch {
        batch: Batch::decode(message.body)?,
        archive_compression: ArchiveCompression::None,
        archive_bytes: 1,
        archive_crc32: 1,
        object_bytes: 1,
    })
}
