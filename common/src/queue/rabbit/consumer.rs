//! Consuming: manual acknowledgement, and a prefetch bounded in bytes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use lapin::Consumer;
use lapin::message::Delivery as Message;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::super::{Deliveries, Delivery, MessageKind, Prefetch, SUSPECT_AFTER};
use super::connector::answer;
use super::envelope::{Counts, Envelope};
use super::prefetch::AdaptivePrefetch;
use super::settlement::{Origin, RabbitSettlement, needs_renewal};
use crate::error::{ErrorKind, PortError, PortResult};

const OPERATION: &str = "queue.consume";

/// How long a consumer without unsettled deliveries may be silent before it is replaced. If a queue
/// is deleted and made again at the same moment, RabbitMQ 3.10 may not cancel its consumers, and
/// they would wait for ever.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);

/// Starts a consumer on the channel of its origin.
pub(super) async fn start(origin: Origin, prefetch: Prefetch) -> PortResult<Box<dyn Deliveries>> {
    let mut deliveries = RabbitDeliveries {
        origin: Arc::new(origin),
        prefetch: AdaptivePrefetch::new(prefetch),
        consuming: None,
        consumer: None,
        is_cancelled: false,
        silent_since: Instant::now(),
    };
    deliveries.consumer().await?;
    Ok(Box::new(deliveries))
}

#[derive(Debug)]
struct RabbitDeliveries {
    origin: Arc<Origin>,
    prefetch: AdaptivePrefetch,
    /// The task that starts the next consumer.
    consuming: Option<JoinHandle<PortResult<Consumer>>>,
    /// `None` from the end of a cancelled consumer until the start of the next one.
    consumer: Option<Consumer>,
    /// Whether this process has cancelled the consumer. A cancelled consumer still yields the
    /// messages that had arrived, and then ends.
    is_cancelled: bool,
    /// When the last message arrived, or the consumer started.
    silent_since: Instant,
}

impl RabbitDeliveries {
    /// Starts a consumer on its own task. If a dropped future stopped the start half way, lapin
    /// would keep a consumer without a reader.
    fn consume(&self) -> JoinHandle<PortResult<Consumer>> {
        let (channel, queue, count) = (
            self.origin.channel.clone(),
            self.origin.queue().to_owned(),
            self.prefetch.count(),
        );
        tokio::spawn(async move {
            let consumer = async {
                // The prefetch is per consumer, because quorum queues refuse one per channel.
                channel.basic_qos(count, BasicQosOptions::default()).await?;
                // With an empty tag the broker chooses a free one.
                let options = BasicConsumeOptions::default();
                channel
                    .basic_consume(queue.into(), "".into(), options, FieldTable::default())
                    .await
            };
            answer(OPERATION, consumer).await
        })
    }

    /// The current consumer, or a new one.
    async fn consumer(&mut self) -> PortResult<&mut Consumer> {
        if self.consumer.is_none() {
            let consuming = self.consuming.take().unwrap_or_else(|| self.consume());
            let consumer = self.consuming.insert(consuming).await;
            self.consuming = None;
            let panicked = |panic| PortError::new(ErrorKind::Internal, OPERATION, panic);
            self.consumer = Some(consumer.map_err(panicked)??);
            self.is_cancelled = false;
            self.silent_since = Instant::now();
        }
        let lost = || PortError::unavailable(OPERATION, "the consumer has ended");
        self.consumer.as_mut().ok_or_else(lost)
    }

    async fn message(&mut self) -> PortResult<Message> {
        loop {
            // Only a new consumer begins a new silence. A repeated call does not.
            self.consumer().await?;
            let silent_until = self.silent_since + LONGEST_SILENCE;
            let next = timeout_at(silent_until, self.consumer().await?.next());
            let Ok(message) = next.await else {
                self.end_silence().await?;
                continue;
            };
            match message {
                Some(message) => {
                    self.silent_since = Instant::now();
                    return message.map_err(|error| PortError::unavailable(OPERATION, error));
                }
                None if self.is_cancelled => self.consumer = None,
                // The broker cancelled the consumer, or its channel closed after a late
                // acknowledgement or the deletion of the queue.
                None => {
                    // Nothing is left to cancel.
                    self.consumer = None;
                    return Err(PortError::unavailable(OPERATION, "the consumer has ended"));
                }
            }
        }
    }

    /// Replaces a consumer that has been silent for too long. The new one has a channel of its own,
    /// because RabbitMQ's side of the old channel may still refer to a deleted queue.
    async fn end_silence(&mut self) -> PortResult<()> {
        self.silent_since = Instant::now();
        // Each unsettled delivery shares the origin. A consumer with a full prefetch gets nothing,
        // and a new one would get as many messages again.
        let has_unsettled = Arc::strong_count(&self.origin) > 1;
        if !has_unsettled {
            let channel = self.origin.connector.declared_channel().await?;
            tracing::debug!("replacing a silent consumer");
            self.release();
            self.origin = Arc::new(self.origin.on(channel));
        }
        Ok(())
    }

    /// Cancels the consumer, because a new prefetch applies only to new consumers. The channel
    /// still settles the messages of the old consumer. The broker sends all other messages to the
    /// new consumer.
    async fn cancel(&mut self) -> PortResult<()> {
        let Some(consumer) = self.consumer.as_ref().filter(|_| !self.is_cancelled) else {
            return Ok(());
        };
        tracing::debug!(
            prefetch = self.prefetch.count(),
            "restarting the consumer to change its prefetch"
        );
        let tag = consumer.tag();
        self.is_cancelled = true;
        let channel = &self.origin.channel;
        let cancelled = channel.basic_cancel(tag, BasicCancelOptions::default());
        answer(OPERATION, cancelled).await
    }

    /// Returns the messages that have arrived and were not taken. If the channel closed while they
    /// are unsettled, RabbitMQ before 4.3 would count this as the end of their holder.
    fn release(&mut self) {
        let (consumer, consuming) = (self.consumer.take(), self.consuming.take());
        // Without a runtime the connection closes too, and then the broker returns the messages.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let origin = Arc::clone(&self.origin);
        let releases = origin.settling.releases.clone();
        let release = releases.track_future(async move {
            let consumer = match consuming {
                Some(consuming) => consuming.await.ok().and_then(Result::ok),
                None => consumer,
            };
            if let Some(consumer) = consumer {
                // After a failure the broker returns the messages when the channel closes.
                let _ = release_arrived(&origin, consumer).await;
            }
        });
        runtime.spawn(release);
    }
}

#[async_trait]
impl Deliveries for RabbitDeliveries {
    async fn next(&mut self) -> PortResult<Delivery> {
        loop {
            let message = self.message().await?;
            let bytes = message.data.len();
            let delivery = delivery(&self.origin, message);
            if self.prefetch.observe(bytes) {
                self.cancel().await?;
            }
            if let Some(delivery) = delivery {
                return Ok(delivery);
            }
        }
    }
}

impl Drop for RabbitDeliveries {
    fn drop(&mut self) {
        self.release();
    }
}

/// Cancels a consumer, and releases the messages that had arrived. The consumer may be cancelled
/// already.
async fn release_arrived(origin: &Arc<Origin>, mut consumer: Consumer) -> PortResult<()> {
    let tag = consumer.tag();
    let cancelled = origin
        .channel
        .basic_cancel(tag, BasicCancelOptions::default());
    answer(OPERATION, cancelled).await?;
    let released = async {
        while let Some(message) = consumer.next().await {
            drop(delivery(origin, message?));
        }
        lapin::Result::Ok(())
    };
    answer(OPERATION, released).await
}

/// The delivery of a message. A suspect among the batches moves to its own queue instead.
fn delivery(origin: &Arc<Origin>, message: Message) -> Option<Delivery> {
    let mut envelope = Envelope::of(&message.properties);
    // `x-death` alone does not mark a dead letter, because a batch that returns from a retry queue
    // has it too.
    let is_dead = origin.kind == MessageKind::DeadLetter;
    envelope.reason = envelope.reason.filter(|_| is_dead);
    let counts = Counts::of(&message.properties);
    // lapin collects the frames of a message in a buffer that doubles, so half of it may be empty.
    let mut data = message.data;
    data.shrink_to_fit();
    let body = Bytes::from(data);
    let is_suspect = origin.kind == MessageKind::Batch && counts.unsettled >= SUSPECT_AFTER;
    let is_renewed = !is_dead && !is_suspect && needs_renewal(counts);
    let renewal = is_renewed.then(|| body.clone());
    let settlement = RabbitSettlement::new(origin, message.acker, envelope.clone(), renewal);
    if is_suspect {
        tracing::info!(
            batch = ?envelope.id,
            deliveries = counts.unsettled,
            "a batch was delivered several times without being settled; moving it to the suspects"
        );
        settlement.set_aside(body);
        return None;
    }
    Some(Delivery {
        body,
        id: envelope.id,
        attempt: envelope.attempt,
        postponed: envelope.postponed,
        redelivered: message.redelivered || envelope.is_returned,
        is_foreign: settlement.is_foreign(),
        reason: envelope.reason,
        settlement: Box::new(settlement),
    })
}
