//! Batches whose upload is about to change its status.
//!
//! They return to the storing tasks after a pause. Those tasks bound the transactions, and store
//! the locked batches together with others. Most locks are short. Once a lock is long, at most a
//! quarter of the batches in hand may be locked ones. The other locked batches are postponed.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use tracing::Instrument;

use crate::context::Context;
use crate::metrics::BatchCounters;
use crate::outcome::postpone_without_limit;
use crate::ready::{Held, Locked, Ready};
use crate::room::Room;

/// The pause before the next attempt.
const PAUSE: Duration = Duration::from_millis(200);

/// A lock of this length is long.
const LONG_LOCK: Duration = Duration::from_secs(5);

/// Returns the batches to the storing tasks after a pause. Batches that may not stay in hand are
/// postponed.
pub(crate) async fn return_later(context: Arc<Context>, batches: Vec<Ready>) {
    let mut staying = Vec::with_capacity(batches.len());
    let mut leaving = Vec::new();
    for mut ready in batches {
        ready.held.in_hand.set_waiting(true);
        match may_stay(&context.room, &mut ready.held) {
            true => staying.push(ready),
            false => leaving.push(ready.held),
        }
    }
    let counters = &context.metrics.batches;
    join_all(leaving.into_iter().map(|held| postpone(held, counters))).await;
    tokio::select! {
        () = tokio::time::sleep(PAUSE) => {}
        // Dropped deliveries return to the queue.
        () = context.released() => return,
    }
    // A strong sender would keep the storing tasks from ending.
    let Some(sender) = context.ready.upgrade() else {
        return;
    };
    for ready in staying {
        // Fails only when the storing tasks have ended; the dropped delivery returns.
        let _ = sender.send(ready).await;
    }
}

fn may_stay(room: &Room, held: &mut Held) -> bool {
    let locked = held.locked.get_or_insert_with(|| Locked {
        since: Instant::now(),
        place: None,
    });
    if locked.place.is_none() && locked.since.elapsed() >= LONG_LOCK {
        locked.place = room.for_locked();
        return locked.place.is_some();
    }
    true
}

async fn postpone(held: Held, counters: &BatchCounters) {
    // The batch is in hand until it is settled.
    let Held {
        delivery,
        in_hand: _in_hand,
        span,
        ..
    } = held;
    let postponed = postpone_without_limit(delivery, "its upload is locked", counters);
    postponed.instrument(span).await;
}
