//! Publishing: every message is persistent and mandatory, and its confirm has a time limit.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::super::BatchPublisher;
use super::connector::{Connector, close};
use crate::batch::{BatchId, EncodedBatch};
use crate::error::{ErrorKind, PortError, PortResult};

const OPERATION: &str = "queue.publish";

pub(super) const EPOCH_HEADER: &str = "carga-epoch";
pub(super) const ATTEMPT_HEADER: &str = "carga-attempt";
pub(super) const REASON_HEADER: &str = "carga-reason";

/// A message to publish.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) queue: &'a str,
    pub(super) id: Option<BatchId>,
    pub(super) attempt: u32,
    pub(super) reason: Option<&'a str>,
    pub(super) body: &'a Bytes,
}

/// A channel with confirms. It opens at first use, and again after a failure.
///
/// lapin reports a returned message with the next confirm of its channel. So uploads never share a
/// channel: a return may fail the wrong batch, but always a batch of the right upload.
#[derive(Debug)]
pub(super) struct Publisher {
    connector: Arc<Connector>,
    queue: String,
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
        self.send_confirmed(Outgoing {
            queue: &self.queue,
            id: Some(batch.id),
            attempt: 1,
            reason: None,
            body: &batch.body,
        })
        .await
    }
}

impl Publisher {
    /// A publisher to `queue`.
    pub(super) fn new(connector: Arc<Connector>, queue: &str, timeout: Duration) -> Self {
        Self {
            connector,
            queue: queue.to_owned(),
            timeout,
            slot: Mutex::default(),
        }
    }

    /// Publishes a message, and returns when the broker has made it durable.
    pub(super) async fn send_confirmed(&self, message: Outgoing<'_>) -> PortResult<()> {
        let deadline = Instant::now() + self.timeout;
        let late = || {
            let reason = format!("no confirm within {} ms", self.timeout.as_millis());
            PortError::unavailable(OPERATION, reason)
        };
        let sent = timeout_at(deadline, self.send(message)).await;
        let (confirm, generation) = sent.map_err(|_| late())??;
        let failure = match timeout_at(deadline, confirm).await {
            Ok(Ok(confirmation)) => return settled(confirmation),
            Ok(Err(error)) => PortError::unavailable(OPERATION, error),
            Err(_) => late(),
        };
        self.drop_channel(generation).await;
        Err(failure)
    }

    /// Sends one message at a time per channel. lapin numbers a message and queues its frames in
    /// two steps, so two concurrent messages could get each other's confirm. A channel is not
    /// reused after a failed publish or a timeout.
    async fn send(&self, message: Outgoing<'_>) -> PortResult<(PublisherConfirm, u64)> {
        let mut slot = self.slot.lock().await;
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
        let (exchange, queue) = ("".into(), message.queue.into());
        let confirm = channel
            .basic_publish(exchange, queue, options, message.body, properties(message))
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

fn properties(message: Outgoing<'_>) -> BasicProperties {
    const PERSISTENT: u8 = 2;
    let mut headers = FieldTable::default();
    headers.insert(ATTEMPT_HEADER.into(), AMQPValue::LongUInt(message.attempt));
    if let Some(reason) = message.reason {
        headers.insert(REASON_HEADER.into(), AMQPValue::LongString(reason.into()));
    }
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into())
        .with_app_id("carga".into());
    if let Some(id) = message.id {
        headers.insert(
            EPOCH_HEADER.into(),
            AMQPValue::LongInt(id.upload.epoch.get()),
        );
        properties = properties.with_message_id(id.to_string().into());
    }
    properties.with_headers(headers)
}

/// Only a plain acknowledgement means that the message is durable.
fn settled(confirmation: Confirmation) -> PortResult<()> {
    match confirmation {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
            let reason = format!(
                "RabbitMQ returned a message for `{}`: {}; was the queue deleted?",
                returned.routing_key, returned.reply_text
            );
            Err(PortError::new(ErrorKind::Internal, OPERATION, reason))
        }
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
