//! Handles suspects: batches that were delivered [`SUSPECT_AFTER`] times without being settled. A
//! suspect may have ended its workers, so it is handled while no other batch is in hand.

use std::sync::Arc;

use carga_common::queue::{Delivery, SUSPECT_AFTER};

use crate::context::Context;
use crate::group::store_group;
use crate::panics::survive;
use crate::prepare::prepare;
use crate::progress_watch::InHand;
use crate::subscription::Subscription;

/// Handles suspects until the worker stops.
pub(crate) async fn run(context: Arc<Context>, mut suspects: Subscription) {
    while let Some((suspect, in_hand)) = suspects.next_in_hand().await {
        let handled = handle_alone(&context, suspect, in_hand);
        survive("handling a suspect", handled).await;
    }
}

async fn handle_alone(context: &Arc<Context>, suspect: Delivery, mut in_hand: InHand) {
    let permits = tokio::select! {
        permits = in_hand.wait_for(context.room.whole()) => permits,
        // The dropped delivery returns to the queue.
        () = context.released() => return,
    };
    let Some(permits) = permits else { return };
    in_hand.admit(permits);
    tracing::warn!(
        batch = ?suspect.id,
        attempt = suspect.attempt,
        "a batch is a suspect: it was delivered {SUSPECT_AFTER} times without being settled; it is handled alone"
    );
    if let Some(ready) = prepare(Arc::clone(context), suspect, in_hand).await {
        store_group(context, vec![ready]).await;
    }
}
