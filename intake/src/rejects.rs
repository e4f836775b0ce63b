//! Stores rejected rows. They go to the store directly and not with the batches: they must
//! survive a failed upload, and the fence keeps batches of failed uploads out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use carga_common::rejects::RejectedRow;
use carga_common::retry::retry_while_unavailable;
use carga_common::settings::IntakeSettings;
use carga_common::store::Store;
use carga_common::upload::Upload;
use tokio::time::sleep;

use crate::csv::Rejection;
use crate::heartbeat::UploadFigures;
use crate::policy::Policy;
use crate::refusal::Refusal;

/// The most rows that are written together, and the most bytes.
const GROUP_ROWS: usize = 1000;
const GROUP_BYTES: usize = 1 << 20;

/// Pending rows older than this are written with the next batch, so that clients see their
/// number grow.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);

/// The longest time that a failed upload waits for its last rejected rows to be stored.
const LAST_DEADLINE: Duration = Duration::from_secs(5);

/// The rejected rows of an upload that is being received.
#[derive(Debug)]
pub(crate) struct Rejects<'a> {
    store: &'a dyn Store,
    upload: &'a Upload,
    figures: Arc<UploadFigures>,
    policy: Policy,
    /// The most rejected rows that are kept of an upload.
    max_rejects: u64,
    /// How long to wait for the store.
    deadline: Duration,
    count: u64,
    pending: Vec<RejectedRow>,
    pending_bytes: usize,
    last_flush: Instant,
}

impl<'a> Rejects<'a> {
    pub(crate) fn new(
        store: &'a dyn Store,
        upload: &'a Upload,
        figures: Arc<UploadFigures>,
        policy: Policy,
        settings: &IntakeSettings,
    ) -> Self {
        Self {
            store,
            upload,
            figures,
            policy,
            max_rejects: settings.limits.rejects,
            deadline: settings.publish_deadline,
            count: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            last_flush: Instant::now(),
        }
    }

    pub(crate) fn figures(&self) -> &UploadFigures {
        &self.figures
    }

    /// The number of rejected rows so far.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Adds a rejected row. If that row fails the upload, stores all pending rows first.
    pub(crate) async fn push(&mut self, rejection: Rejection) -> Result<(), Refusal> {
        self.count += 1;
        let checked = self
            .policy
            .check_rejected(&rejection, self.count, self.max_rejects);
        let row = rejection.row;
        self.pending_bytes += row.size_bytes();
        self.pending.push(row);
        let is_full = self.pending.len() >= GROUP_ROWS || self.pending_bytes >= GROUP_BYTES;
        if is_full || checked.is_err() {
            self.flush().await?;
        }
        checked
    }

    /// Stores all pending rows if the last write is a while ago.
    pub(crate) async fn flush_if_due(&mut self) -> Result<(), Refusal> {
        if self.last_flush.elapsed() < FLUSH_INTERVAL {
            return Ok(());
        }
        self.flush().await
    }

    /// Stores all pending rows.
    pub(crate) async fn flush(&mut self) -> Result<(), Refusal> {
        self.last_flush = Instant::now();
        if self.pending.is_empty() {
            return Ok(());
        }
        let key = self.upload.key();
        let reject = || self.store.reject(key, &self.pending);
        if !retry_while_unavailable(sleep(self.deadline), reject).await? {
            return Err(Refusal::ended_meanwhile());
        }
        let codes = self.pending.iter().map(|row| row.code.as_str());
        self.figures.metrics().rejects.count_group(codes);
        self.pending.clear();
        self.pending_bytes = 0;
        self.figures.set_rejected(self.count);
        Ok(())
    }

    /// Stores the pending rows of an upload that fails, so that they can be read.
    pub(crate) async fn flush_last(&mut self) {
        self.deadline = LAST_DEADLINE;
        if let Err(refusal) = self.flush().await {
            tracing::warn!(%refusal, rows = self.pending.len(), "could not store the last rejected rows of a failed upload");
        }
    }
}
