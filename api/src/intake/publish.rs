//! Publishing beside parsing: a window of unconfirmed batches per upload, a budget of bytes for the whole process.

use std::sync::Arc;
use std::time::Duration;

use carga_common::batch::EncodedBatch;
use carga_common::error::{ErrorKind, PortError};
use carga_common::queue::BatchPublisher;
use carga_common::retry::retry_while_unavailable;
use carga_common::settings::IntakeSettings;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;
use tracing::Instrument;

use crate::problem::Refusal;

/// The batches of one upload that are on their way. Dropping it gives up those that are not confirmed.
#[derive(Debug)]
pub(crate) struct PublishWindow {
    publisher: Arc<dyn BatchPublisher>,
    budget: Arc<Semaphore>,
    /// All of the budget: a batch that is larger waits for this much.
    budget_bytes: u32,
    /// Unconfirmed batches at most.
    size: usize,
    deadline: Duration,
    in_flight: JoinSet<Result<(), PortError>>,
}

impl PublishWindow {
    pub(crate) fn new(
        publisher: Arc<dyn BatchPublisher>,
        budget: Arc<Semaphore>,
        settings: &IntakeSettings,
    ) -> Self {
        Self {
            publisher,
            budget,
            budget_bytes: u32::try_from(settings.publish_budget_bytes).unwrap_or(u32::MAX),
            size: settings.publish_window,
            deadline: settings.publish_deadline,
            in_flight: JoinSet::new(),
        }
    }

    /// Starts publishing a batch as soon as window and budget have room. Fails as soon as an earlier one has failed.
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
        // One place in the queue for the budget, kept while earlier batches are confirmed.
        let budget = Arc::clone(&self.budget).acquire_many_owned(bytes);
        tokio::pin!(budget);
        let permit = loop {
            tokio::select! {
                permit = &mut budget => break permit,
                Some(outcome) = self.in_flight.join_next() => confirmed(outcome)?,
            }
        };
        let (publisher, deadline) = (Arc::clone(&self.publisher), self.deadline);
        let publish = async move {
            // The budget is never closed; if it were, publishing without a permit would only cost memory.
            let _permit = permit;
            // A lost connection, a silent broker or a full queue. The batch may be in the queue twice then, which the ledger
            // takes care of.
            retry_while_unavailable(sleep(deadline), || publisher.publish(&batch)).await
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
            let message =
                "the queue did not take the file; nothing of it is kept, send it again later";
            Err(Refusal::unavailable("queue_unavailable", message))
        }
        Err(panic) => {
            tracing::error!(%panic, "publishing a batch broke off");
            Err(Refusal::internal())
        }
    }
}
