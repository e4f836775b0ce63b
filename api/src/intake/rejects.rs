//! Rejected rows on their way into the store. They go there directly, not with the batches: they are to stay when the upload
//! fails, and the fence keeps batches out then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use carga_common::rejects::RejectedRow;
use carga_common::retry::retry_while_unavailable;
use carga_common::settings::IntakeSettings;
use carga_common::store::Store;
use carga_common::upload::Upload;
use tokio::time::sleep;

use super::ended_meanwhile;
use super::live::LiveUpload;
use super::policy::Policy;
use crate::csv::Rejection;
use crate::problem::Refusal;

/// Written together at most.
const GROUP_ROWS: usize = 1000;
const GROUP_BYTES: usize = 1 << 20;

/// Rows that are pending are written after so long at the next batch, so that they are seen to grow with the others.
const DUE: Duration = Duration::from_millis(250);

/// An upload that has failed waits no longer than this for its last rejected rows.
const LAST_DEADLINE: Duration = Duration::from_secs(5);

/// The rejected rows of an upload that is being received.
#[derive(Debug)]
pub(crate) struct Rejects<'a> {
    store: &'a dyn Store,
    upload: &'a Upload,
    live: Arc<LiveUpload>,
    policy: Policy,
    /// The most that are kept.
    most: u64,
    /// How long the store is waited for.
    deadline: Duration,
    found: u64,
    pending: Vec<RejectedRow>,
    pending_bytes: usize,
    flushed: Instant,
}

impl<'a> Rejects<'a> {
    pub(crate) fn new(
        store: &'a dyn Store,
        upload: &'a Upload,
        live: Arc<LiveUpload>,
        policy: Policy,
        settings: &IntakeSettings,
    ) -> Self {
        Self {
            store,
            upload,
            live,
            policy,
            most: settings.limits.rejects,
            deadline: settings.publish_deadline,
            found: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            flushed: Instant::now(),
        }
    }

    /// The figures of the upload.
    pub(crate) fn live(&self) -> &LiveUpload {
        &self.live
    }

    /// How many there are so far.
    pub(crate) fn found(&self) -> u64 {
        self.found
    }

    /// Takes one more. Fails where it is one too many, with all of them in the store.
    pub(crate) async fn push(&mut self, rejection: Rejection) -> Result<(), Refusal> {
        self.found += 1;
        let judged = self.policy.judge(&rejection, self.found, self.most);
        let row = rejection.row;
        self.pending_bytes += row.size_bytes();
        self.pending.push(row);
        let is_full = self.pending.len() >= GROUP_ROWS || self.pending_bytes >= GROUP_BYTES;
        if is_full || judged.is_err() {
            self.flush().await?;
        }
        judged
    }

    /// Has them all in the store, if some have been pending for a while.
    pub(crate) async fn flush_if_due(&mut self) -> Result<(), Refusal> {
        if self.flushed.elapsed() < DUE {
            return Ok(());
        }
        self.flush().await
    }

    /// Has them all in the store.
    pub(crate) async fn flush(&mut self) -> Result<(), Refusal> {
        self.flushed = Instant::now();
        if self.pending.is_empty() {
            return Ok(());
        }
        let key = self.upload.key();
        let reject = || self.store.reject(key, &self.pending);
        if !retry_while_unavailable(sleep(self.deadline), reject).await? {
            return Err(ended_meanwhile());
        }
        self.pending.clear();
        self.pending_bytes = 0;
        self.live.set_rejected(self.found);
        Ok(())
    }

    /// The upload fails, for whatever reason: those that were found by then are to be readable.
    pub(crate) async fn flush_last(&mut self) {
        self.deadline = LAST_DEADLINE;
        if let Err(refusal) = self.flush().await {
            tracing::warn!(%refusal, rows = self.pending.len(), "the last rejected rows of an upload that failed are not kept");
        }
    }
}
