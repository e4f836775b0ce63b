//! The uploads that this process receives, and the heartbeat that renews their leases and
//! stores their figures.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use carga_common::backends::Backends;
use carga_common::store::Heartbeat;
use carga_common::sync::lock;
use carga_common::upload::{UploadId, UploadKey};
use futures::future::join_all;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::metrics::{Counted, IntakeMetrics};

/// The figures of one upload, updated by its intake and read by the heartbeat.
#[derive(Debug)]
pub(crate) struct UploadFigures {
    key: UploadKey,
    rows_read: AtomicU64,
    rows_rejected: AtomicU64,
    bytes_received: AtomicU64,
    /// Another process has ended the upload, so receiving more of it is pointless.
    ended: AtomicBool,
    counted_rows: Counted,
    counted_bytes: Counted,
    metrics: Arc<IntakeMetrics>,
}

impl UploadFigures {
    /// Relaxed ordering is enough, because each figure is read on its own.
    pub(crate) fn set_rows(&self, rows: u64) {
        self.rows_read.store(rows, Ordering::Relaxed);
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows_read.load(Ordering::Relaxed)
    }

    /// Counts only rows that the store has, because a figure must not decrease once a client
    /// has seen it.
    pub(crate) fn set_rejected(&self, rows: u64) {
        self.rows_rejected.store(rows, Ordering::Relaxed);
    }

    pub(crate) fn set_bytes(&self, bytes: u64) {
        self.bytes_received.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn metrics(&self) -> &IntakeMetrics {
        &self.metrics
    }

    /// Adds to the metrics what was read since the last call.
    fn count(&self) {
        let rows = self.rows_read.load(Ordering::Relaxed);
        self.counted_rows.count(&self.metrics.rows_read, rows);
        let bytes = self.bytes_received.load(Ordering::Relaxed);
        self.counted_bytes
            .count(&self.metrics.bytes_received, bytes);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    pub(crate) fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            upload: self.key.id,
            rows_read: self.rows_read.load(Ordering::Relaxed),
            rows_rejected: self.rows_rejected.load(Ordering::Relaxed),
            bytes_received: self.bytes_received.load(Ordering::Relaxed),
        }
    }
}

/// All uploads that this process receives.
#[derive(Debug)]
pub(crate) struct ActiveUploads {
    uploads: Mutex<HashMap<UploadId, Arc<UploadFigures>>>,
    metrics: Arc<IntakeMetrics>,
}

impl ActiveUploads {
    pub(crate) fn new(metrics: Arc<IntakeMetrics>) -> Self {
        Self {
            uploads: Mutex::default(),
            metrics,
        }
    }

    /// Registers an upload. Dropping the guard removes it, and its lease is no longer renewed.
    pub(crate) fn register(self: &Arc<Self>, key: UploadKey) -> ActiveUpload {
        let figures = Arc::new(UploadFigures {
            key,
            rows_read: AtomicU64::new(0),
            rows_rejected: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            counted_rows: Counted::default(),
            counted_bytes: Counted::default(),
            metrics: Arc::clone(&self.metrics),
        });
        self.metrics.receiving.increment(1);
        self.with_uploads(|uploads| uploads.insert(key.id, Arc::clone(&figures)));
        ActiveUpload {
            all: Arc::clone(self),
            figures,
        }
    }

    fn snapshot(&self) -> Vec<Arc<UploadFigures>> {
        self.with_uploads(|uploads| uploads.values().cloned().collect())
    }

    fn with_uploads<T>(
        &self,
        work: impl FnOnce(&mut HashMap<UploadId, Arc<UploadFigures>>) -> T,
    ) -> T {
        work(&mut lock(&self.uploads))
    }
}

/// Keeps an upload registered.
#[derive(Debug)]
pub(crate) struct ActiveUpload {
    all: Arc<ActiveUploads>,
    pub(crate) figures: Arc<UploadFigures>,
}

impl Drop for ActiveUpload {
    fn drop(&mut self) {
        self.figures.count();
        self.figures.metrics.receiving.decrement(1);
        self.all
            .with_uploads(|uploads| uploads.remove(&self.figures.key.id));
    }
}

/// The time limit of one renewal. A connection that hangs must not delay the next renewal until the
/// leases expire.
const RENEWAL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Renews all leases with one statement per tick, and updates the live counters only after
/// that. A client never sees a figure that the store lacks, so losing the counters cannot make
/// a figure decrease.
pub(crate) async fn run_heartbeat(
    active: Arc<ActiveUploads>,
    backends: Backends,
    every: std::time::Duration,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A report may have to rebuild counters from the whole ledger, and the next renewal must not
    // wait for that. Dropping the set aborts the reports when the heartbeat ends.
    let mut reports = JoinSet::new();
    loop {
        ticks.tick().await;
        let uploads = active.snapshot();
        if uploads.is_empty() {
            continue;
        }
        for upload in &uploads {
            upload.count();
        }
        let heartbeats: Vec<Heartbeat> = uploads.iter().map(|upload| upload.heartbeat()).collect();
        let Some(renewed) = renew(&backends, &heartbeats).await else {
            continue;
        };
        for upload in uploads
            .iter()
            .filter(|upload| !renewed.contains(&upload.key.id))
        {
            upload.ended.store(true, Ordering::Relaxed);
        }
        while let Some(ended) = reports.try_join_next() {
            if let Err(panic) = ended {
                tracing::error!(%panic, "reporting to the live counters panicked");
            }
        }
        // While a report is slow, ticks start no other report, so that reports never pile up. The
        // next report has the latest figures.
        if reports.is_empty() {
            reports.spawn(report(uploads, heartbeats, backends.clone()));
        }
    }
}

/// Renews the leases. Returns the uploads that are still being received, or `None` if the store
/// did not answer.
async fn renew(backends: &Backends, heartbeats: &[Heartbeat]) -> Option<HashSet<UploadId>> {
    let renewing = backends.store.heartbeat(heartbeats);
    match tokio::time::timeout(RENEWAL_TIMEOUT, renewing).await {
        Ok(Ok(renewed)) => Some(renewed.into_iter().collect()),
        Ok(Err(error)) => {
            tracing::warn!(error = error.chain(), "could not renew the leases");
            None
        }
        Err(_) => {
            tracing::warn!("could not renew the leases: the store did not answer in time");
            None
        }
    }
}

/// Raises the live counters to figures that the store has.
async fn report(uploads: Vec<Arc<UploadFigures>>, heartbeats: Vec<Heartbeat>, backends: Backends) {
    let reports = uploads.iter().zip(&heartbeats).map(|(upload, heartbeat)| {
        let (rows, bytes) = (heartbeat.rows_read, heartbeat.bytes_received);
        backends.progress.received(upload.key, rows, bytes)
    });
    join_all(reports).await;
}
