//! What the handlers share.

use std::sync::Arc;

use carga_common::backends::Backends;
use carga_common::settings::IntakeSettings;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::intake::live::LiveUploads;

/// Cheap to clone; one per process.
#[derive(Debug, Clone)]
pub struct ApiState {
    /// The ports.
    pub(crate) backends: Backends,
    /// What is accepted.
    pub(crate) settings: Arc<IntakeSettings>,
    /// Uploads being received, for the heartbeat.
    pub(crate) live: Arc<LiveUploads>,
    /// A permit per upload at once.
    pub(crate) upload_slots: Arc<Semaphore>,
    /// A permit per byte of unconfirmed batches, shared by all uploads in the order they ask.
    pub(crate) publish_budget: Arc<Semaphore>,
    /// Work that outlives its request: receiving (a client that hangs up must not cut a seal short), removing rows.
    pub(crate) tasks: TaskTracker,
    /// No new uploads.
    pub(crate) draining: CancellationToken,
    /// The grace period is over: uploads still in flight fail now.
    pub(crate) out_of_time: CancellationToken,
}

impl ApiState {
    pub(crate) fn new(
        backends: Backends,
        settings: IntakeSettings,
        draining: CancellationToken,
    ) -> Self {
        Self {
            live: Arc::default(),
            upload_slots: Arc::new(Semaphore::new(settings.max_uploads)),
            publish_budget: Arc::new(Semaphore::new(settings.publish_budget_bytes)),
            tasks: TaskTracker::new(),
            out_of_time: CancellationToken::new(),
            settings: Arc::new(settings),
            backends,
            draining,
        }
    }
}
