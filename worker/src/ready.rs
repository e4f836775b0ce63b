//! A batch that waits to be stored.

use carga_common::queue::Delivery;
use carga_common::store::ArchivedBatch;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::Span;

use crate::progress_watch::InHand;

/// A delivery whose batch is in the archive and waits to be stored.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) held: Held,
    pub(crate) archived: ArchivedBatch,
}

/// The part of a batch that a worker keeps while the batch is stored.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) delivery: Delivery,
    pub(crate) in_hand: InHand,
    /// The span `batch`, which ends when the batch is settled.
    pub(crate) span: Span,
    /// `None` unless an attempt found the upload locked.
    pub(crate) locked: Option<Locked>,
}

/// A batch whose upload was about to change its status.
#[derive(Debug)]
pub(crate) struct Locked {
    pub(crate) since: Instant,
    /// The permit of a batch that stays in hand although its lock is long.
    pub(crate) place: Option<OwnedSemaphorePermit>,
}
