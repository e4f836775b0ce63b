//! Live counters as the rest of Carga uses them: rebuilt from the ledger whenever there is doubt, skipped while the
//! server is away, never an error.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Counters, Presence, ProgressStore, Snapshot, StoredBatch};
use crate::error::PortResult;
use crate::store::Store;
use crate::sync::lock;
use crate::upload::{UploadId, UploadKey};

/// After a failure the server is left alone for this long, so that an absent one does not slow every poll and every group.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(500);

/// Uploads in doubt beyond this number are forgotten all at once; a restore too many is harmless, memory without bound is not.
const MOST_DOUBTFUL: usize = 10_000;

/// A [`ProgressStore`] with the store behind it.
#[derive(Debug)]
pub struct LiveProgress {
    progress: Arc<dyn ProgressStore>,
    store: Arc<dyn Store>,
    state: Mutex<State>,
}

/// What there is to report.
#[derive(Debug, Clone, Copy)]
enum Report<'a> {
    Received { rows_read: u64, bytes_received: u64 },
    Stored(&'a [StoredBatch]),
}

#[derive(Debug, Default)]
struct State {
    /// Nothing is sent before this moment.
    paused_until: Option<Instant>,
    /// Uploads of which a report of ours was lost or that were answered from the ledger: what the server has of them may
    /// be too little.
    doubtful: HashSet<UploadId>,
}

impl LiveProgress {
    /// Counters kept in `progress`, rebuilt from `store`.
    pub fn new(progress: Arc<dyn ProgressStore>, store: Arc<dyn Store>) -> Self {
        Self {
            progress,
            store,
            state: Mutex::default(),
        }
    }

    /// Reports what the API has read. The store must know at least as much already: the counters are rebuilt from it.
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

    /// The counters, or none while the server is away: then the ledger has to be asked.
    pub async fn read(&self, upload: UploadKey) -> Option<Counters> {
        if self.is_paused() {
            self.doubt(upload.id);
            return None;
        }
        let read = async {
            if !self.is_doubtful(upload.id)
                && let Some(counters) = self.progress.read(upload).await?
            {
                return Ok(Some(counters));
            }
            self.restore(upload).await?;
            self.progress.read(upload).await
        };
        self.settle(upload.id, read.await).flatten()
    }

    async fn report(&self, upload: UploadKey, report: Report<'_>) {
        if self.is_paused() {
            self.doubt(upload.id);
            return;
        }
        let outcome = async {
            if self.is_doubtful(upload.id) || self.send(upload, report).await? == Presence::Absent {
                // The store has this report already: whoever reports has committed it first.
                self.restore(upload).await?;
                // Another process may have made the counters from an older look at the store in the meantime.
                self.send(upload, report).await?;
            }
            Ok(())
        };
        self.settle(upload.id, outcome.await);
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
        self.with_state(|state| state.doubtful.remove(&upload.id));
        Ok(())
    }

    fn settle<T>(&self, upload: UploadId, outcome: PortResult<T>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::warn!(upload.id = %upload, error = error.chain(), "live counters are out of reach");
                self.with_state(|state| {
                    state.paused_until = Some(Instant::now() + PAUSE_AFTER_FAILURE);
                });
                self.doubt(upload);
                None
            }
        }
    }

    fn is_paused(&self) -> bool {
        self.with_state(|state| {
            state
                .paused_until
                .is_some_and(|until| Instant::now() < until)
        })
    }

    fn is_doubtful(&self, upload: UploadId) -> bool {
        self.with_state(|state| state.doubtful.contains(&upload))
    }

    fn doubt(&self, upload: UploadId) {
        self.with_state(|state| {
            if state.doubtful.len() >= MOST_DOUBTFUL {
                state.doubtful.clear();
            }
            state.doubtful.insert(upload);
        });
    }

    fn with_state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut lock(&self.state))
    }
}
