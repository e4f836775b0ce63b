//! Replay: the messages of retried dead letters return to the queue. A message that cannot be read
//! is made again from the archive.
//!
//! [`retry`](crate::store::DeadLetterStore::retry) only marks dead letters, so any process can
//! publish their messages, and a crash loses none. A message that two processes publish is
//! harmless, because the ledger stores its batch once.

mod archived;

use futures::future::join_all;

use crate::backends::Backends;
use crate::batch::{Batch, EncodedBatch};
use crate::error::{ErrorKind, PortResult};
use crate::queue::BatchPublisher;
use crate::store::{DeadBatch, RetriedBatch, Store};

/// How many messages are in memory at once. The largest have a few MiB each.
const AT_ONCE: u32 = 4;

/// Publishes the messages of retried batches that no process has published yet. Returns how many.
///
/// A message that the queue refuses for good is a dead letter again, with the reason.
pub async fn replay(backends: &Backends) -> PortResult<u64> {
    let Backends { store, queue, .. } = backends;
    let publisher = queue.publisher();
    let publisher = publisher.as_ref();
    let mut count = 0;
    loop {
        let claimed = store.claim_retried(AT_ONCE).await?;
        if claimed.is_empty() {
            return Ok(count);
        }
        // One after another, because an object of the archive needs more memory than a message.
        let mut messages = Vec::with_capacity(claimed.len());
        for batch in claimed {
            messages.push((message(backends, &batch).await?, batch.number));
        }
        let publishing = messages
            .iter()
            .map(|(message, number)| publish(store.as_ref(), publisher, message, *number));
        for published in join_all(publishing).await {
            count += u64::from(published?);
        }
    }
}

/// Returns whether the message is in the queue.
async fn publish(
    store: &dyn Store,
    publisher: &dyn BatchPublisher,
    message: &EncodedBatch,
    number: u64,
) -> PortResult<bool> {
    let batch = message.id;
    match publisher.publish(message).await {
        Ok(()) => {
            store.mark_published(&[number]).await?;
            tracing::info!(%batch, "a dead letter was published again");
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::Invalid => {
            let reason = error.chain();
            tracing::error!(%batch, error = reason, "the queue refuses a dead letter");
            let dead = DeadBatch {
                id: Some(batch),
                rows: None,
                attempts: 1,
                reason,
                body: message.body.clone(),
            };
            store.park(&dead).await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The message of a retried batch. If it cannot be read and the archive has the batch, the message
/// is made again. Otherwise it is published as it is, and the batch becomes a dead letter again.
async fn message(backends: &Backends, batch: &RetriedBatch) -> PortResult<EncodedBatch> {
    if Batch::decode(batch.body.clone()).is_err() {
        match archived::message(backends, batch.id).await {
            Ok(Some(again)) => {
                tracing::info!(batch = %batch.id, "the message of a dead letter was made again from the archive");
                return Ok(again);
            }
            Ok(None) => {}
            Err(error) if error.is_passing() => return Err(error),
            Err(error) => tracing::error!(
                batch = %batch.id,
                error = error.chain(),
                "the message of a dead letter cannot be made again from the archive"
            ),
        }
    }
    Ok(EncodedBatch {
        id: batch.id,
        rows: batch.rows,
        body: batch.body.clone(),
    })
}
