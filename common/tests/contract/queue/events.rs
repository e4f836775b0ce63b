//! Events for other programs, on RabbitMQ. The queue in a file has no broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carga_common::events::{ClaimedEvent, Event, EventRows};
use carga_common::queue::{BatchQueue, EventPublisher};
use carga_testkit::eventually;
use jiff::Timestamp;
use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicGetOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};
use uuid::Uuid;

use super::fixtures::{Rabbit, Sqlite};
use super::{QueueFixture, Silenceable, TIMEOUT};

/// An event with this number.
fn event(number: u64, tenant: &str, kind: &str) -> Result<ClaimedEvent> {
    Ok(ClaimedEvent {
        number,
        tenant: tenant.parse()?,
        event: Event {
            id: Uuid::from_u128(u128::from(number)),
            kind: kind.to_owned(),
            upload: Uuid::from_u128(7).into(),
            at: Timestamp::UNIX_EPOCH,
            rows: EventRows {
                read: Some(number),
                ..EventRows::default()
            },
        },
    })
}

fn publisher(queue: &Arc<dyn BatchQueue>) -> Result<Arc<dyn EventPublisher>> {
    queue.event_publisher().context("no publisher of events")
}

/// A receiver of events: another program with a queue of its own.
struct Receiver {
    connection: Connection,
    channel: Channel,
    queue: String,
}

impl Receiver {
    /// Binds a new queue with these arguments to the exchange.
    async fn bind(rabbit: &Rabbit, pattern: &str, arguments: FieldTable) -> Result<Self> {
        let connection = rabbit.connect().await?;
        let channel = connection.create_channel().await?;
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare("".into(), options, arguments).await?;
        let receiver = Self {
            queue: declared.name().to_string(),
            connection,
            channel,
        };
        receiver.bind_again(rabbit, pattern).await?;
        Ok(receiver)
    }

    async fn bind_again(&self, rabbit: &Rabbit, pattern: &str) -> Result<()> {
        self.channel
            .queue_bind(
                self.queue.as_str().into(),
                rabbit.queue("events").into(),
                pattern.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await?;
        Ok(())
    }

    async fn next(&self) -> Result<BasicGetMessage> {
        eventually(TIMEOUT, "an event to arrive", async || {
            self.get().await.ok().flatten()
        })
        .await
    }

    async fn get(&self) -> Result<Option<BasicGetMessage>> {
        let options = BasicGetOptions { no_ack: true };
        Ok(self
            .channel
            .basic_get(self.queue.as_str().into(), options)
            .await?)
    }

    async fn close(self) -> Result<()> {
        Ok(self.connection.close(200, "done".into()).await?)
    }
}

/// An event arrives as clients of the API read it, and only in the queues that want it.
pub(super) async fn check_receiving(rabbit: &Rabbit) -> Result<()> {
    let queue = rabbit.open().await?;
    let publisher = publisher(&queue)?;
    // The exchange is there, and no queue wants the event.
    let unwanted = [event(1, "acme", "upload.completed")?];
    ensure!(publisher.publish_events(&unwanted).await? == [1]);
    let acme = Receiver::bind(rabbit, "acme.#", FieldTable::default()).await?;
    let ended = Receiver::bind(rabbit, "*.upload.completed", FieldTable::default()).await?;
    let events = [
        event(2, "acme", "upload.receiving")?,
        event(3, "other", "upload.completed")?,
        event(4, "acme", "upload.completed")?,
    ];
    ensure!(publisher.publish_events(&events).await? == [2, 3, 4]);
    for (receiver, expected) in [(&acme, [0, 2]), (&ended, [1, 2])] {
        for index in expected {
            let event: &ClaimedEvent = &events[index];
            let message = receiver.next().await?;
            ensure!(message.data == serde_json::to_vec(&event.event)?);
            ensure!(message.routing_key.as_str() == event.routing_key());
            let properties = &message.properties;
            let text = |value: &Option<lapin::types::ShortString>| {
                value.as_ref().map(|value| value.as_str().to_owned())
            };
            let id = Some(event.event.id.to_string());
            ensure!(text(properties.message_id()) == id, "{properties:?}");
            let kind = Some(event.event.kind.clone());
            ensure!(text(properties.kind()) == kind, "{properties:?}");
            let json = Some("application/json".to_owned());
            ensure!(text(properties.content_type()) == json, "{properties:?}");
            ensure!(*properties.delivery_mode() == Some(2), "{properties:?}");
        }
        ensure!(receiver.get().await?.is_none());
    }
    acme.close().await?;
    ended.close().await?;
    queue.close().await;
    Ok(())
}

/// A deleted exchange is made again. Its bindings are gone.
pub(super) async fn check_deleted_exchange(rabbit: &Rabbit) -> Result<()> {
    let queue = rabbit.open().await?;
    let publisher = publisher(&queue)?;
    let events = [event(1, "acme", "upload.completed")?];
    publisher.publish_events(&events).await?;
    let receiver = Receiver::bind(rabbit, "#", FieldTable::default()).await?;
    receiver
        .channel
        .exchange_delete(
            rabbit.queue("events").into(),
            ExchangeDeleteOptions::default(),
        )
        .await?;
    let published = async || publisher.publish_events(&events).await.ok();
    let published = eventually(TIMEOUT, "the event to be confirmed", published).await?;
    ensure!(published == [1]);
    receiver.bind_again(rabbit, "#").await?;
    publisher.publish_events(&events).await?;
    receiver.next().await?;
    receiver.close().await?;
    queue.close().await;
    Ok(())
}

/// A queue that is full refuses its events, and the others are confirmed.
pub(super) async fn check_full_queue(rabbit: &Rabbit) -> Result<()> {
    let queue = rabbit.open().await?;
    let publisher = publisher(&queue)?;
    publisher.publish_events(&[]).await?;
    let mut full = FieldTable::default();
    full.insert("x-max-length".into(), AMQPValue::LongInt(1));
    let overflow = AMQPValue::LongString("reject-publish".into());
    full.insert("x-overflow".into(), overflow);
    let receiver = Receiver::bind(rabbit, "full.#", full).await?;
    let events = [
        event(1, "full", "upload.receiving")?,
        event(2, "full", "upload.processing")?,
        event(3, "free", "upload.receiving")?,
    ];
    // The first event fills the queue.
    ensure!(publisher.publish_events(&events).await? == [1, 3]);
    receiver.next().await?;
    ensure!(publisher.publish_events(&events[1..2]).await? == [2]);
    receiver.close().await?;
    queue.close().await;
    Ok(())
}

pub(super) async fn check_silence(rabbit: &Rabbit) -> Result<()> {
    let Silenceable {
        queue, fall_silent, ..
    } = rabbit.open_silenceable().await?;
    let publisher = publisher(&queue)?;
    let events = [event(1, "acme", "upload.completed")?];
    publisher.publish_events(&events).await?;
    let silence = fall_silent.await?;
    let started = Instant::now();
    let published = publisher.publish_events(&events).await;
    ensure!(published.is_err_and(|error| error.is_unavailable()));
    let waited = started.elapsed();
    ensure!(waited < Duration::from_secs(9), "{waited:?}");
    drop(silence);
    queue.close().await;
    Ok(())
}

pub(super) async fn check_no_broker(sqlite: &Sqlite) -> Result<()> {
    let queue = sqlite.open().await?;
    ensure!(queue.event_publisher().is_none());
    queue.close().await;
    Ok(())
}
