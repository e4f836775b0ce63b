//! Ends an upload in the intake: seals it, or records why it failed.

use std::sync::Arc;
use std::time::Duration;

use carga_common::backends::Backends;
use carga_common::error::{ErrorKind, PortError};
use carga_common::lifecycle::finish_if_complete;
use carga_common::metrics::uploads::record_end;
use carga_common::retry::retry_while_unavailable;
use carga_common::store::Seal;
use carga_common::upload::{Status, Upload, UploadId};
use tokio::time::sleep;
use tracing::Instrument;

use crate::heartbeat::ActiveUpload;
use crate::intake::Intake;
use crate::policy::OnDuplicate;
use crate::refusal::Refusal;

/// How long a client waits for its refusal while the database is unavailable. After that, the
/// failure is not recorded here, and the upload ends when its lease expires.
const RECORD_DEADLINE: Duration = Duration::from_secs(10);

impl Intake {
    /// Looks for an earlier upload of the same file, and refuses this one if its options say
    /// so.
    pub(crate) async fn check_duplicate(
        &self,
        upload: &Upload,
        seal: Seal,
        on_duplicate: OnDuplicate,
    ) -> Result<Seal, Refusal> {
        let store = self.backends.store.as_ref();
        let deadline = sleep(self.settings.publish_deadline);
        let duplicate_of = match on_duplicate {
            // The content is reserved, because another upload of it may be sealed at the same time.
            OnDuplicate::Reject => {
                let claim = || store.claim_content(upload.key(), seal.sha256);
                retry_while_unavailable(deadline, claim).await?
            }
            OnDuplicate::Allow => {
                let same = || store.same_content(&upload.tenant, seal.sha256, upload.id);
                retry_while_unavailable(deadline, same).await?
            }
        };
        on_duplicate.check(duplicate_of)?;
        Ok(Seal {
            duplicate_of,
            ..seal
        })
    }

    /// Seals the upload and returns its new record. All its batches are durable in the queue,
    /// so it is worth waiting for a database that is briefly unavailable.
    pub(crate) async fn seal(&self, upload: &Upload, seal: &Seal) -> Result<Upload, Refusal> {
        let store = self.backends.store.as_ref();
        let deadline = sleep(self.settings.publish_deadline);
        let key = upload.key();
        if !retry_while_unavailable(deadline, || store.seal(key, seal)).await? {
            return Err(Refusal::ended_meanwhile());
        }
        Ok(Upload {
            status: Status::Processing,
            rows_read: seal.rows,
            rows_rejected: seal.rejected,
            blank_lines: Some(seal.blank_lines),
            duplicate_of: seal.duplicate_of,
            dialect: seal
                .dialect
                .clone()
                .unwrap_or_else(|| upload.dialect.clone()),
            batches_total: Some(seal.batches),
            bytes_received: seal.bytes,
            sha256: Some(seal.sha256),
            ..upload.clone()
        })
    }

    /// Completes the upload if the workers have stored everything already. No error here may
    /// become a refusal: the file is accepted, and sending it again would store its rows twice.
    pub(crate) async fn finish(&self, sealed: Upload) -> Upload {
        if sealed.is_staged() {
            self.merge_later(sealed.id);
        } else {
            complete(&self.backends, sealed.id).await;
        }
        match self.backends.store.upload(sealed.id).await {
            Ok(Some(upload)) => upload,
            _ => sealed,
        }
    }

    /// Merges the rows of an upload into the table of its dataset in the background, if the workers
    /// have stored everything already. A merge may take minutes, and no client waits for it.
    fn merge_later(&self, id: UploadId) {
        let (backends, slots) = (self.backends.clone(), Arc::clone(&self.merges));
        let abort = self.abort_uploads.clone();
        let merge = async move {
            // The semaphore is never closed.
            let Ok(_slot) = slots.acquire().await else {
                return;
            };
            complete(&backends, id).await;
        };
        let merge = async move {
            if abort.run_until_cancelled(merge).await.is_none() {
                tracing::info!("stopping; a worker will complete the upload");
            }
        };
        self.tasks.spawn(merge.in_current_span());
    }

    /// Records the upload as failed, and starts the removal of its rows. The client gets the
    /// failure on record. That is not `refusal` if another process has ended the upload, or if
    /// a seal was committed and its answer was lost.
    pub(crate) async fn fail(
        &self,
        upload: Upload,
        active: &ActiveUpload,
        refusal: Refusal,
    ) -> Result<Upload, Refusal> {
        let id = upload.public_id;
        let refusal = match self.record_failure(&upload, active, &refusal).await {
            Ok(None) => {
                let failure = &refusal.failure;
                tracing::info!(code = failure.code, row = failure.row, "upload failed");
                self.remove_rows_later(upload.id);
                refusal
            }
            Ok(Some(ended)) if ended.status == Status::Cancelled => {
                let message = "the upload was cancelled; none of its rows are kept";
                Refusal::conflict("cancelled", message)
            }
            Ok(Some(ended)) => match ended.failure {
                None => return Ok(ended),
                Some(failure) => Refusal { failure, ..refusal },
            },
            // Sealing needs room too, so the upload was not sealed. Its lease will expire, and
            // a sweeper will end it once there is room.
            Err(error) if error.kind() == ErrorKind::Full => {
                tracing::error!(error = error.chain(), "no room to record the failure");
                refusal
            }
            // Unless the upload was sealed, its lease will expire and a sweeper will end it.
            Err(error) => {
                tracing::error!(error = error.chain(), "could not record the failure");
                let message = format!("outcome unknown; check GET /uploads/{id} before retrying");
                Refusal::unavailable("outcome_unknown", message)
            }
        };
        Err(refusal.about(id))
    }

    /// Records the failure. Returns the upload's record if the upload was already sealed or ended.
    async fn record_failure(
        &self,
        upload: &Upload,
        active: &ActiveUpload,
        refusal: &Refusal,
    ) -> Result<Option<Upload>, PortError> {
        let store = &self.backends.store;
        let key = upload.key();
        let (failure, last_heartbeat) = (&refusal.failure, Some(active.figures.heartbeat()));
        let fail = || store.fail(key, failure, last_heartbeat);
        match retry_while_unavailable(sleep(RECORD_DEADLINE), fail).await? {
            true => {
                record_end(store.as_ref(), key.id, Status::Failed).await;
                Ok(None)
            }
            false => store.upload(key.id).await,
        }
    }
}

/// Completes an upload if everything is stored. Otherwise, and after an error, a worker completes
/// it later.
async fn complete(backends: &Backends, id: UploadId) {
    let (store, archive) = (backends.store.as_ref(), backends.archive.as_ref());
    if let Err(error) = finish_if_complete(store, archive, id).await {
        tracing::warn!(
            error = error.chain(),
            "could not complete the upload; a worker will complete it"
        );
    }
}
