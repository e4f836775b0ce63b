//! What the parts of a worker share.
//!
//! It stands below all of them, so that no part imports the runner that starts it.

use std::sync::Arc;

use carga_common::backends::Backends;
use carga_common::settings::WorkerSettings;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::admission_cache::AdmissionCache;
use crate::completion_checks::CompletionChecks;

/// The connections, settings, caches and limits of one worker process.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) backends: Backends,
    pub(crate) settings: WorkerSettings,
    pub(crate) admission_cache: AdmissionCache,
    pub(crate) completion_checks: CompletionChecks,
    /// One permit per batch that is being prepared or stored.
    pub(crate) in_hand: Arc<Semaphore>,
    /// One permit per concurrent archive write.
    pub(crate) archive_slots: Semaphore,
    /// One permit per byte of the objects that are being written.
    pub(crate) archive_bytes: Semaphore,
    /// Cancelled when the worker is asked to stop.
    pub(crate) stop: CancellationToken,
}
