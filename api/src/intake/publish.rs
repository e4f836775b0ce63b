//! Publishing beside parsing: a window of unconfirmed batches per upload, a budget of bytes for the whole process.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use carga_common::batch::EncodedBatch;
use carga_common::error::PortError;
use carga_common::queue::BatchQueue;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use super::patience::wait_out;
use crate::problem::Refusal;

/// The batches of one upload that are on their way. Dropping it gives up those that are not confirmed.
#[derive(Debug)]
pub(crate) struct PublishWindow {
    queue: Arc<dyn BatchQueue>,
    budget: Arc<Semaphore>,
    /// Unconfirmed batches at most.
    size: usize,
    deadline: Duration,
    in_flight: JoinSet<Result<(), PortError>>,
}

impl PublishWindow {
    pub(crate) fn new(
        queue: Arc<dyn BatchQueue>,
        budget: Arc<Semaphore>,
        size: usize,
        deadline: Duration,
    ) -> Self {
        Self {
            queue,
            budget,
            size,
            deadline,
            in_flight: JoinSet::new(),
        }
    }

    /// Starts publishing a batch as soon as window and budget have room. Fails as soon as an earlier one has failed.
    pub(crate) async fn push(&mut self, batch: EncodedBatch) -> Result<(), Refusal> {
        while self.in_flight.len() >= self.size {
            self.settle_one().await?;
        }
        while let Some(outcome) = self.in_flight.try_join_next() {
            confirmed(outcome)?;
        }
        let bytes = u32::try_from(batch.body.len()).unwrap_or(u32::MAX);
        let permit = loop {
            let budget = Arc::clone(&self.budget);
            tokio::select! {
                permit = budget.acquire_many_owned(bytes) => break permit,
                Some(outcome) = self.in_flight.join_next() => confirmed(outcome)?,
            }
        };
        let (queue, deadline) = (Arc::clone(&self.queue), self.deadline);
        self.in_flight.spawn(async move {
            // The budget is never closed; if it were, publishing without a permit would only cost memory.
            let _permit = permit;
            // A lost connection, a silent broker or a full queue; the batch may be in the queue twice then, which the ledger
            // takes care of.
            let again = "a batch is published again";
            wait_out(deadline, again, || queue.publish(&batch)).await
        });
        Ok(())
    }

    /// Waits until every batch is confirmed.
    pub(crate) async fn finish(mut self) -> Result<(), Refusal> {
        while !self.in_flight.is_empty() {
            self.settle_one().await?;
        }
        Ok(())
    }

    async fn settle_one(&mut self) -> Result<(), Refusal> {
        match self.in_flight.join_next().await {
            Some(outcome) => confirmed(outcome),
            None => Ok(()),
        }
    }
}

fn confirmed(outcome: Result<Result<(), PortError>, JoinError>) -> Result<(), Refusal> {
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            tracing::error!(error = error.chain(), "a batch could not be published");
            let message =
                "the queue did not take the file; nothing of it is kept, send it again later";
            let refusal = Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "queue_unavailable",
                message,
            );
            Err(refusal.retry_after(5))
        }
        Err(panic) => {
            tracing::error!(%panic, "publishing a batch broke off");
            Err(Refusal::internal())
        }
    }
}
