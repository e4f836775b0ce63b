//! Whether this worker can tell the store which uploads it has batches of.
//!
//! If it cannot, the other workers do not know that it holds batches, and one of them would fail
//! the uploads as lost. A worker therefore releases all batches well before that, and takes no new
//! ones until the store answers again.

use std::sync::Mutex;
use std::time::Duration;

use carga_common::sync::lock;
use tokio::sync::watch;
use tokio::time::Instant;

/// When the store last recorded the batches in hand.
#[derive(Debug)]
pub(crate) struct StoreContact {
    /// The store counts as away after this time without a success.
    limit: Duration,
    recorded_at: Mutex<Instant>,
    is_away: watch::Sender<bool>,
}

impl StoreContact {
    /// `lost`: an upload fails if some of its batches have been neither stored nor queued nor held
    /// by a worker for this time. The limit is a quarter of it, since another worker must get the
    /// released batches before this time ends.
    pub(crate) fn new(lost: Duration) -> Self {
        Self {
            limit: lost / 4,
            recorded_at: Mutex::new(Instant::now()),
            is_away: watch::Sender::new(false),
        }
    }

    /// Notes that the store has recorded the batches in hand, if there are any, so that other
    /// workers know of them.
    pub(crate) fn succeeded(&self) {
        *lock(&self.recorded_at) = Instant::now();
        if self.is_away.send_replace(false) {
            tracing::info!("the store answers again; the worker takes batches again");
        }
    }

    /// Notes a failed attempt to record the batches in hand. The store is away if the last success
    /// is at least `limit` ago.
    pub(crate) fn failed(&self) {
        let silence = lock(&self.recorded_at).elapsed();
        if silence >= self.limit && !self.is_away.send_replace(true) {
            tracing::error!(
                silence_secs = silence.as_secs(),
                "the worker could not reach the store for a quarter of CARGA_LOST_SECS; its batches return to the queue for other workers; correct the connection or the credentials of this worker"
            );
        }
    }

    /// Whether the store is away.
    pub(crate) fn is_away(&self) -> bool {
        *self.is_away.borrow()
    }

    /// Completes when the store is away.
    pub(crate) async fn away(&self) {
        self.changed_to(true).await;
    }

    /// Completes when the store is not away.
    pub(crate) async fn back(&self) {
        self.changed_to(false).await;
    }

    async fn changed_to(&self, is_away: bool) {
        let mut changes = self.is_away.subscribe();
        // This cannot fail, because `self` has the sender.
        let _ = changes.wait_for(|now| *now == is_away).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_store_is_away_after_failures_for_a_quarter_of_the_time() {
        let contact = StoreContact::new(40 * SECOND);
        advance(9 * SECOND).await;
        contact.failed();
        assert!(!contact.is_away());
        assert!(contact.away().now_or_never().is_none());
        advance(SECOND).await;
        contact.failed();
        assert!(contact.is_away());
        contact.away().await;
        contact.succeeded();
        contact.back().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_in_between_starts_the_time_again() {
        let contact = StoreContact::new(40 * SECOND);
        advance(9 * SECOND).await;
        contact.succeeded();
        advance(9 * SECOND).await;
        contact.failed();
        assert!(!contact.is_away());
    }
}
