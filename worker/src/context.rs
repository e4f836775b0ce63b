//! What the parts of a worker share.
//!
//! It stands below all of them, so that no part imports the runner that starts it.

use std::sync::Arc;

use carga_common::backends::Backends;
use carga_common::settings::WorkerSettings;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission_cache::AdmissionCache;
use crate::completion_checks::CompletionChecks;
use crate::foreign::ForeignWarning;
use crate::metrics::WorkerMetrics;
use crate::progress_watch::ProgressWatch;
use crate::ready::Ready;
use crate::room::Room;
use crate::store_contact::StoreContact;

/// The connections, settings, caches and limits of one worker process.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) backends: Backends,
    pub(crate) settings: WorkerSettings,
    pub(crate) admission_cache: AdmissionCache,
    pub(crate) completion_checks: CompletionChecks,
    /// Bounds the batches in hand. A suspect takes the whole room.
    pub(crate) room: Room,
    /// Sends batches to the storing tasks. It is weak, because these tasks end when the last strong
    /// sender is dropped.
    pub(crate) ready: mpsc::WeakSender<Ready>,
    pub(crate) store_contact: StoreContact,
    pub(crate) progress_watch: Arc<ProgressWatch>,
    pub(crate) foreign_warning: ForeignWarning,
    pub(crate) metrics: WorkerMetrics,
    /// One permit per concurrent archive write.
    pub(crate) archive_slots: Semaphore,
    /// One permit per byte of the objects that are being compressed or written, without their
    /// compression.
    pub(crate) archive_bytes: Semaphore,
    /// One permit per object that is being compressed, and as many as there are processors: more
    /// objects at once would not be faster, and each needs memory for the tables of its compressor.
    pub(crate) compression_slots: Semaphore,
    /// The tasks that a stopping worker waits for.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the worker is asked to stop.
    pub(crate) stop: CancellationToken,
}

impl Context {
    /// Completes when the worker must release its batches: it stops, or the store is away for so
    /// long that other workers would take them for lost.
    pub(crate) async fn released(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.store_contact.away() => {}
        }
    }
}
