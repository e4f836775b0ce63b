//! Moves dead letters from the queue into the store, where people can read them and where they
//! outlive the broker. Dead letters cannot be replayed yet, so an upload that has one fails.

use std::sync::Arc;
use std::time::Duration;

use carga_common::batch::Batch;
use carga_common::error::PortResult;
use carga_common::lifecycle::remove_rows;
use carga_common::queue::Delivery;
use carga_common::retry::retry_until_accepted;
use carga_common::store::{DeadBatch, Parked};
use carga_common::upload::Failure;

use crate::context::Context;
use crate::subscription::{Source, Subscription};

/// The pause before a dead letter that could not be stored returns to the queue.
const RETURN_PAUSE: Duration = Duration::from_secs(1);

/// Moves dead letters until the worker stops.
pub(crate) async fn run(context: Arc<Context>) {
    let mut dead_letters = Subscription::new(Arc::clone(&context), Source::DeadLetters);
    while let Some(delivery) = dead_letters.next().await {
        move_to_store(&context, delivery).await;
    }
}

async fn move_to_store(context: &Context, delivery: Delivery) {
    let reason = delivery
        .reason
        .clone()
        .unwrap_or_else(|| "no reason given".to_owned());
    let dead = DeadBatch {
        // The message's properties come first, because its body may be undecodable.
        id: delivery.id.or_else(|| {
            Batch::decode(delivery.body.clone())
                .ok()
                .map(|batch| batch.id)
        }),
        attempts: delivery.attempt,
        // A reason may quote a NUL, which Postgres cannot store in text.
        reason: reason.replace('\0', "\u{fffd}"),
        body: delivery.body.clone(),
    };
    match retry_until_accepted(context.stop.cancelled(), || park(context, &dead)).await {
        Ok(()) => {}
        Err(error) if error.is_passing() => return,
        Err(error) => {
            tracing::error!(
                batch = ?dead.id,
                error = error.chain(),
                "a dead letter could not be stored; it returns to the queue"
            );
            // The broker redelivers it at once, so without a pause this would spin.
            tokio::select! {
                () = tokio::time::sleep(RETURN_PAUSE) => {}
                () = context.stop.cancelled() => {}
            }
            return;
        }
    }
    if let Err(error) = delivery.ack().await {
        tracing::debug!(
            error = error.chain(),
            "a stored dead letter was not acknowledged; it will be redelivered"
        );
    }
}

async fn park(context: &Context, dead: &DeadBatch) -> PortResult<()> {
    let store = context.backends.store.as_ref();
    let parked = store.park(dead).await?;
    let Some(id) = dead.id.filter(|_| parked == Parked::Kept) else {
        return Ok(());
    };
    tracing::error!(batch = %id, reason = dead.reason, "a batch became a dead letter");
    let message = format!("batch {} could not be stored: {}", id.seq, dead.reason);
    let failure = Failure::new("batch_dead", message);
    if store.fail(id.upload, &failure, None).await?
        && let Err(error) = remove_rows(store, id.upload.id).await
    {
        tracing::warn!(
            upload.id = %id.upload.id,
            error = error.chain(),
            "rows could not be removed; the sweeper will remove them"
        );
    }
    Ok(())
}
