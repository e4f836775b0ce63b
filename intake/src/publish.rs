//! Publishes batches while the file is parsed. Each upload has a window of unconfirmed batches,
//! and all uploads of a process share a budget in bytes.

use std::sync::Arc;
use std::time::Duration;

use carga_common::batch::EncodedBatch;
use carga_common::error::{ErrorKind, PortError};
use carga_common::queue::BatchPublisher;
use carga_common::retry::retry_while_unavailable;
use carga_common::settings::IntakeSettings;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep};
use tracing::Instrument;

use crate::metrics::IntakeMetrics;
use crate::refusal::Refusal;

/// The unconfirmed batches of one upload. Dropping the window abandons them.
#[derive(Debug)]
pub(crate) struct PublishWindow {
    publisher: Arc<dyn BatchPublisher>,
    budget: Arc<Semaphore>,
    /// The whole budget. A batch that is larger than the budget waits for all of it.
    budget_bytes: u32,
    /// The largest number of unconfirmed batches.
    size: usize,
    deadline: Duration,
    in_flight: JoinSet<Result<(), PortError>>,
    metrics: Arc<IntakeMetrics>,
}

impl PublishWindow {
    pub(crate) fn new(
        publisher: Arc<dyn BatchPublisher>,
        budget: Arc<Semaphore>,
        settings: &IntakeSettings,
        metrics: Arc<IntakeMetrics>,
    ) -> Self {
        Self {
            publisher,
            budget,
            budget_bytes: u32::try_from(settings.publish_budget_bytes).unwrap_or(u32::MAX),
            size: settings.publish_window,
            deadline: settings.publish_deadline,
            in_flight: JoinSet::new(),
            metrics,
        }
    }

    /// Starts publishing a batch as soon as the window and the budget have room. Fails if an
    /// earlier batch has failed.
    pub(crate) async fn push(&mut self, batch: EncodedBatch) -> Result<(), Refusal> {
        while self.in_flight.len() >= self.size
            && let Some(outcome) = self.in_flight.join_next().await
        {
            confirmed(outcome)?;
        }
        while let Some(outcome) = self.in_flight.try_join_next() {
            confirmed(outcome)?;
        }
        let bytes = u32::try_from(batch.body.len())
            .unwrap_or(u32::MAX)
            .min(self.budget_bytes);
        // One request to the budget, which keeps its turn while earlier batches are confirmed.
        let budget = Arc::clone(&self.budget).acquire_many_owned(bytes);
        tokio::pin!(budget);
        let permit = loop {
            tokio::select! {
                permit = &mut budget => break permit,
                Some(outcome) = self.in_flight.join_next() => confirmed(outcome)?,
            }
        };
        let (publisher, deadline) = (Arc::clone(&self.publisher), self.deadline);
        let metrics = Arc::clone(&self.metrics);
        let publish = async move {
            // The budget is never closed. If it were, publishing without a permit would only
            // cost memory.
            let _permit = permit;
            // Retries after a lost connection, a silent broker or a full queue. The batch may
            // then be in the queue twice, and the ledger makes the second delivery a no-op.
            let started = Instant::now();
            let publish = || publisher.publish(&batch);
            retry_while_unavailable(sleep(deadline), publish).await?;
            metrics.confirmed(started.elapsed());
            Ok(())
        };
        self.in_flight.spawn(publish.in_current_span());
        Ok(())
    }

    /// Waits until every batch is confirmed.
    pub(crate) async fn finish(mut self) -> Result<(), Refusal> {
        while let Some(outcome) = self.in_flight.join_next().await {
            confirmed(outcome)?;
        }
        Ok(())
    }
}

fn confirmed(outcome: Result<Result<(), PortError>, JoinError>) -> Result<(), Refusal> {
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if error.kind() == ErrorKind::Full => Err(error.into()),
        Ok(Err(error)) => {
            tracing::error!(error = error.chain(), "a batch could not be published");
            let message = "the queue did not accept the file, and none of its rows are kept; send it again later";
            Err(Refusal::unavailable("queue_unavailable", message))
        }
        Err(panic) => {
            tracing::error!(%panic, "publishing a batch panicked");
            Err(Refusal::internal())
        }
    }
}
