//! The queue port: batches on their way from the API to the workers.
//!
//! # Promises
//!
//! - A publisher's `publish` returns when the batch is durable (a broker's confirm, a commit), never earlier, and never hangs: it has a
//!   timeout. A publish that failed may still arrive, so a batch can come twice; the ledger makes the second one a no-op.
//! - A delivery is settled once, by value: `ack`, `retry` or `dead_letter`. Dropping it unsettled means redelivery.
//! - `retry` and `dead_letter` are durable before the original is given up.
//! - Attempts are ours: a header counts the retries; the broker's own limit is only a backstop.
//! - A dead letter is kept with its reason.
//! - One holder at a time while its connection lives. Order is not promised.
//! - A consumer has no more unsettled than its [`Prefetch`] says, in number and in bytes; one that is larger than all of it comes all the
//!   same. Where a broker counts messages only, what it had sent before their size changed comes on top.

#[cfg(feature = "rabbit")]
mod rabbit;
#[cfg(feature = "sqlite")]
mod sqlite;

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

/// Carries batches. See the module for its promises.
#[async_trait]
pub trait BatchQueue: fmt::Debug + Send + Sync {
    /// A publisher for one upload's batches. Costs nothing until it is used.
    fn publisher(&self) -> Arc<dyn BatchPublisher>;

    /// Starts taking batches, at most `prefetch` unsettled at a time.
    async fn consume(&self, prefetch: Prefetch) -> PortResult<Box<dyn Deliveries>>;

    /// Starts taking dead letters, to be moved to the store.
    async fn consume_dead_letters(&self) -> PortResult<Box<dyn Deliveries>>;

    /// How many batches wait.
    async fn depth(&self) -> PortResult<QueueDepth>;

    /// Proves that it can be reached.
    async fn ping(&self) -> PortResult<()>;

    /// Says goodbye to the broker.
    async fn close(&self);
}

/// What a consumer may have unsettled at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefetch {
    /// So many batches.
    pub batches: u16,
    /// Fewer when their messages are more bytes than this.
    pub bytes: usize,
}

impl Prefetch {
    /// So many batches, whatever their size.
    pub fn of_batches(batches: u16) -> Self {
        Self {
            batches,
            bytes: usize::MAX,
        }
    }
}

/// Publishes batches of one upload. If the queue loses one in a way that cannot be told apart from its neighbours, one of
/// *this* publisher's batches fails: all of an upload's batches confirmed means all of them durable.
#[async_trait]
pub trait BatchPublisher: fmt::Debug + Send + Sync {
    /// Makes a batch durable. Call it many times at once: the window is the caller's.
    async fn publish(&self, batch: &EncodedBatch) -> PortResult<()>;
}

/// How many messages wait in each queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueDepth {
    /// Ready for a worker.
    pub ready: u64,
    /// Waiting for their retry.
    pub retrying: u64,
    /// Dead, not yet moved to the store.
    pub dead: u64,
}

/// A stream of deliveries.
#[async_trait]
pub trait Deliveries: fmt::Debug + Send {
    /// The next one. An error ends the stream: consume again.
    async fn next(&mut self) -> PortResult<Delivery>;
}

/// How long a batch that failed waits before its next attempt.
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

    /// The one with the longest pause.
    pub const LAST: RetryTier = RetryTier::Third;

    /// The tier for a batch that has failed in `attempt` (counted from 1), or none when its attempts are spent.
    pub fn after(attempt: u32) -> Option<Self> {
        let index = usize::try_from(attempt).ok()?.checked_sub(1)?;
        Self::ALL.get(index).copied()
    }

    /// How long it waits.
    pub fn delay(self) -> Duration {
        Duration::from_secs(match self {
            RetryTier::First => 1,
            RetryTier::Second => 4,
            RetryTier::Third => 16,
        })
    }
}

/// A message in a worker's hands.
#[derive(Debug)]
pub struct Delivery {
    /// The message.
    pub body: Bytes,
    /// The batch it claims to be, as far as its properties tell; the body says it for sure.
    pub id: Option<BatchId>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// It was delivered before and came back.
    pub redelivered: bool,
    /// Why it died, for a dead letter.
    pub reason: Option<String>,
    settlement: Box<dyn Settlement>,
}

/// The adapter's side of a delivery. Dropping it unsettled gives the message back.
#[async_trait]
pub trait Settlement: fmt::Debug + Send + Sync {
    /// Done with it.
    async fn ack(self: Box<Self>) -> PortResult<()>;

    /// Once more after the tier's delay.
    async fn retry(self: Box<Self>, body: Bytes, tier: RetryTier) -> PortResult<()>;

    /// Never again; keep it with the reason.
    async fn dead_letter(self: Box<Self>, body: Bytes, reason: &str) -> PortResult<()>;
}

impl Delivery {
    /// Done with it.
    pub async fn ack(self) -> PortResult<()> {
        self.settlement.ack().await
    }

    /// Once more after the tier's delay, as the next attempt.
    pub async fn retry(self, tier: RetryTier) -> PortResult<()> {
        self.settlement.retry(self.body, tier).await
    }

    /// Never again; keep it with the reason.
    pub async fn dead_letter(self, reason: &str) -> PortResult<()> {
        self.settlement.dead_letter(self.body, reason).await
    }
}

#[cfg(test)]
mod tests {
    use super::RetryTier;

    #[test]
    fn a_batch_is_retried_after_1_4_and_16_seconds_and_then_no_more() {
        let delays: Vec<_> = (1..=4)
            .map(|attempt| RetryTier::after(attempt).map(|tier| tier.delay().as_secs()))
            .collect();
        assert_eq!(delays, [Some(1), Some(4), Some(16), None]);
        assert_eq!(RetryTier::after(0), None);
    }
}
