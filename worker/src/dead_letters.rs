//! Dead letters out of the queue and into the store, where they can be looked at and survive the broker. Until replay is
//! built, an upload with a dead batch has failed.

use std::sync::Arc;
use std::time::Duration;

use carga_common::batch::Batch;
use carga_common::error::PortResult;
use carga_common::lifecycle::remove_rows;
use carga_common::queue::Delivery;
use carga_common::retry::retry_until_accepted;
use carga_common::store::{DeadBatch, Parked};
use carga_common::upload::Failure;

use crate::runner::Context;
use crate::subscription::{Source, Subscription};

/// Before a dead letter that could not be kept goes back.
const PAUSE: Duration = Duration::from_secs(1);

/// Moves dead letters until the worker stops.
pub(crate) async fn run(context: Arc<Context>) {
    let mut dead_letters = Subscription::new(Arc::clone(&context), Source::DeadLetters);
    while let Some(delivery) = dead_letters.next().await {
        take(&context, delivery).await;
    }
}

async fn take(context: &Context, delivery: Delivery) {
    let reason = delivery
        .reason
        .clone()
        .unwrap_or_else(|| "no reason was given".to_owned());
    let dead = DeadBatch {
        // Properties first: the body may be what is wrong.
        id: delivery.id.or_else(|| {
            Batch::decode(delivery.body.clone())
                .ok()
                .map(|batch| batch.id)
        }),
        attempts: delivery.attempt,
        // A reason may quote what Postgres does not store.
        reason: reason.replace('\0', "\u{fffd}"),
        body: delivery.body.clone(),
    };
    match retry_until_accepted(context.stop.cancelled(), || park(context, &dead)).await {
        Ok(()) => {}
        Err(error) if error.is_passing() => return,
        Err(error) => {
            tracing::error!(batch = ?dead.id, error = error.chain(), "a dead letter could not be kept; it goes back");
            // It comes again at once, and nothing will be different.
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = context.stop.cancelled() => {}
            }
            return;
        }
    }
    if let Err(error) = delivery.ack().await {
        tracing::debug!(error = error.chain(), "a dead letter will come again");
    }
}

async fn park(context: &Context, dead: &DeadBatch) -> PortResult<()> {
    let store = context.backends.store.as_ref();
    let parked = store.park(dead).await?;
    let Some(id) = dead.id.filter(|_| parked == Parked::Kept) else {
        return Ok(());
    };
    tracing::error!(batch = %id, reason = dead.reason, "a batch is dead");
    let message = format!("batch {} could not be stored: {}", id.seq, dead.reason);
    let failure = Failure::new("batch_dead", message);
    if store.fail(id.upload, &failure, None).await?
        && let Err(error) = remove_rows(store, id.upload.id).await
    {
        tracing::warn!(upload.id = %id.upload.id, error = error.chain(), "rows are left to the sweeper to remove");
    }
    Ok(())
}
