//! Publishing: every message is persistent and mandatory, and its confirm has a time limit.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::select_all;
use lapin::message::{BasicReturnMessage, Delivery as Message};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::super::BatchPublisher;
use super::connector::{Connector, close};
use super::envelope::Envelope;
use crate::batch::EncodedBatch;
use crate::error::{ErrorKind, PortError, PortResult};

const OPERATION: &str = "queue.publish";

/// How many retries, postponements and dead letters are published at once. A broker under an alarm
/// answers none of them, and each waits for its timeout.
const SETTLING_PUBLISHERS: usize = 8;

/// A message to publish.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) queue: &'a str,
    pub(super) envelope: &'a Envelope,
    pub(super) body: &'a [u8],
}

/// The publishers of retries, postponements and dead letters. Each sends one message at a time, so
/// a return always belongs to the message that its channel sent last.
#[derive(Debug)]
pub(super) struct SettlingPublishers {
    publishers: Vec<Mutex<Publisher>>,
    /// The tasks that release messages. If the connection closed before they end, both the copy and
    /// the original would stay in the queue.
    pub(super) releases: TaskTracker,
}

impl SettlingPublishers {
    pub(super) fn new(publisher: impl Fn() -> Publisher) -> Self {
        let publishers = (0..SETTLING_PUBLISHERS).map(|_| Mutex::new(publisher()));
        Self {
            publishers: publishers.collect(),
            releases: TaskTracker::new(),
        }
    }

    /// Publishes a message with the first publisher that is free.
    pub(super) async fn send_confirmed(&self, message: Outgoing<'_>) -> PortResult<()> {
        let locks: Vec<_> = self
            .publishers
            .iter()
            .map(|known| known.lock().boxed())
            .collect();
        let (publisher, _, others) = select_all(locks).await;
        // Otherwise the waiting locks would keep the next message from a free publisher.
        drop(others);
        publisher.send_confirmed(message).await
    }
}

/// A channel with confirms. It opens at first use, and again after a failure.
///
/// lapin reports a returned message with the next confirm of its channel. So uploads never share a
/// channel: a return may reach the wrong batch, but always a batch of the right upload.
#[derive(Debug)]
pub(super) struct Publisher {
    connector: Arc<Connector>,
    queue: String,
    installation: Uuid,
    timeout: Duration,
    slot: Mutex<Slot>,
}

/// The current channel, and the number of channels so far.
#[derive(Debug, Default)]
struct Slot {
    channel: Option<Channel>,
    generation: u64,
}

#[async_trait]
impl BatchPublisher for Publisher {
    async fn publish(&self, batch: &EncodedBatch) -> PortResult<()> {
        let envelope = Envelope::first(batch.id, self.installation.to_string());
        self.send_confirmed(Outgoing {
            queue: &self.queue,
            envelope: &envelope,
            body: &batch.body,
        })
        .await
    }
}

impl Publisher {
    /// A publisher of batches, which go to `queue`.
    pub(super) fn new(
        connector: Arc<Connector>,
        queue: &str,
        installation: Uuid,
        timeout: Duration,
    ) -> Self {
        Self {
            connector,
            queue: queue.to_owned(),
            installation,
            timeout,
            slot: Mutex::default(),
        }
    }

    /// Publishes a message, and returns when the broker has made it durable.
    ///
    /// The broker returns a message whose queue was deleted. Then the queues are declared again and
    /// the *returned* message is sent again. It may be another message of this channel. The publish
    /// of that message then got a plain acknowledgement, so its caller will not send it again.
    pub(super) async fn send_confirmed(&self, message: Outgoing<'_>) -> PortResult<()> {
        let deadline = Instant::now() + self.timeout;
        let properties = message.envelope.properties();
        let sent = self.send(message.queue, message.body, properties, deadline);
        let mut returned = sent.await?;
        while let Some(lost) = returned {
            tracing::warn!(
                queue = %lost.routing_key,
                reply = %lost.reply_text,
                "RabbitMQ returned a message; declaring its queue again"
            );
            let is_other = lost.data != message.body;
            let sent = self.send_again(lost, deadline).await;
            returned = sent.map_err(|error| match is_other {
                // The caller of the other message believes that it is durable. This error fails the
                // upload, so that the loss is not silent.
                true => PortError::new(ErrorKind::Internal, OPERATION, error),
                false => error,
            })?;
        }
        Ok(())
    }

    /// Declares the queues and sends a returned message again.
    async fn send_again(
        &self,
        lost: BasicReturnMessage,
        deadline: Instant,
    ) -> PortResult<Option<BasicReturnMessage>> {
        let declared = self.connector.declare_since(Instant::now());
        let declared = timeout_at(deadline, declared).await;
        declared.map_err(|_| self.late())??;
        let Message {
            routing_key,
            properties,
            data,
            ..
        } = lost.delivery;
        self.send(routing_key.as_str(), &data, properties, deadline)
            .await
    }

    /// Publishes a message and waits for its confirm. Returns the message that the broker has
    /// returned, if any.
    async fn send(
        &self,
        queue: &str,
        body: &[u8],
        properties: BasicProperties,
        deadline: Instant,
    ) -> PortResult<Option<BasicReturnMessage>> {
        let sent = timeout_at(deadline, self.start(queue, body, properties)).await;
        let (confirm, generation) = sent.map_err(|_| self.late())??;
        let failure = match timeout_at(deadline, confirm).await {
            Ok(Ok(confirmation)) => return settled(confirmation),
            Ok(Err(error)) => PortError::unavailable(OPERATION, error),
            Err(_) => self.late(),
        };
        self.drop_channel(generation).await;
        Err(failure)
    }

    fn late(&self) -> PortError {
        let reason = format!("no confirm within {} ms", self.timeout.as_millis());
        PortError::unavailable(OPERATION, reason)
    }

    /// Sends one message at a time per channel. lapin numbers a message and queues its frames in
    /// two steps, so two concurrent messages could get each other's confirm. A channel is not
    /// reused after a failed publish or a timeout.
    async fn start(
        &self,
        queue: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> PortResult<(PublisherConfirm, u64)> {
        let mut slot = self.slot.lock().await;
        // Before the channel is taken, so that it stays in its slot if this wait is cancelled.
        let _room = self.connector.room_to_send(body.len()).await;
        let channel = match slot
            .channel
            .take()
            .filter(|known| known.status().connected())
        {
            Some(channel) => channel,
            None => {
                slot.generation += 1;
                self.open().await?
            }
        };
        // Without `mandatory` the broker also confirms a message that reaches no queue.
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let confirm = channel
            .basic_publish("".into(), queue.into(), options, body, properties)
            .await
            .map_err(|error| PortError::unavailable(OPERATION, error))?;
        slot.channel = Some(channel);
        Ok((confirm, slot.generation))
    }

    async fn open(&self) -> PortResult<Channel> {
        let channel = self.connector.channel().await?;
        // Without `confirm_select` the broker sends no confirms.
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .map_err(|error| PortError::unavailable(OPERATION, error))?;
        Ok(channel)
    }

    /// Drops a broken channel, unless another publish has replaced it. The other unconfirmed
    /// publishes on the channel fail too.
    async fn drop_channel(&self, generation: u64) {
        let mut slot = self.slot.lock().await;
        if slot.generation == generation
            && let Some(channel) = slot.channel.take()
        {
            tokio::spawn(close(channel));
        }
    }
}

/// Only a plain acknowledgement means that the message is durable. Returns the message that the
/// broker has returned, if any.
fn settled(confirmation: Confirmation) -> PortResult<Option<BasicReturnMessage>> {
    match confirmation {
        Confirmation::Ack(returned) => Ok(returned),
        Confirmation::Nack(Some(returned)) => Ok(Some(returned)),
        // The channel still works, and a later publish can succeed.
        Confirmation::Nack(None) => Err(PortError::new(
            ErrorKind::Unavailable,
            OPERATION,
            "RabbitMQ refused the message: the queue is full",
        )),
        Confirmation::NotRequested => Err(PortError::new(
            ErrorKind::Internal,
            OPERATION,
            "publisher confirms are off on this channel",
        )),
    }
}
