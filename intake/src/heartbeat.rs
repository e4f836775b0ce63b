//! Uploads being received in this process, and the heartbeat that puts their figures on record.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use carga_common::backends::Backends;
use carga_common::store::Heartbeat;
use carga_common::sync::lock;
use carga_common::upload::{UploadId, UploadKey};
use futures::future::join_all;
use tokio::time::MissedTickBehavior;

/// An upload's figures, raised by its intake and read by the heartbeat.
#[derive(Debug)]
pub(crate) struct LiveUpload {
    key: UploadKey,
    rows_read: AtomicU64,
    rows_rejected: AtomicU64,
    bytes_received: AtomicU64,
    /// Somebody else has ended the upload: there is no point in receiving more of it.
    ended: AtomicBool,
}

impl LiveUpload {
    /// Figures are told apart, not compared, so no order among them is needed.
    pub(crate) fn set_rows(&self, rows: u64) {
        self.rows_read.store(rows, Ordering::Relaxed);
    }

    /// Only what the store has: a figure that was shown must not go back.
    pub(crate) fn set_rejected(&self, rows: u64) {
        self.rows_rejected.store(rows, Ordering::Relaxed);
    }

    pub(crate) fn set_bytes(&self, bytes: u64) {
        self.bytes_received.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    pub(crate) fn beat(&self) -> Heartbeat {
        Heartbeat {
            upload: self.key.id,
            rows_read: self.rows_read.load(Ordering::Relaxed),
            rows_rejected: self.rows_rejected.load(Ordering::Relaxed),
            bytes_received: self.bytes_received.load(Ordering::Relaxed),
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct LiveUploads {
    uploads: Mutex<HashMap<UploadId, Arc<LiveUpload>>>,
}

impl LiveUploads {
    /// Enters an upload; it leaves when the guard is dropped, and its lease is then no longer renewed.
    pub(crate) fn enter(self: &Arc<Self>, key: UploadKey) -> LiveGuard {
        let upload = Arc::new(LiveUpload {
            key,
            rows_read: AtomicU64::new(0),
            rows_rejected: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        self.with(|uploads| uploads.insert(key.id, Arc::clone(&upload)));
        LiveGuard {
            all: Arc::clone(self),
            upload,
        }
    }

    fn snapshot(&self) -> Vec<Arc<LiveUpload>> {
        self.with(|uploads| uploads.values().cloned().collect())
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<UploadId, Arc<LiveUpload>>) -> T) -> T {
        work(&mut lock(&self.uploads))
    }
}

/// Keeps an upload among the living.
#[derive(Debug)]
pub(crate) struct LiveGuard {
    all: Arc<LiveUploads>,
    pub(crate) upload: Arc<LiveUpload>,
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        self.all.with(|uploads| uploads.remove(&self.upload.key.id));
    }
}

/// Renews all leases with one statement per tick, and only then raises the live counters: a poll never sees a figure that
/// the store does not have, so losing the counters cannot make a figure go back.
pub(crate) async fn beat_forever(
    live: Arc<LiveUploads>,
    backends: Backends,
    every: std::time::Duration,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let uploads = live.snapshot();
        if uploads.is_empty() {
            continue;
        }
        let beats: Vec<Heartbeat> = uploads.iter().map(|upload| upload.beat()).collect();
        let renewed: HashSet<UploadId> = match backends.store.heartbeat(&beats).await {
            Ok(renewed) => renewed.into_iter().collect(),
            Err(error) => {
                tracing::warn!(error = error.chain(), "leases were not renewed");
                continue;
            }
        };
        for upload in uploads
            .iter()
            .filter(|upload| !renewed.contains(&upload.key.id))
        {
            upload.ended.store(true, Ordering::Relaxed);
        }
        let reports = uploads.iter().zip(&beats).map(|(upload, beat)| {
            let (rows, bytes) = (beat.rows_read, beat.bytes_received);
            backends.progress.received(upload.key, rows, bytes)
        });
        join_all(reports).await;
    }
}
