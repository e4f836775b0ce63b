//! How an upload ends well: manifest first, then the compare-and-set. Anybody may run this at any time.

use crate::archive::{ArchiveKey, BatchArchive, Manifest, ManifestBatch};
use crate::batch::BatchId;
use crate::error::{ErrorKind, PortError, PortResult};
use crate::store::{Completion, Removal, Store};
use crate::upload::{Failure, Upload, UploadId, sha256_hex};

/// Ends the upload if everything of it is stored. Returns true when it is over, by this call or before.
pub async fn finish_if_complete(
    store: &dyn Store,
    archive: &dyn BatchArchive,
    id: UploadId,
) -> PortResult<bool> {
    match store.completion(id).await? {
        Completion::Incomplete => Ok(false),
        Completion::Ended => Ok(true),
        Completion::Ready(upload) => {
            let manifest = manifest(store, &upload).await?;
            let bytes = manifest
                .to_bytes()
                .map_err(|error| PortError::new(ErrorKind::Internal, "archive.manifest", error))?;
            archive.put(&ArchiveKey::manifest(id), bytes).await?;
            if store.complete(id, upload.epoch).await? {
                tracing::info!(upload.id = %id, rows = upload.rows_read, "upload completed");
            }
            Ok(true)
        }
        Completion::Mismatch { read, stored } => {
            let message =
                format!("{read} rows were read and {stored} are stored: this is a fault in Carga");
            tracing::error!(upload.id = %id, read, stored, "the accounts of an upload do not close");
            let failure = Failure::new("accounting_mismatch", message);
            if let Some(upload) = store.upload(id).await? {
                store.fail(id, upload.epoch, &failure, None).await?;
            }
            Ok(true)
        }
    }
}

async fn manifest(store: &dyn Store, upload: &Upload) -> PortResult<Manifest> {
    let entries = store.ledger(upload.id, upload.epoch).await?;
    let batch = |entry: crate::store::LedgerEntry| {
        let id = BatchId {
            upload: upload.id,
            epoch: upload.epoch,
            seq: entry.seq,
        };
        ManifestBatch {
            key: ArchiveKey::batch(id).to_string(),
            first_row: entry.first_row,
            rows: entry.rows,
            bytes: entry.archive_bytes,
            crc32: format!("{:08x}", entry.archive_crc32),
        }
    };
    Ok(Manifest {
        version: 1,
        upload: upload.id,
        epoch: upload.epoch,
        filename: upload.filename.clone(),
        source_sha256: upload.sha256.map(sha256_hex),
        source_bytes: upload.bytes_received,
        created_at: upload.created_at,
        columns: upload.columns.clone(),
        rows: upload.rows_read,
        batches: entries.into_iter().map(batch).collect(),
    })
}

/// Removes all rows of an upload that ended without keeping them. What is interrupted, the sweeper resumes; where another
/// process is at it, it is left to it.
pub async fn remove_rows(store: &dyn Store, id: UploadId) -> PortResult<()> {
    while store.remove_rows(id).await? == Removal::More {}
    Ok(())
}
