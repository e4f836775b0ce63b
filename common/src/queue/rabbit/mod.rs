//! The queue on RabbitMQ.
//!
//! Publishing and consuming have separate connections. A broker under an alarm stops reading from
//! a connection that publishes, and that must not delay acknowledgements. lapin's recovery is off,
//! because the callers of this port republish unconfirmed messages themselves.

mod connector;
mod consumer;
mod envelope;
mod events;
mod prefetch;
mod publisher;
mod settlement;
mod topology;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use uuid::Uuid;

use self::connector::{Connector, answer, close};
use self::events::RabbitEvents;
use self::publisher::{Publisher, SettlingPublishers};
use self::settlement::Origin;
use self::topology::Topology;
use super::{
    BatchPublisher, BatchQueue, Deliveries, EventPublisher, MessageKind, Prefetch, QueueDepth,
    RetryTier,
};
use crate::error::PortResult;
use crate::settings::SecretUrl;

/// A small prefetch bounds the memory for dead letters and keeps their order.
const DEAD_LETTER_PREFETCH: u16 = 4;

/// How long closing waits for the messages that are being released.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(4);

/// Settings of the queue on RabbitMQ.
#[derive(Debug, Clone)]
pub struct RabbitSettings {
    /// `amqp://…`
    pub url: SecretUrl,
    /// The prefix of every queue's name.
    pub queue: String,
    /// The program's name in the broker's list of connections.
    pub program: String,
    /// A publish without a confirm within this time has failed.
    pub publish_timeout: Duration,
    /// How long a postponed message waits: [`POSTPONEMENT`](super::POSTPONEMENT), or a shorter time
    /// in tests.
    pub postponement: Duration,
    /// The id of this installation of Carga. Every published message carries it.
    pub installation: Uuid,
}

/// [`BatchQueue`] on RabbitMQ.
#[derive(Debug)]
pub struct RabbitQueue {
    topology: Topology,
    publishing: Arc<Connector>,
    publish_timeout: Duration,
    consuming: Arc<Connector>,
    settling: Arc<SettlingPublishers>,
    installation: Uuid,
}

impl RabbitQueue {
    /// Connects and declares the queues.
    pub async fn connect(settings: RabbitSettings) -> PortResult<Self> {
        let topology = Topology::new(&settings.queue, settings.postponement);
        let connector = |role: &str| {
            let name = format!("{} {role}", settings.program);
            let timeout = settings.publish_timeout / 2;
            Connector::new(settings.url.clone(), name, topology.clone(), timeout)
        };
        let publishing = Arc::new(connector("publish"));
        let settling = SettlingPublishers::new(|| {
            Publisher::new(
                Arc::clone(&publishing),
                &topology.batches,
                settings.installation,
                settings.publish_timeout,
            )
        });
        let queue = Self {
            publish_timeout: settings.publish_timeout,
            consuming: Arc::new(connector("consume")),
            settling: Arc::new(settling),
            installation: settings.installation,
            publishing,
            topology,
        };
        queue.publishing.start().await?;
        Ok(queue)
    }

    async fn start(
        &self,
        kind: MessageKind,
        prefetch: Prefetch,
    ) -> PortResult<Box<dyn Deliveries>> {
        let origin = Origin {
            kind,
            // A deleted queue is declared again.
            channel: self.consuming.declared_channel().await?,
            connector: Arc::clone(&self.consuming),
            topology: self.topology.clone(),
            settling: Arc::clone(&self.settling),
            installation: self.installation.to_string(),
        };
        consumer::start(origin, prefetch).await
    }

    async fn messages_in(&self, queue: &str) -> PortResult<u64> {
        let channel = self.consuming.channel().await?;
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::durable()
        };
        let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
        let declared = answer("queue.depth", declared).await?;
        close(channel).await;
        Ok(u64::from(declared.message_count()))
    }
}

#[async_trait]
impl BatchQueue for RabbitQueue {
    fn publisher(&self) -> Arc<dyn BatchPublisher> {
        let connector = Arc::clone(&self.publishing);
        Arc::new(Publisher::new(
            connector,
            &self.topology.batches,
            self.installation,
            self.publish_timeout,
        ))
    }

    fn event_publisher(&self) -> Option<Arc<dyn EventPublisher>> {
        Some(Arc::new(RabbitEvents::new(
            Arc::clone(&self.publishing),
            self.topology.events(),
            self.installation,
            self.publish_timeout,
        )))
    }

    async fn consume(&self, prefetch: Prefetch) -> PortResult<Box<dyn Deliveries>> {
        self.start(MessageKind::Batch, prefetch).await
    }

    async fn consume_suspects(&self) -> PortResult<Box<dyn Deliveries>> {
        let prefetch = Prefetch::of_batches(1);
        self.start(MessageKind::Suspect, prefetch).await
    }

    async fn consume_dead_letters(&self) -> PortResult<Box<dyn Deliveries>> {
        let prefetch = Prefetch::of_batches(DEAD_LETTER_PREFETCH);
        self.start(MessageKind::DeadLetter, prefetch).await
    }

    async fn depth(&self) -> PortResult<QueueDepth> {
        let mut depth = QueueDepth {
            ready: self.messages_in(&self.topology.batches).await?,
            dead: self.messages_in(&self.topology.dead).await?,
            retrying: self.messages_in(&self.topology.wait).await?,
        };
        depth.ready += self.messages_in(&self.topology.suspects).await?;
        for tier in RetryTier::ALL {
            depth.retrying += self.messages_in(&self.topology.retry(tier)).await?;
        }
        Ok(depth)
    }

    async fn ping(&self) -> PortResult<()> {
        self.publishing.declare().await
    }

    async fn close(&self) {
        self.settling.releases.close();
        // The broker returns the other messages, as after any lost connection.
        let _ = tokio::time::timeout(RELEASE_TIMEOUT, self.settling.releases.wait()).await;
        self.publishing.close().await;
        self.consuming.close().await;
    }
}
