//! Events for other programs, on a topic exchange.
//!
//! An event is persistent and not mandatory: the programs that want events bind their queues to the
//! exchange, and an event that no queue wants is confirmed all the same.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::super::EventPublisher;
use super::connector::{Connector, close};
use super::envelope::{INSTALLATION_HEADER, PERSISTENT};
use super::topology::declare_exchange;
use crate::error::{ErrorKind, PortError, PortResult};
use crate::events::ClaimedEvent;

const OPERATION: &str = "queue.publish_events";

/// A channel with confirms, which opens at first use, and again after a failure. Calls take turns,
/// so that the events of two calls keep their order.
#[derive(Debug)]
pub(super) struct RabbitEvents {
    connector: Arc<Connector>,
    exchange: String,
    installation: Uuid,
    timeout: Duration,
    channel: Mutex<Option<Channel>>,
}

#[async_trait]
impl EventPublisher for RabbitEvents {
    async fn publish_events(&self, events: &[ClaimedEvent]) -> PortResult<Vec<u64>> {
        let deadline = Instant::now() + self.timeout;
        let mut slot = self.channel.lock().await;
        // The slot stays empty after a failure, or if the caller goes away.
        let started = timeout_at(deadline, self.start(slot.take(), events)).await;
        let (channel, confirms) = started.map_err(|_| self.late())??;
        let (mut confirmed, mut failure) = (Vec::with_capacity(events.len()), None);
        for (event, confirm) in events.iter().zip(confirms) {
            let settled = timeout_at(deadline, confirm).await;
            match settled.map_err(|_| self.late()).and_then(is_confirmed) {
                Ok(true) => confirmed.push(event.number),
                Ok(false) => {}
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            None => *slot = Some(channel),
            // Nothing waits for the end of a broken channel.
            Some(_) => drop(tokio::spawn(close(channel))),
        }
        match (failure, confirmed.is_empty()) {
            (Some(error), true) => Err(error),
            (_, _) => Ok(confirmed),
        }
    }
}

impl RabbitEvents {
    /// A publisher to this exchange.
    pub(super) fn new(
        connector: Arc<Connector>,
        exchange: String,
        installation: Uuid,
        timeout: Duration,
    ) -> Self {
        Self {
            connector,
            exchange,
            installation,
            timeout,
            channel: Mutex::default(),
        }
    }

    /// The broker closes the channel of an event whose exchange was deleted, so the exchange is
    /// declared with each new channel.
    async fn open(&self) -> PortResult<Channel> {
        let channel = self.connector.channel().await?;
        declare_exchange(&channel, &self.exchange).await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .map_err(|error| PortError::unavailable(OPERATION, error))?;
        Ok(channel)
    }

    /// Sends all events on this channel or a new one, and returns what confirms them.
    async fn start(
        &self,
        known: Option<Channel>,
        events: &[ClaimedEvent],
    ) -> PortResult<(Channel, Vec<PublisherConfirm>)> {
        let channel = match known.filter(|known| known.status().connected()) {
            Some(channel) => channel,
            None => self.open().await?,
        };
        let mut confirms = Vec::with_capacity(events.len());
        for event in events {
            let body = serde_json::to_vec(&event.event)
                .map_err(|error| PortError::invalid(OPERATION, error))?;
            let published = channel.basic_publish(
                self.exchange.as_str().into(),
                event.routing_key().into(),
                BasicPublishOptions::default(),
                &body,
                self.properties(event),
            );
            let confirm = published.await;
            confirms.push(confirm.map_err(|error| PortError::unavailable(OPERATION, error))?);
        }
        Ok((channel, confirms))
    }

    fn properties(&self, event: &ClaimedEvent) -> BasicProperties {
        let mut headers = FieldTable::default();
        let installation = AMQPValue::LongString(self.installation.to_string().into());
        headers.insert(INSTALLATION_HEADER.into(), installation);
        BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type("application/json".into())
            .with_app_id("carga".into())
            .with_message_id(event.event.id.to_string().into())
            .with_type(event.event.kind.as_str().into())
            .with_headers(headers)
    }

    fn late(&self) -> PortError {
        let reason = format!("no confirm within {} ms", self.timeout.as_millis());
        PortError::unavailable(OPERATION, reason)
    }
}

/// Whether the broker has taken an event. It refuses one if a queue that wants it is full. The
/// channel is broken after an error.
fn is_confirmed(settled: lapin::Result<Confirmation>) -> PortResult<bool> {
    match settled {
        Ok(Confirmation::Ack(_)) => Ok(true),
        Ok(Confirmation::Nack(_)) => Ok(false),
        Ok(Confirmation::NotRequested) => Err(PortError::new(
            ErrorKind::Internal,
            OPERATION,
            "publisher confirms are off on this channel",
        )),
        Err(error) => Err(PortError::unavailable(OPERATION, error)),
    }
}
