//! How an upload ends well: manifest first, then the compare-and-set. Anybody may run this at any time.

use crate::archive::{ArchiveKey, BatchArchive, Manifest, ManifestBatch};
use crate::batch::BatchId;
use crate::error::{ErrorKind, PortError, PortResult};
use crate::store::{Completion, Removal, Store};
use crate::upload::{Failure, Status, Upload, UploadId};

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
                "{read} rows were read, {stored} are stored and {rejected} rejected: this is a fault in Carga"
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

/// Removes all rows of an upload that ended without keeping them. What is interrupted, the sweeper resumes; where another
/// process is at it, it is left to it.
pub async fn remove_rows(store: &dyn Store, id: UploadId) -> PortResult<()> {
    while store.remove_rows(id).await? == Removal::More {}
    Ok(())
}

/// How an upload is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reversal {
    /// One that has not ended.
    Cancel,
    /// One that has ended well.
    Undo,
}

impl Reversal {
    /// What the upload is then.
    pub fn outcome(self) -> Status {
        match self {
            Self::Cancel => Status::Cancelled,
            Self::Undo => Status::Undone,
        }
    }

    /// What it must be before, for people.
    pub fn applies_to(self) -> &'static str {
        match self {
            Self::Cancel => "receiving or processing",
            Self::Undo => "completed or partial",
        }
    }
}

/// Takes an upload back if its state allows it, and says what it is now; none if there is none. Its rows are out of sight then
/// and are still to be removed.
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
        // False where somebody was quicker: then it is in a state from which it does not come back here.
        match reversal {
            Reversal::Cancel => store.cancel(upload.key()).await?,
            Reversal::Undo => store.undo(upload.key()).await?,
        };
    }
}
