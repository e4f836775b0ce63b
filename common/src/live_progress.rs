//! Live counters for the API and the workers. They are rebuilt from the ledger when they may be too
//! low, and skipped while their server is away. They never cause an error.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::error::{PortError, PortResult};
use crate::progress::{Counters, Presence, ProgressStore, Snapshot, StoredBatch};
use crate::store::Store;
use crate::sync::lock;
use crate::upload::{UploadId, UploadKey};

/// The pause after a failed call. An absent server must not slow down every poll and every group of
/// batches. An upload whose counters cannot be restored must not read the ledger all the time.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(500);

/// The most stale uploads. At this number the set is cleared, to bound its memory. Counters of a
/// forgotten upload may stay too low until the upload ends.
const MAX_STALE: usize = 10_000;

/// A [`ProgressStore`] whose counters are rebuilt from a [`Store`].
#[derive(Debug)]
pub struct LiveProgress {
    progress: Arc<dyn ProgressStore>,
    store: Arc<dyn Store>,
    state: Mutex<State>,
}

/// A change of the counters.
#[derive(Debug, Clone, Copy)]
enum Report<'a> {
    Received { rows_read: u64, bytes_received: u64 },
    Stored(&'a [StoredBatch]),
}

#[derive(Debug, Default)]
struct State {
    /// No call is made before this moment, because the server is away.
    paused_until: Option<Instant>,
    /// Uploads whose counters may be too low, because a report was lost or not sent. No call for
    /// the upload is made before the moment.
    stale: HashMap<UploadId, Option<Instant>>,
}

impl LiveProgress {
    /// Keeps the counters in `progress`, and rebuilds them from `store`.
    pub fn new(progress: Arc<dyn ProgressStore>, store: Arc<dyn Store>) -> Self {
        Self {
            progress,
            store,
            state: Mutex::default(),
        }
    }

    /// Reports the figures of the API. The store must have them already, because the counters are
    /// rebuilt from the store.
    pub async fn received(&self, upload: UploadKey, rows_read: u64, bytes_received: u64) {
        let report = Report::Received {
            rows_read,
            bytes_received,
        };
        self.report(upload, report).await;
    }

    /// Reports batches that a worker has committed.
    pub async fn stored(&self, upload: UploadKey, batches: &[StoredBatch]) {
        self.report(upload, Report::Stored(batches)).await;
    }

    /// The counters, or `None` while the server is away. The caller then counts the ledger.
    pub async fn read(&self, upload: UploadKey) -> Option<Counters> {
        if self.is_paused(upload.id) {
            self.mark_stale(upload.id);
            return None;
        }
        let read = async {
            if !self.is_stale(upload.id)
                && let Some(counters) = self.progress.read(upload).await?
            {
                return Ok(Some(counters));
            }
            self.restore(upload).await?;
            self.progress.read(upload).await
        };
        self.ok_or_pause(upload.id, read.await).flatten()
    }

    async fn report(&self, upload: UploadKey, report: Report<'_>) {
        if self.is_paused(upload.id) {
            self.mark_stale(upload.id);
            return;
        }
        let outcome = async {
            if self.is_stale(upload.id) || self.send(upload, report).await? == Presence::Absent {
                // The store has these figures already: a report follows its commit.
                self.restore(upload).await?;
                // Another process may have rebuilt the counters from an older snapshot.
                self.send(upload, report).await?;
            }
            Ok(())
        };
        self.ok_or_pause(upload.id, outcome.await);
    }

    async fn send(&self, upload: UploadKey, report: Report<'_>) -> PortResult<Presence> {
        match report {
            Report::Received {
                rows_read,
                bytes_received,
            } => {
                self.progress
                    .received(upload, rows_read, bytes_received)
                    .await
            }
            Report::Stored(batches) => self.progress.stored(upload, batches).await,
        }
    }

    async fn restore(&self, upload: UploadKey) -> PortResult<()> {
        let snapshot: Snapshot = self.store.progress(upload).await?;
        self.progress.restore(upload, &snapshot).await?;
        self.with_state(|state| state.stale.remove(&upload.id));
        Ok(())
    }

    fn ok_or_pause<T>(&self, upload: UploadId, outcome: PortResult<T>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::warn!(
                    upload.id = %upload,
                    error = error.chain(),
                    "live counters are unavailable; progress is counted from the ledger"
                );
                self.pause(upload, &error);
                None
            }
        }
    }

    /// Pauses all uploads if the server is away. Any other error, such as a slow restore of a very
    /// long upload, pauses this upload alone.
    fn pause(&self, upload: UploadId, error: &PortError) {
        let until = Some(Instant::now() + PAUSE_AFTER_FAILURE);
        self.mark_stale(upload);
        self.with_state(|state| match error.is_unavailable() {
            true => state.paused_until = until,
            false => {
                state.stale.insert(upload, until);
            }
        });
    }

    fn is_paused(&self, upload: UploadId) -> bool {
        self.with_state(|state| {
            let of_upload = state.stale.get(&upload).copied().flatten();
            let now = Instant::now();
            state.paused_until.is_some_and(|until| now < until)
                || of_upload.is_some_and(|until| now < until)
        })
    }

    fn is_stale(&self, upload: UploadId) -> bool {
        self.with_state(|state| state.stale.contains_key(&upload))
    }

    fn mark_stale(&self, upload: UploadId) {
        self.with_state(|state| {
            if state.stale.len() >= MAX_STALE {
                state.stale.clear();
            }
            state.stale.entry(upload).or_insert(None);
        });
    }

    fn with_state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut lock(&self.state))
    }
}
