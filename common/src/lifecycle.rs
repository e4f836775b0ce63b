//! How uploads end: completion, the removal of rows, cancel and undo. Every process may call these
//! functions at any time, because the store decides all races.

mod reject_failure;

use std::time::{Duration, Instant};

pub use self::reject_failure::reject_failure;
use crate::archive::{ArchiveKey, BatchArchive, Manifest, ManifestBatch};
use crate::batch::BatchId;
use crate::error::{ErrorKind, PortError, PortResult};
use crate::metrics::uploads::record_end;
use crate::store::{Completed, Completion, Removal, Store};
use crate::upload::{Failure, Status, Upload, UploadId, UploadKey};

/// The time for the removal that begins as soon as an upload has failed here. The sweeper removes
/// the rest. The corrected file may arrive at once, and rows that are still in the table count for
/// its UNIQUE constraints.
const FIRST_REMOVAL: Duration = Duration::from_secs(10);

/// Completes the upload if all of it is stored, and fails it if too many of its rows are rejected.
/// Staged rows are merged into the table of their dataset, which may take minutes. Returns whether
/// the upload has ended, in this call or earlier.
pub async fn finish_if_complete(
    store: &dyn Store,
    archive: &dyn BatchArchive,
    id: UploadId,
) -> PortResult<bool> {
    match store.completion(id).await? {
        Completion::Incomplete => Ok(false),
        Completion::Ended => Ok(true),
        Completion::Ready {
            upload,
            violating,
            dead,
        } => {
            if !is_unmerged(&upload, dead) {
                write_manifest(store, archive, &upload, violating).await?;
            }
            complete(store, archive, &upload, dead).await
        }
        Completion::TooManyRejects { upload, rejected } => {
            fail_for_rejects(store, &upload, rejected).await?;
            // It has a manifest if it ended before, and its dead letters were retried.
            tidy_manifest(store, archive, id, 0).await?;
            Ok(true)
        }
        Completion::Mismatch {
            read,
            stored,
            rejected,
        } => {
            let message = format!(
                "read {read} rows, but stored {stored} and rejected {rejected}; this is a bug in Carga, please report it"
            );
            tracing::error!(upload.id = %id, read, stored, rejected, "the row counts of an upload do not match");
            let failure = Failure::new("accounting_mismatch", message);
            if let Some(upload) = store.upload(id).await? {
                fail(store, upload.key(), &failure).await?;
            }
            tidy_manifest(store, archive, id, 0).await?;
            Ok(true)
        }
    }
}

async fn write_manifest(
    store: &dyn Store,
    archive: &dyn BatchArchive,
    upload: &Upload,
    violating: u64,
) -> PortResult<()> {
    let manifest = manifest(store, upload, violating).await?;
    let bytes = manifest
        .to_bytes()
        .map_err(|error| PortError::new(ErrorKind::Internal, "archive.manifest", error))?;
    archive.put(&ArchiveKey::manifest(upload.id), bytes).await
}

/// Completes the upload if its counts still add up. Returns whether the upload has ended.
async fn complete(
    store: &dyn Store,
    archive: &dyn BatchArchive,
    upload: &Upload,
    dead: u64,
) -> PortResult<bool> {
    let id = upload.id;
    match store.complete(upload.key(), dead).await {
        Ok(Completed::Yes) => {
            let (tenant, rows) = (&upload.tenant, upload.rows_read);
            match dead {
                0 => tracing::info!(upload.id = %id, %tenant, rows, "upload completed"),
                _ => tracing::error!(
                    upload.id = %id,
                    %tenant,
                    rows,
                    dead_letters = dead,
                    "upload ended without the rows of its dead letters; remove their cause and retry them"
                ),
            }
            record_end(store, id, Status::Completed).await;
            return Ok(true);
        }
        Ok(Completed::No) => {}
        Ok(Completed::TooManyRejects { rejected }) => {
            fail_for_rejects(store, upload, rejected).await?;
        }
        Err(error) if error.kind() == ErrorKind::Invalid => {
            fail_merge(store, upload, &error).await?;
        }
        Err(error) => return Err(error),
    }
    tidy_manifest(store, archive, id, dead).await
}

/// Fails an upload that has too many rejected rows, and begins to remove its rows.
async fn fail_for_rejects(store: &dyn Store, upload: &Upload, rejected: u64) -> PortResult<()> {
    let id = upload.id;
    let page = store.rejected_page(id, 0).await?;
    let dataset = upload.dataset.as_ref();
    let failure = reject_failure(dataset, rejected, upload.rows_read, page.first());
    if !fail(store, upload.key(), &failure).await? {
        return Ok(());
    }
    let tenant = &upload.tenant;
    tracing::info!(upload.id = %id, %tenant, code = failure.code, rejected, "upload failed");
    if let Err(error) = begin_removal(store, id).await {
        tracing::warn!(
            upload.id = %id,
            %tenant,
            error = error.chain(),
            "could not remove the rows; the sweeper will remove them"
        );
    }
    Ok(())
}

/// Fails an upload whose rows can never be merged, such as after somebody has dropped the table.
async fn fail_merge(store: &dyn Store, upload: &Upload, error: &PortError) -> PortResult<()> {
    let reason = error.chain();
    tracing::error!(
        upload.id = %upload.id,
        tenant = %upload.tenant,
        error = reason,
        "the rows of an upload cannot be merged"
    );
    let message = format!("the rows cannot be merged into the table of the dataset: {reason}");
    let failure = Failure::new("merge_failed", message);
    fail(store, upload.key(), &failure).await?;
    Ok(())
}

/// Fails an upload. Returns whether this call ended it.
pub async fn fail(store: &dyn Store, key: UploadKey, failure: &Failure) -> PortResult<bool> {
    let is_ended = store.fail(key, failure, None).await?;
    if is_ended {
        record_end(store, key.id, Status::Failed).await;
    }
    Ok(is_ended)
}

/// Removes rows of an upload for a limited time, because a worker settles its batches afterwards.
async fn begin_removal(store: &dyn Store, id: UploadId) -> PortResult<()> {
    let started = Instant::now();
    while started.elapsed() < FIRST_REMOVAL {
        match store.remove_rows(id).await? {
            Removal::More => {}
            Removal::Done | Removal::Busy => break,
        }
    }
    Ok(())
}

/// Deletes the manifest if the upload has ended since the completion check and keeps no rows,
/// because readers take an archive with a manifest for stored data. The manifest of an upload that
/// has not ended is kept, because another process may complete the upload with it. Returns whether
/// the upload has ended.
///
/// `dead` is the number of dead letters in the manifest that this process has written. If there
/// were any, they may have been retried since, and then this manifest has replaced a newer one.
async fn tidy_manifest(
    store: &dyn Store,
    archive: &dyn BatchArchive,
    id: UploadId,
    dead: u64,
) -> PortResult<bool> {
    let Some(upload) = store.upload(id).await? else {
        return Ok(true);
    };
    let status = upload.status;
    if status.is_terminal() && !status.keeps_rows() {
        archive.delete(&ArchiveKey::manifest(id)).await?;
        tracing::info!(upload.id = %id, "deleted the manifest of an upload that keeps no rows");
    } else if upload.keeps_rows() && dead > 0 && !is_unmerged(&upload, upload.batches_dead) {
        let violating = upload.rows_violating.unwrap_or_default();
        write_manifest(store, archive, &upload, violating).await?;
    }
    Ok(status.is_terminal())
}

/// Whether the rows of an upload with this number of dead letters still wait for their merge. Then
/// its archive has no manifest.
fn is_unmerged(upload: &Upload, dead: u64) -> bool {
    upload.is_staged() && dead > 0
}

async fn manifest(store: &dyn Store, upload: &Upload, violating: u64) -> PortResult<Manifest> {
    let entries = store.ledger(upload.key()).await?;
    let rows = entries.iter().map(|entry| u64::from(entry.rows)).sum();
    let batch = |entry: crate::store::LedgerEntry| {
        let id = BatchId {
            upload: upload.key(),
            seq: entry.seq,
        };
        ManifestBatch {
            key: ArchiveKey::batch(id, entry.archive_compression).to_string(),
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
        columns: upload.stored_columns(),
        rows,
        rejected: upload.rows_rejected,
        dead: (upload.rows_read - upload.rows_rejected).saturating_sub(rows),
        violating: (!upload.is_staged()).then_some(violating),
        batches: entries.into_iter().map(batch).collect(),
    })
}

/// Removes all rows of an upload that ended without keeping them. Returns early if another process
/// is already removing the rows. The sweeper resumes an interrupted removal.
pub async fn remove_rows(store: &dyn Store, id: UploadId) -> PortResult<()> {
    loop {
        match store.remove_rows(id).await? {
            Removal::More => {}
            Removal::Done | Removal::Busy => return Ok(()),
        }
    }
}

/// Whether an undo can still take back the changes of the upload. An undo of a merge needs the
/// previous values of the rows. Once a merged upload has expired, its rows stay in the table.
pub fn is_reversible(upload: &Upload) -> bool {
    upload.is_reversible && !(upload.is_staged() && upload.expired_at.is_some())
}

/// A reversal of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reversal {
    /// Cancels an upload that has not ended.
    Cancel,
    /// Undoes an upload that has kept its rows.
    Undo,
}

impl Reversal {
    /// The status after the reversal.
    pub fn outcome(self) -> Status {
        match self {
            Self::Cancel => Status::Cancelled,
            Self::Undo => Status::Undone,
        }
    }

    /// The statuses to which the reversal applies, for messages.
    pub fn applies_to(self) -> &'static str {
        match self {
            Self::Cancel => "receiving or processing",
            Self::Undo => "completed or partial",
        }
    }
}

/// Reverses an upload if its status allows it and, for an undo, if the upload [is
/// reversible](is_reversible). Returns the upload afterwards, or `None` if the id is unknown. The
/// rows are then hidden, and the caller removes them with [`remove_rows`]. The undo of a merged
/// upload is done when this returns, which may take minutes.
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
            Reversal::Undo => upload.status.keeps_rows() && is_reversible(&upload),
        };
        if !applies {
            return Ok(Some(upload));
        }
        // The next round returns the upload. Another process may have ended it first.
        let is_reversed = match reversal {
            Reversal::Cancel => store.cancel(upload.key()).await?,
            Reversal::Undo => store.undo(upload.key()).await?,
        };
        if is_reversed {
            record_end(store, id, reversal.outcome()).await;
        }
    }
}
