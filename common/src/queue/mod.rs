//! The queue port: batches on their way from the API to the workers.
//!
//! # Promises
//!
//! - `publish` returns when the batch is durable (a broker's confirm, a commit) or when its
//!   timeout has passed. A publish that failed may still arrive, so a batch can be delivered
//!   twice. The ledger makes the second delivery a no-op.
//! - A delivery is settled once, by value: `ack`, `retry`, `postpone` or `dead_letter`. A delivery
//!   that is dropped unsettled is redelivered.
//! - `retry`, `postpone` and `dead_letter` make the new message durable before they remove the
//!   original.
//! - A header counts the attempts. The broker's own counts only show which messages are suspects,
//!   and limit their deliveries.
//! - A message keeps the id of the installation that published it, until it is removed.
//! - A message that was delivered [`SUSPECT_AFTER`] times without being settled is a *suspect*: it
//!   may have made its holders crash. `consume_suspects` alone delivers suspects, one at a time per
//!   process. After [`SUSPECT_LIMIT`] further deliveries without a settlement a suspect becomes a
//!   dead letter. The messages that were held beside it become suspects too. They are then
//!   delivered alone, and settle.
//! - A delivery that is dropped does not count as unsettled: its holder has not ended. The messages
//!   that had arrived for a dropped consumer do not count either.
//! - A queue that is deleted while processes are connected is created again.
//! - A dead letter is kept with its reason.
//! - A message has one holder at a time, until the holder's connection ends. Messages may arrive
//!   in any order.
//! - A consumer's unsettled messages stay within its [`Prefetch`], in number and in bytes. A
//!   message that is larger than the whole prefetch is delivered alone. A broker that limits only
//!   the number can exceed the bytes: its limit follows a change of the size with a delay.
//!
//! [`EventPublisher`] has its own promises:
//!
//! - `publish_events` returns when the broker has confirmed all events or its timeout has passed.
//!   It names the confirmed ones. The broker may have the others, too.
//! - The events of one call are published in their order.
//! - The broker confirms an event for which no queue is bound, and drops it.
//! - An exchange that is deleted while processes are connected is created again.

#[cfg(feature = "rabbit")]
mod rabbit;
#[cfg(feature = "sqlite")]
mod sqlite;
mod traced;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

#[cfg(feature = "rabbit")]
pub use rabbit::{RabbitQueue, RabbitSettings};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteQueue, SqliteQueueSettings};

use crate::batch::{BatchId, EncodedBatch};
use crate::error::PortResult;
use crate::events::ClaimedEvent;
use crate::metrics::calls::measured;

/// The queue of batches. See the module for its promises.
#[async_trait]
pub trait BatchQueue: fmt::Debug + Send + Sync {
    /// A publisher for the batches of one upload. It connects at its first publish.
    fn publisher(&self) -> Arc<dyn BatchPublisher>;

    /// Starts a consumer of batches.
    async fn consume(&self, prefetch: Prefetch) -> PortResult<Box<dyn Deliveries>>;

    /// Starts a consumer of suspects, which delivers one message at a time. On RabbitMQ a consumer
    /// of batches moves the suspects to their queue, so a worker runs both.
    async fn consume_suspects(&self) -> PortResult<Box<dyn Deliveries>>;

    /// Starts a consumer of dead letters, which a worker moves to the store.
    async fn consume_dead_letters(&self) -> PortResult<Box<dyn Deliveries>>;

    /// A publisher of events for other programs; `None` if there is no broker to which they could
    /// connect.
    fn event_publisher(&self) -> Option<Arc<dyn EventPublisher>>;

    /// Counts the waiting messages.
    async fn depth(&self) -> PortResult<QueueDepth>;

    /// Proves that the queue can be reached, and creates it again if it was deleted.
    async fn ping(&self) -> PortResult<()>;

    /// Closes all connections.
    async fn close(&self);
}

/// The most that a consumer may hold unsettled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefetch {
    /// The most batches.
    pub batches: u16,
    /// The most bytes of their messages.
    pub bytes: usize,
}

impl Prefetch {
    /// Limits the number of batches, but not their bytes.
    pub fn of_batches(batches: u16) -> Self {
        Self {
            batches,
            bytes: usize::MAX,
        }
    }
}

/// Publishes the batches of one upload. A broker may report a lost batch without its id. Then any
/// one of *this* publisher's batches fails. So all batches of an upload are durable once all of
/// them are confirmed.
#[async_trait]
pub trait BatchPublisher: fmt::Debug + Send + Sync {
    /// Makes a batch durable. The caller limits the number of concurrent calls.
    async fn publish(&self, batch: &EncodedBatch) -> PortResult<()>;
}

/// Publishes events for other programs. See the module for its promises.
#[async_trait]
pub trait EventPublisher: fmt::Debug + Send + Sync {
    /// Publishes events, in their order. Returns the numbers of those that are confirmed.
    async fn publish_events(&self, events: &[ClaimedEvent]) -> PortResult<Vec<u64>>;
}

/// How many messages wait in each queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueDepth {
    /// Messages that a worker can take now, including suspects.
    pub ready: u64,
    /// Messages that wait for their retry, or were postponed.
    pub retrying: u64,
    /// Dead letters that are not in the store yet.
    pub dead: u64,
}

/// A stream of deliveries.
#[async_trait]
pub trait Deliveries: fmt::Debug + Send {
    /// The next delivery. An error ends the stream, and the caller starts a new consumer.
    async fn next(&mut self) -> PortResult<Delivery>;
}

/// How long a postponed message waits.
pub const POSTPONEMENT: Duration = Duration::from_secs(30);

/// After this many deliveries without a settlement a message is a suspect. A connection that breaks
/// counts like the end of its holder, because the broker cannot tell them apart. So five broker
/// failures make suspects of the messages in hand. They are processed one at a time, which is slow
/// but harmless.
pub const SUSPECT_AFTER: u32 = 5;

/// After this many further deliveries without a settlement a suspect becomes a dead letter. This is
/// more than [`SUSPECT_AFTER`], because a suspect that waits for its turn is counted too when
/// another batch ends the worker. That other batch becomes a suspect before the waiting one becomes
/// a dead letter.
pub const SUSPECT_LIMIT: u32 = 8;

const _: () = assert!(SUSPECT_LIMIT > SUSPECT_AFTER);

/// The kinds of messages. A consumer takes one kind.
#[cfg(any(feature = "rabbit", feature = "sqlite"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageKind {
    Batch,
    Suspect,
    DeadLetter,
}

/// The reason of a dead letter whose holders ended.
#[cfg(any(feature = "rabbit", feature = "sqlite"))]
fn unsettled_reason(deliveries: u32) -> String {
    format!("delivered {deliveries} times without being settled")
}

/// How long a failed batch waits before its next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryTier {
    /// One second.
    First,
    /// Four seconds.
    Second,
    /// Sixteen seconds.
    Third,
}

impl RetryTier {
    /// All tiers in order.
    pub const ALL: [RetryTier; 3] = [RetryTier::First, RetryTier::Second, RetryTier::Third];

    /// The tier with the longest delay.
    pub const LAST: RetryTier = RetryTier::Third;

    /// The tier after a failure in `attempt` (counted from 1), or `None` if no attempt is
    /// left.
    pub fn after(attempt: u32) -> Option<Self> {
        let index = usize::try_from(attempt).ok()?.checked_sub(1)?;
        Self::ALL.get(index).copied()
    }

    /// The delay of the tier.
    pub fn delay(self) -> Duration {
        Duration::from_secs(match self {
            RetryTier::First => 1,
            RetryTier::Second => 4,
            RetryTier::Third => 16,
        })
    }
}

/// A message that a worker holds.
#[derive(Debug)]
pub struct Delivery {
    /// The message body.
    pub body: Bytes,
    /// The batch id in the message's properties, if it is readable. If it differs from the id in
    /// the body, the body counts.
    pub id: Option<BatchId>,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// How often the message was postponed by the installation that published it.
    pub postponed: u32,
    /// Whether the message was delivered before and returned.
    pub redelivered: bool,
    /// Whether another installation of Carga published the message. A message without an
    /// installation is from an older build and counts as this installation's own.
    pub is_foreign: bool,
    /// The reason, if this is a dead letter.
    pub reason: Option<String>,
    settlement: Box<dyn Settlement>,
}

/// The adapter's part of a delivery. Dropping it unsettled returns the message.
#[async_trait]
pub trait Settlement: fmt::Debug + Send + Sync {
    /// Removes the message.
    async fn ack(self: Box<Self>) -> PortResult<()>;

    /// Delivers the message again after the tier's delay.
    async fn retry(self: Box<Self>, body: Bytes, tier: RetryTier) -> PortResult<()>;

    /// Delivers the message again after [`POSTPONEMENT`].
    async fn postpone(self: Box<Self>, body: Bytes) -> PortResult<()>;

    /// Moves the message to the dead letters, with the reason.
    async fn dead_letter(self: Box<Self>, body: Bytes, reason: &str) -> PortResult<()>;
}

impl Delivery {
    /// Removes the message: its batch is stored.
    pub async fn ack(self) -> PortResult<()> {
        measured("queue.ack", self.settlement.ack()).await
    }

    /// Delivers the message again after the tier's delay, as the next attempt.
    pub async fn retry(self, tier: RetryTier) -> PortResult<()> {
        let retried = self.settlement.retry(self.body, tier);
        measured("queue.retry", retried).await
    }

    /// Delivers the message again after [`POSTPONEMENT`], as the same attempt.
    pub async fn postpone(self) -> PortResult<()> {
        let postponed = self.settlement.postpone(self.body);
        measured("queue.postpone", postponed).await
    }

    /// Moves the message to the dead letters, with the reason.
    pub async fn dead_letter(self, reason: &str) -> PortResult<()> {
        let moved = self.settlement.dead_letter(self.body, reason);
        measured("queue.dead_letter", moved).await
    }
}

#[cfg(test)]
mod tests {
    use super::RetryTier;

    #[test]
    fn a_batch_is_retried_after_1_4_and_16_seconds() {
        let delays: Vec<_> = (1..=4)
            .map(|attempt| RetryTier::after(attempt).map(|tier| tier.delay().as_secs()))
            .collect();
        assert_eq!(delays, [Some(1), Some(4), Some(16), None]);
        assert_eq!(RetryTier::after(0), None);
    }
}
