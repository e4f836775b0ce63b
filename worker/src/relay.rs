//! Sends the events of uploads to the broker. The store keeps them until the broker has confirmed
//! them, so they wait there while the broker is away.
//!
//! Every worker does this. The store gives each event to one worker at a time, and a later event of
//! an upload only when the earlier ones are sent. An event is sent twice if its worker ends between
//! the confirm and its record.

use std::sync::Arc;
use std::time::Duration;

use carga_common::error::{PortError, PortResult};
use carga_common::events::ClaimedEvent;
use carga_common::queue::EventPublisher;

use crate::context::Context;
use crate::panics::survive;

/// The most events that are sent together.
const AT_ONCE: u32 = 200;

/// How long other workers leave the events of a worker that has died.
const LEASE: Duration = Duration::from_secs(30);

/// How long the broker may take for the events that are sent together. Much shorter than the lease,
/// so that no other worker sends them meanwhile.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(15);

/// The pause after nothing was left to send.
const PAUSE: Duration = Duration::from_secs(1);

/// The pause after a failure.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(3);

/// Sends events until the worker stops. Without a broker, nobody wants them.
pub(crate) async fn run(context: Arc<Context>) {
    let Some(publisher) = context.backends.queue.event_publisher() else {
        return;
    };
    let mut has_failed = false;
    while !context.stop.is_cancelled() {
        let relayed = survive("sending events", relay(&context, publisher.as_ref())).await;
        let pause = match relayed {
            // Later events of the same uploads may wait.
            Some(Ok(Relayed::All)) => Duration::ZERO,
            Some(Ok(Relayed::Nothing)) => PAUSE,
            Some(Ok(Relayed::NotAll) | Err(_)) | None => PAUSE_AFTER_FAILURE,
        };
        has_failed = log(relayed, has_failed);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = context.stop.cancelled() => break,
        }
    }
}

/// What one step has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relayed {
    /// There was nothing to send.
    Nothing,
    /// All claimed events.
    All,
    /// The broker did not confirm some events.
    NotAll,
}

/// Claims some events, sends them, and records which of them are sent.
async fn relay(context: &Context, publisher: &dyn EventPublisher) -> PortResult<Relayed> {
    let store = context.backends.store.as_ref();
    let claimed = store.claim_events(AT_ONCE, LEASE).await?;
    if claimed.is_empty() {
        return Ok(Relayed::Nothing);
    }
    let published = publish(context, publisher, &claimed).await;
    let sent = published.as_deref().unwrap_or_default();
    let is_left = |number: &u64| !sent.contains(number);
    let numbers = claimed.iter().map(|claimed| claimed.number);
    let left: Vec<u64> = numbers.filter(is_left).collect();
    if !sent.is_empty() {
        store.events_sent(sent).await?;
        context.metrics.events_sent.increment(sent.len() as u64);
    }
    if !left.is_empty() {
        store.release_events(&left).await?;
    }
    published?;
    Ok(match left.is_empty() {
        true => Relayed::All,
        false => Relayed::NotAll,
    })
}

/// Publishes events. A worker that stops does not wait for a broker that is away.
async fn publish(
    context: &Context,
    publisher: &dyn EventPublisher,
    claimed: &[ClaimedEvent],
) -> PortResult<Vec<u64>> {
    let late = |reason: &str| PortError::unavailable("queue.publish_events", reason.to_owned());
    tokio::select! {
        published = tokio::time::timeout(PUBLISH_TIMEOUT, publisher.publish_events(claimed)) => {
            published.unwrap_or_else(|_| Err(late("the broker has not confirmed the events in time")))
        }
        () = context.stop.cancelled() => Err(late("the worker stops")),
    }
}

/// Logs the first failure of several, and the success after them. Returns whether this one failed.
fn log(relayed: Option<PortResult<Relayed>>, had_failed: bool) -> bool {
    match relayed {
        Some(Ok(Relayed::Nothing | Relayed::All)) => {
            if had_failed {
                tracing::info!("events are sent to the broker again");
            }
            false
        }
        Some(Ok(Relayed::NotAll)) if !had_failed => {
            tracing::warn!(
                "the broker refuses events, because a queue that is bound to the exchange of events is full; they wait in the store, and a worker tries again every {} s",
                PAUSE_AFTER_FAILURE.as_secs()
            );
            true
        }
        Some(Err(error)) if !had_failed => {
            tracing::warn!(
                error = error.chain(),
                "events cannot be sent to the broker; they wait in the store, and a worker tries again every {} s",
                PAUSE_AFTER_FAILURE.as_secs()
            );
            true
        }
        Some(Ok(Relayed::NotAll) | Err(_)) => true,
        // A panic is logged where it is caught.
        None => had_failed,
    }
}
