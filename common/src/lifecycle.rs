//! How uploads end: completion, the removal of rows, cancel and undo. Every process may run these
//! at any time; the store decides.

use crate::archive::{ArchiveKey, BatchArchive, Manifest, ManifestBatch};
use crate::batch::BatchId;
use crate::error::{ErrorKind, PortError, PortResult};
use crate::store::{Completion, Removal, Store};
use crate::upload::{Failure, Status, Upload, UploadId};

/// Ends the upload if all of it is stored: the manifest first, then the compare-and-set. Returns
/// true when the upload has ended, by this call or before.
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
            if store.complete(upload.key()).await? {
                tracing::info!(upload.id = %id, rows = upload.rows_read, "upload completed");
            }
            Ok(true)
        }
        Completion::Mismatch {
            read,
            stored,
            rejected,
        } => {
            let message = format!(
                "{read} rows were read, {stored} are stored and {rejected} rejected: this is a bug in Carga"
            );
            tracing::error!(upload.id = %id, read, stored, rejected, "the accounts of an upload do not close");
            let failure = Failure::new("accounting_mismatch", message);
            if let Some(upload) = store.upload(id).await? {
                store.fail(upload.key(), &failure, None).await?;
            }
            Ok(true)
        }
    }
}

async fn manifest(store: &dyn Store, upload: &Upload) -> PortResult<Manifest> {
    let entries = store.ledger(upload.key()).await?;
    let batch = |entry: crate::store::LedgerEntry| {
        let id = BatchId {
            upload: upload.key(),
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
        source_sha256: upload.sha256,
        source_bytes: upload.bytes_received,
        created_at: upload.created_at,
        columns: upload.columns.clone(),
        rows: upload.rows_read - upload.rows_rejected,
        rejected: upload.rows_rejected,
        batches: entries.into_iter().map(batch).collect(),
    })
}

/// Removes all rows of an upload that ended without keeping them. The sweeper resumes an
/// interrupted removal. Another process that is removing them already is left to finish.
pub async fn remove_rows(store: &dyn Store, id: UploadId) -> PortResult<()> {
    loop {
        match store.remove_rows(id).await? {
            Removal::More => {}
            Removal::Done | Removal::Busy => return Ok(()),
        }
    }
}

/// How an upload is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reversal {
    /// For an upload that has not ended.
    Cancel,
    /// For an upload that has ended well.
    Undo,
}

impl Reversal {
    /// The status of the upload afterwards.
    pub fn outcome(self) -> Status {
        match self {
            Self::Cancel => Status::Cancelled,
            Self::Undo => Status::Undone,
        }
    }

    /// The statuses to which it applies, for people.
    pub fn applies_to(self) -> &'static str {
        match self {
            Self::Cancel => "receiving or processing",
            Self::Undo => "completed or partial",
        }
    }
}

/// Takes an upload back if its status allows it. Returns the upload as it is now, or none where the
/// id is unknown. The rows are hidden then, and are still to be removed.
pub async fn reverse(
    store: &dyn Store,
    id: UploadId,
    reversal: Reversal,
) -> PortResult<Option<Upload>> {
    loop {
        let Some(upload) = store.upload(id).await? else {
            return Ok(None);
        };
        let applies = match reversal {
            Reversal::Cancel => !upload.status.is_terminal(),
            Reversal::Undo => upload.status.keeps_rows(),
        };
        if !applies {
            return Ok(Some(upload));
        }
        // False where another process ended the upload first. Its status is final then, so the next
        // round returns.
        match reversal {
            Reversal::Cancel => store.cancel(upload.key()).await?,
            Reversal::Undo => store.undo(upload.key()).await?,
        };
    }
}
