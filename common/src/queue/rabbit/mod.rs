//! The queue on RabbitMQ.
//!
//! Publishing and consuming have separate connections. A broker under an alarm stops reading from
//! a connection that publishes, and that must not delay acknowledgements. lapin's recovery is off,
//! because the callers of this port republish unconfirmed messages themselves.

mod connector;
mod consumer;
mod prefetch;
mod publisher;
mod topology;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::sync::Mutex;

use self::connector::{Connector, close};
use self::publisher::Publisher;
use self::topology::Topology;
use super::{BatchPublisher, BatchQueue, Deliveries, Prefetch, QueueDepth, RetryTier};
use crate::error::{PortError, PortResult};

/// A small prefetch bounds the memory for dead letters and keeps their order.
const DEAD_LETTER_PREFETCH: u16 = 4;

/// Settings of the queue on RabbitMQ.
#[derive(Debug, Clone)]
pub struct RabbitSettings {
    /// `amqp://…`
    pub url: String,
    /// The prefix of every queue's name.
    pub queue: String,
    /// The program's name in the broker's list of connections.
    pub program: String,
    /// A publish without a confirm within this time has failed.
    pub publish_timeout: Duration,
}

/// [`BatchQueue`] on RabbitMQ.
#[derive(Debug)]
pub struct RabbitQueue {
    topology: Topology,
    publishing: Arc<Connector>,
    publish_timeout: Duration,
    consuming: Connector,
    /// The publisher of retries and dead letters. It sends one message at a time, so that a return
    /// always belongs to the message that was sent last.
    settling: Arc<Mutex<Publisher>>,
}

impl RabbitQueue {
    /// Connects and declares the queues.
    pub async fn connect(settings: RabbitSettings) -> PortResult<Self> {
        let topology = Topology::new(&settings.queue);
        let connector = |role: &str| {
            let name = format!("{} {role}", settings.program);
            let timeout = settings.publish_timeout / 2;
            Connector::new(settings.url.clone(), name, topology.clone(), timeout)
        };
        let publishing = Arc::new(connector("publish"));
        let settling = Publisher::new(
            Arc::clone(&publishing),
            &topology.batches,
            settings.publish_timeout,
        );
        let queue = Self {
            publish_timeout: settings.publish_timeout,
            consuming: connector("consume"),
            settling: Arc::new(Mutex::new(settling)),
            publishing,
            topology,
        };
        queue.ping().await?;
        Ok(queue)
    }

    async fn messages_in(&self, queue: &str) -> PortResult<u64> {
        const OPERATION: &str = "queue.depth";
        let channel = self.consuming.channel().await?;
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::durable()
        };
        let declared = channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await
            .map_err(|error| PortError::unavailable(OPERATION, error))?;
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
            self.publish_timeout,
        ))
    }

    async fn consume(&self, prefetch: Prefetch) -> PortResult<Box<dyn Deliveries>> {
        let channel = self.consuming.channel().await?;
        let settling = Arc::clone(&self.settling);
        consumer::start(
            channel,
            &self.topology,
            &self.topology.batches,
            prefetch,
            settling,
        )
        .await
    }

    async fn consume_dead_letters(&self) -> PortResult<Box<dyn Deliveries>> {
        let channel = self.consuming.channel().await?;
        let settling = Arc::clone(&self.settling);
        let queue = &self.topology.dead;
        let prefetch = Prefetch::of_batches(DEAD_LETTER_PREFETCH);
        consumer::start(channel, &self.topology, queue, prefetch, settling).await
    }

    async fn depth(&self) -> PortResult<QueueDepth> {
        let mut depth = QueueDepth {
            ready: self.messages_in(&self.topology.batches).await?,
            dead: self.messages_in(&self.topology.dead).await?,
            retrying: 0,
        };
        for tier in RetryTier::ALL {
            depth.retrying += self.messages_in(&self.topology.retry(tier)).await?;
        }
        Ok(depth)
    }

    async fn ping(&self) -> PortResult<()> {
        close(self.publishing.channel().await?).await;
        Ok(())
    }

    async fn close(&self) {
        self.publishing.close().await;
        self.consuming.close().await;
    }
}
