//! Moves dead letters from the queue into the store, where people can read and retry them, and
//! where they outlive the broker.

use std::sync::Arc;
use std::time::Duration;

use carga_common::batch::Batch;
use carga_common::error::PortResult;
use carga_common::queue::Delivery;
use carga_common::retry::retry_until_accepted;
use carga_common::store::{BatchRows, DeadBatch, Parked};

use crate::context::Context;
use crate::panics::survive;
use crate::subscription::{Source, Subscription};

/// The pause before a dead letter that was not stored returns to the queue.
const RETURN_PAUSE: Duration = Duration::from_secs(1);

/// The pause before a dead letter of another installation returns to the queue. It is shorter,
/// because a dead letter of this installation may be behind thousands of them.
const FOREIGN_PAUSE: Duration = Duration::from_millis(200);

/// Moves dead letters until the worker stops.
pub(crate) async fn run(context: Arc<Context>) {
    let mut dead_letters = Subscription::new(Arc::clone(&context), Source::DeadLetters);
    while let Some(delivery) = dead_letters.next().await {
        survive("moving a dead letter", move_to_store(&context, delivery)).await;
    }
}

async fn move_to_store(context: &Arc<Context>, delivery: Delivery) {
    let reason = delivery
        .reason
        .clone()
        .unwrap_or_else(|| "no reason given".to_owned());
    if delivery.is_foreign {
        // The next dead letter does not wait for the pause. The prefetch bounds these tasks.
        let put_back = put_back(Arc::clone(context), delivery, reason);
        context.tasks.spawn(put_back);
        return;
    }
    let decoded = Batch::decode(delivery.body.clone()).ok();
    let dead = DeadBatch {
        // The message's properties come first, because its body may be undecodable.
        id: delivery
            .id
            .or_else(|| decoded.as_ref().map(|batch| batch.id)),
        rows: decoded.as_ref().map(BatchRows::of),
        attempts: delivery.attempt,
        // A reason may quote a NUL, which Postgres cannot store in text.
        reason: reason.replace('\0', "\u{fffd}"),
        body: delivery.body.clone(),
    };
    match retry_until_accepted(context.released(), || park(context, &dead)).await {
        Ok(Parked::Kept) => context.metrics.batches.dead.increment(1),
        Ok(Parked::AlreadyStored | Parked::Ended) => {}
        Err(error) if error.is_passing() => return,
        Err(error) => {
            tracing::error!(
                batch = ?dead.id,
                error = error.chain(),
                "a dead letter could not be stored; it returns to the queue"
            );
            // The broker redelivers it at once, so without a pause this would spin.
            pause(context, RETURN_PAUSE).await;
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

/// Puts a dead letter of another installation at the end of the dead letters. If it were moved to
/// this database, its upload in the other database would never end.
async fn put_back(context: Arc<Context>, delivery: Delivery, reason: String) {
    context.foreign_warning.warn();
    pause(&context, FOREIGN_PAUSE).await;
    if let Err(error) = delivery.dead_letter(&reason).await {
        tracing::debug!(
            error = error.chain(),
            "a dead letter of another installation was not put back; it will be redelivered"
        );
    }
}

async fn pause(context: &Context, pause: Duration) {
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = context.stop.cancelled() => {}
    }
}

/// Keeps the dead letter. Its upload may have waited for this batch alone.
async fn park(context: &Context, dead: &DeadBatch) -> PortResult<Parked> {
    let store = context.backends.store.as_ref();
    let parked = store.park(dead).await?;
    let Some(id) = dead.id.filter(|_| parked == Parked::Kept) else {
        return Ok(parked);
    };
    tracing::error!(
        batch = %id,
        reason = dead.reason,
        "a batch became a dead letter; remove the cause and retry it (carga dead-letters retry)"
    );
    context.completion_checks.request(id.upload.id).await;
    Ok(parked)
}
