//! Consuming: manual acknowledgement, a prefetch bounded in bytes, and redelivery of dropped
//! deliveries.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use lapin::Acker;
use lapin::message::Delivery as Message;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Consumer};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::super::{Deliveries, Delivery, Prefetch, RetryTier, Settlement};
use super::connector::REPLY_SUCCESS;
use super::prefetch::AdaptivePrefetch;
use super::publisher::{ATTEMPT_HEADER, EPOCH_HEADER, Outgoing, Publisher, REASON_HEADER};
use super::topology::Topology;
use crate::batch::BatchId;
use crate::error::{ErrorKind, PortError, PortResult};
use crate::upload::Epoch;

const OPERATION: &str = "queue.consume";

/// The time limit for settling a delivery and for starting or cancelling a consumer. lapin 4.12
/// never answers a request that is made while its connection ends.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits at most [`ANSWER_TIMEOUT`] for the broker's answer.
async fn answer<T>(
    operation: &'static str,
    request: impl Future<Output = lapin::Result<T>>,
) -> PortResult<T> {
    match tokio::time::timeout(ANSWER_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| PortError::unavailable(operation, error)),
        Err(_) => {
            let seconds = ANSWER_TIMEOUT.as_secs();
            let reason = format!("no answer from RabbitMQ within {seconds} s");
            Err(PortError::unavailable(operation, reason))
        }
    }
}

pub(super) async fn start(
    channel: Channel,
    topology: &Topology,
    queue: &str,
    prefetch: Prefetch,
    settling: Arc<Mutex<Publisher>>,
) -> PortResult<Box<dyn Deliveries>> {
    let mut deliveries = RabbitDeliveries {
        channel,
        topology: topology.clone(),
        queue: queue.to_owned(),
        settling,
        prefetch: AdaptivePrefetch::new(prefetch),
        consuming: None,
        consumer: None,
        is_cancelled: false,
    };
    deliveries.consumer().await?;
    Ok(Box::new(deliveries))
}

#[derive(Debug)]
struct RabbitDeliveries {
    channel: Channel,
    topology: Topology,
    queue: String,
    settling: Arc<Mutex<Publisher>>,
    prefetch: AdaptivePrefetch,
    /// The task that starts the next consumer.
    consuming: Option<JoinHandle<PortResult<Consumer>>>,
    /// `None` from the end of a cancelled consumer until the start of the next one.
    consumer: Option<Consumer>,
    /// Whether this process has cancelled the consumer. A cancelled consumer still yields the
    /// messages that had arrived, and then ends.
    is_cancelled: bool,
}

impl RabbitDeliveries {
    /// Starts a consumer on its own task. If a dropped future stopped the start half way, lapin
    /// would keep a consumer without a reader.
    fn consume(&self) -> JoinHandle<PortResult<Consumer>> {
        let (channel, queue, count) = (
            self.channel.clone(),
            self.queue.clone(),
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
        }
        let lost = || PortError::unavailable(OPERATION, "the consumer has ended");
        self.consumer.as_mut().ok_or_else(lost)
    }

    async fn message(&mut self) -> PortResult<Message> {
        loop {
            match self.consumer().await?.next().await {
                Some(message) => {
                    return message.map_err(|error| PortError::unavailable(OPERATION, error));
                }
                None if self.is_cancelled => self.consumer = None,
                // The broker cancelled the consumer, or its channel closed after a late
                // acknowledgement or the deletion of the queue.
                None => return Err(PortError::unavailable(OPERATION, "the consumer has ended")),
            }
        }
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
        let cancelled = self
            .channel
            .basic_cancel(tag, BasicCancelOptions::default());
        answer(OPERATION, cancelled).await
    }
}

#[async_trait]
impl Deliveries for RabbitDeliveries {
    async fn next(&mut self) -> PortResult<Delivery> {
        let message = self.message().await?;
        let mut envelope = Envelope::of(&message.properties);
        // `x-death` alone does not mark a dead letter, because a batch that returns from a retry
        // queue has it too.
        let is_dead = self.queue == self.topology.dead;
        envelope.reason = envelope.reason.filter(|_| is_dead);
        let delivery = Delivery {
            body: Bytes::from(message.data),
            id: envelope.id,
            attempt: envelope.attempt,
            redelivered: message.redelivered,
            reason: envelope.reason,
            settlement: Box::new(RabbitSettlement {
                acker: Some(message.acker),
                channel: self.channel.clone(),
                id: envelope.id,
                attempt: envelope.attempt,
                topology: self.topology.clone(),
                settling: Arc::clone(&self.settling),
            }),
        };
        if self.prefetch.observe(delivery.body.len()) {
            self.cancel().await?;
        }
        Ok(delivery)
    }
}

/// The properties of a message.
struct Envelope {
    id: Option<BatchId>,
    attempt: u32,
    reason: Option<String>,
}

impl Envelope {
    fn of(properties: &BasicProperties) -> Self {
        let header = |name: &str| properties.headers().as_ref()?.inner().get(name);
        let number = |name: &str| match header(name)? {
            AMQPValue::LongInt(value) => Some(i64::from(*value)),
            AMQPValue::LongUInt(value) => Some(i64::from(*value)),
            AMQPValue::LongLongInt(value) => Some(*value),
            _ => None,
        };
        let text = |name: &str| match header(name)? {
            AMQPValue::LongString(value) => Some(value.to_string()),
            _ => None,
        };
        let epoch = number(EPOCH_HEADER)
            .and_then(|epoch| i32::try_from(epoch).ok())
            .map(Epoch::from);
        let message_id = properties.message_id().as_ref();
        // RabbitMQ itself made this dead letter if Carga's reason is missing. Its own reason is in
        // `x-death`.
        let by_broker = || {
            // The latest entry is the first one. Older entries may be from an earlier retry.
            let Some(AMQPValue::FieldArray(deaths)) = header("x-death") else {
                return None;
            };
            let Some(AMQPValue::FieldTable(latest)) = deaths.as_slice().first() else {
                return None;
            };
            let Some(AMQPValue::LongString(why)) = latest.inner().get("reason") else {
                return None;
            };
            Some(format!("dead-lettered by RabbitMQ: {why}"))
        };
        Self {
            id: message_id.and_then(|id| BatchId::from_message_id(id.as_str(), epoch?)),
            attempt: number(ATTEMPT_HEADER)
                .and_then(|attempt| u32::try_from(attempt).ok())
                .unwrap_or(1),
            reason: text(REASON_HEADER).or_else(by_broker),
        }
    }
}

#[derive(Debug)]
struct RabbitSettlement {
    /// `None` once the delivery is settled.
    acker: Option<Acker>,
    /// A delivery is settled on its own channel, and lapin closes a channel with its last handle.
    /// This handle lets a worker that has stopped consuming settle its deliveries.
    channel: Channel,
    id: Option<BatchId>,
    attempt: u32,
    topology: Topology,
    settling: Arc<Mutex<Publisher>>,
}

impl RabbitSettlement {
    /// Publishes a copy, and acknowledges the original once the copy is durable. A crash in between
    /// leaves both messages, and the ledger makes one of them a no-op.
    async fn replace(mut self: Box<Self>, copy: Outgoing<'_>) -> PortResult<()> {
        self.settling.lock().await.send_confirmed(copy).await?;
        self.acknowledge().await
    }

    async fn acknowledge(&mut self) -> PortResult<()> {
        let Some(acker) = self.acker.take() else {
            return Ok(());
        };
        match answer("queue.ack", acker.ack(BasicAckOptions::default())).await {
            Ok(true) => Ok(()),
            // The broker redelivers the message after its channel has closed.
            Ok(false) => Err(PortError::unavailable(
                "queue.ack",
                "the channel closed before the acknowledgement",
            )),
            Err(error) => {
                // The broker may still count the delivery as unsettled. It redelivers the message
                // when the channel closes, and the worker opens a new channel.
                let channel = self.channel.clone();
                tokio::spawn(async move {
                    let closing = channel.close(REPLY_SUCCESS, "an acknowledgement failed".into());
                    let _ = answer("queue.close", closing).await;
                });
                Err(error)
            }
        }
    }
}

#[async_trait]
impl Settlement for RabbitSettlement {
    async fn ack(mut self: Box<Self>) -> PortResult<()> {
        self.acknowledge().await
    }

    async fn retry(self: Box<Self>, body: Bytes, tier: RetryTier) -> PortResult<()> {
        let queue = self.topology.retry(tier);
        let copy = Outgoing {
            queue: &queue,
            id: self.id,
            attempt: self.attempt + 1,
            reason: None,
            body: &body,
        };
        self.replace(copy).await
    }

    async fn dead_letter(self: Box<Self>, body: Bytes, reason: &str) -> PortResult<()> {
        let queue = self.topology.dead.clone();
        let copy = Outgoing {
            queue: &queue,
            id: self.id,
            attempt: self.attempt,
            reason: Some(reason),
            body: &body,
        };
        self.replace(copy).await
    }
}

impl Drop for RabbitSettlement {
    fn drop(&mut self) {
        let Some(acker) = self.acker.take() else {
            return;
        };
        // Without a runtime the connection closes too, and then the broker redelivers the message.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let requeue = BasicNackOptions {
                    requeue: true,
                    ..BasicNackOptions::default()
                };
                let _ = answer("queue.nack", acker.nack(requeue)).await;
            });
        }
    }
}
