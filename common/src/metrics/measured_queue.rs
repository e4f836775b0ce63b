//! A queue whose calls are measured. Waiting for a delivery is not measured, because it lasts until
//! a batch arrives.

use std::sync::Arc;

use async_trait::async_trait;

use super::calls::measured;
use crate::batch::EncodedBatch;
use crate::error::PortResult;
use crate::events::ClaimedEvent;
use crate::queue::{BatchPublisher, BatchQueue, Deliveries, EventPublisher, Prefetch, QueueDepth};

/// Measures the calls of another queue.
#[derive(Debug)]
pub(crate) struct MeasuredQueue(pub(crate) Arc<dyn BatchQueue>);

#[async_trait]
impl BatchQueue for MeasuredQueue {
    fn publisher(&self) -> Arc<dyn BatchPublisher> {
        Arc::new(MeasuredPublisher(self.0.publisher()))
    }

    fn event_publisher(&self) -> Option<Arc<dyn EventPublisher>> {
        let publisher = self.0.event_publisher()?;
        Some(Arc::new(MeasuredEventPublisher(publisher)))
    }

    async fn consume(&self, prefetch: Prefetch) -> PortResult<Box<dyn Deliveries>> {
        measured("queue.consume", self.0.consume(prefetch)).await
    }

    async fn consume_suspects(&self) -> PortResult<Box<dyn Deliveries>> {
        measured("queue.consume_suspects", self.0.consume_suspects()).await
    }

    async fn consume_dead_letters(&self) -> PortResult<Box<dyn Deliveries>> {
        measured("queue.consume_dead_letters", self.0.consume_dead_letters()).await
    }

    async fn depth(&self) -> PortResult<QueueDepth> {
        measured("queue.depth", self.0.depth()).await
    }

    async fn ping(&self) -> PortResult<()> {
        measured("queue.ping", self.0.ping()).await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

#[derive(Debug)]
struct MeasuredPublisher(Arc<dyn BatchPublisher>);

#[async_trait]
impl BatchPublisher for MeasuredPublisher {
    async fn publish(&self, batch: &EncodedBatch) -> PortResult<()> {
        measured("queue.publish", self.0.publish(batch)).await
    }
}

#[derive(Debug)]
struct MeasuredEventPublisher(Arc<dyn EventPublisher>);

#[async_trait]
impl EventPublisher for MeasuredEventPublisher {
    async fn publish_events(&self, events: &[ClaimedEvent]) -> PortResult<Vec<u64>> {
        measured("queue.publish_events", self.0.publish_events(events)).await
    }
}
