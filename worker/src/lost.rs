//! Notices batches that are lost: they are not stored, and no message has them any more.
//!
//! A queue that is empty now says little, since a worker may hold the batch, or a message may wait
//! for a broker that is restarting. One worker must therefore reach all servers for a long time,
//! and find all queues empty during this time. A worker that holds batches records their uploads at
//! every sweep (`hold`). If it cannot, it releases the batches (`store_contact`).
//!
//! Messages of another installation that stay in a shared queue keep it from being empty, so lost
//! batches are not noticed until these messages are gone.

use std::collections::HashSet;
use std::time::Duration;

use carga_common::error::PortResult;
use carga_common::metrics::uploads::record_end;
use carga_common::queue::QueueDepth;
use carga_common::upload::{Status, UploadKey};
use tokio::time::Instant;

use crate::context::Context;

/// An upload that has been quiet for this long is reported, unless it ends earlier.
const REPORT_AFTER: Duration = Duration::from_secs(60);

/// The observations of one worker: the queues, and the uploads that miss batches.
#[derive(Debug, Default)]
pub(crate) struct LostBatches {
    /// Since when all queues were empty and all servers were reachable.
    quiet_since: Option<Instant>,
    reported: HashSet<UploadKey>,
}

impl LostBatches {
    /// Reports the uploads that miss batches, and ends those that have missed them for too long.
    ///
    /// `has_unfinished`: whether there are sealed uploads that have not ended.
    pub(crate) async fn check(&mut self, context: &Context, has_unfinished: bool) {
        if let Err(error) = self.try_check(context, has_unfinished).await {
            self.quiet_since = None;
            tracing::warn!(
                error = error.chain(),
                "could not look for lost batches; the next sweep tries again"
            );
        }
    }

    async fn try_check(&mut self, context: &Context, has_unfinished: bool) -> PortResult<()> {
        let store = context.backends.store.as_ref();
        let lost_after = context.settings.lost;
        if !has_unfinished || !is_quiet(context).await? {
            // The marks of other workers stay, because the batches that a queue has now need not be
            // the missing ones. A hold or the end of the upload ends its mark.
            self.quiet_since = None;
            return Ok(());
        }
        let missing = store.quiet_uploads(REPORT_AFTER.min(lost_after)).await?;
        store.mark_missing(&missing).await?;
        self.report(&missing, lost_after);
        let quiet_since = *self.quiet_since.get_or_insert_with(Instant::now);
        if quiet_since.elapsed() < lost_after {
            return Ok(());
        }
        for key in missing {
            match store.fail_lost(key, lost_after).await {
                Ok(true) => {
                    context.metrics.maintenance.lost.increment(1);
                    record_end(store, key.id, Status::Failed).await;
                    tracing::error!(upload.id = %key.id, "an upload failed, because some of its batches are lost");
                }
                Ok(false) => {}
                // The other uploads do not wait for this one.
                Err(error) => {
                    tracing::warn!(upload.id = %key.id, error = error.chain(), "could not end an upload with lost batches");
                }
            }
        }
        Ok(())
    }

    /// Records that the store could not be reached.
    pub(crate) fn sweep_failed(&mut self) {
        self.quiet_since = None;
    }

    fn report(&mut self, missing: &[UploadKey], lost_after: Duration) {
        for key in missing.iter().filter(|key| !self.reported.contains(key)) {
            tracing::warn!(
                upload.id = %key.id,
                "an upload misses batches that are in no queue; it fails when all queues have been empty for {} s (CARGA_LOST_SECS)",
                lost_after.as_secs()
            );
        }
        self.reported = missing.iter().copied().collect();
    }
}

/// Records the uploads that this worker has batches of. Returns whether other workers can see them.
pub(crate) async fn hold(context: &Context) -> bool {
    let held = context.progress_watch.uploads_in_hand();
    // A worker without batches has nothing to record, but asks whether the store is back.
    if held.is_empty() && !context.store_contact.is_away() {
        return true;
    }
    let recorded = context.backends.store.hold(&held).await;
    if let Err(error) = &recorded {
        tracing::warn!(
            error = error.chain(),
            "could not record which uploads the batches in hand belong to; the next sweep tries again"
        );
    }
    recorded.is_ok()
}

/// Whether all queues are empty and the archive, which a batch may wait for, is reachable.
async fn is_quiet(context: &Context) -> PortResult<bool> {
    let depth = context.backends.queue.depth().await?;
    if depth != QueueDepth::default() {
        return Ok(false);
    }
    context.backends.archive.ping().await?;
    Ok(true)
}
