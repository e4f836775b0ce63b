//! Live counters as the rest of Carga uses them: rebuilt from the ledger whenever they may be
//! wrong, skipped while their server is away, and never an error.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::error::PortResult;
use crate::progress::{Counters, Presence, ProgressStore, Snapshot, StoredBatch};
use crate::store::Store;
use crate::sync::lock;
use crate::upload::{UploadId, UploadKey};

/// How long no call is made after a failure, so that an absent server does not slow down every poll
/// and every group.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(500);

/// Above this number, doubtful uploads are forgotten all at once. A needless restore is harmless;
/// unbounded memory is not.
const MOST_DOUBTFUL: usize = 10_000;

/// A [`ProgressStore`] with the store behind it.
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
    /// No call is made before this moment.
    paused_until: Option<Instant>,
    /// Uploads whose counters may be too low, because a report was lost or not sent.
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

    /// Reports what the API has read. The store must have these figures already: the counters are
    /// rebuilt from it.
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

    /// The counters; none while the server is away, and then the caller counts the ledger.
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
                // The store has this report already: it is committed before it is reported.
                self.restore(upload).await?;
                // Another process may have rebuilt the counters from an older state of the store.
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
