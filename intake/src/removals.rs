//! Removes the rows of uploads that ended without keeping them, a few uploads at a time.

use std::sync::Arc;

use carga_common::error::PortResult;
use carga_common::upload::UploadId;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How many removals run at the same time. An outage can fail all uploads at once, and their
/// removals must leave database connections for new uploads.
const AT_ONCE: usize = 2;

/// The removals of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Removals {
    slots: Arc<Semaphore>,
    /// Removals that still wait when this is cancelled are left to the sweeper.
    stopping: CancellationToken,
}

impl Removals {
    pub(crate) fn new(stopping: CancellationToken) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            stopping,
        }
    }

    /// Runs a removal once a slot is free. Waiting removals get slots in order. If this one is left
    /// to the sweeper or fails, a log line says so.
    pub(crate) async fn run(&self, id: UploadId, removal: impl Future<Output = PortResult<()>>) {
        let slot = tokio::select! {
            // A stopping process still begins a removal that need not wait.
            biased;
            slot = self.slots.acquire() => slot,
            () = self.stopping.cancelled() => {
                tracing::info!(upload.id = %id, "stopping; the sweeper will remove the rows");
                return;
            }
        };
        // The semaphore is never closed.
        let Ok(_slot) = slot else { return };
        if let Err(error) = removal.await {
            tracing::warn!(
                upload.id = %id,
                error = error.chain(),
                "could not remove the rows; the sweeper will remove them"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Mutex;

    use carga_common::sync::lock;
    use futures::FutureExt;
    use futures::future::join_all;

    use super::*;

    /// Removals that note their start and end at a permit of the gate.
    #[derive(Debug)]
    struct Noted {
        started: Mutex<Vec<u32>>,
        gate: Semaphore,
    }

    impl Noted {
        fn new() -> Self {
            Self {
                started: Mutex::default(),
                gate: Semaphore::new(0),
            }
        }

        async fn removal(&self, number: u32) -> PortResult<()> {
            lock(&self.started).push(number);
            self.gate.acquire().await.unwrap().forget();
            Ok(())
        }

        fn started(&self) -> Vec<u32> {
            lock(&self.started).clone()
        }
    }

    #[tokio::test]
    async fn two_removals_run_at_once_and_the_others_follow_in_order() {
        let removals = Removals::new(CancellationToken::new());
        let noted = Noted::new();
        let run = |number| removals.run(UploadId::generate(), noted.removal(number));
        let mut runs = pin!(join_all((1..=4).map(run)));
        assert!(runs.as_mut().now_or_never().is_none());
        assert_eq!(noted.started(), [1, 2]);
        noted.gate.add_permits(1);
        assert!(runs.as_mut().now_or_never().is_none());
        assert_eq!(noted.started(), [1, 2, 3]);
        noted.gate.add_permits(3);
        runs.await;
        assert_eq!(noted.started(), [1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn a_stopping_process_leaves_waiting_removals_and_begins_those_that_need_not_wait() {
        let stopping = CancellationToken::new();
        let removals = Removals::new(stopping.clone());
        let noted = Noted::new();
        let run = |number| removals.run(UploadId::generate(), noted.removal(number));
        let mut runs = pin!(join_all((1..=4).map(run)));
        assert!(runs.as_mut().now_or_never().is_none());
        stopping.cancel();
        assert!(runs.as_mut().now_or_never().is_none());
        noted.gate.add_permits(2);
        runs.await;
        assert_eq!(noted.started(), [1, 2]);
        noted.gate.add_permits(1);
        run(5).await;
        assert_eq!(noted.started(), [1, 2, 5]);
    }
}
