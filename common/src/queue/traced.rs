//! Spans around the calls of the queue. Waiting for a delivery has no span, because it lasts until
//! a batch arrives.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    BatchPublisher, BatchQueue, Deliveries, Delivery, EventPublisher, Prefetch, QueueDepth,
    RetryTier, Settlement,
};
use crate::batch::EncodedBatch;
use crate::error::PortResult;
use crate::events::ClaimedEvent;
use crate::traced::{Traced, call_span, observed, traced_port};

traced_port! { "queue", BatchQueue for dyn BatchQueue {
    async fn depth(&self) -> PortResult<QueueDepth>;
    async fn ping(&self) -> PortResult<()>;
} plain {
    fn publisher(&self) -> Arc<dyn BatchPublisher> {
        Arc::new(Traced(self.0.publisher()))
    }

    fn event_publisher(&self) -> Option<Arc<dyn EventPublisher>> {
        let publisher = self.0.event_publisher()?;
        Some(Arc::new(Traced(publisher)))
    }

    async fn consume(&self, prefetch: Prefetch) -> PortResult<Box<dyn Deliveries>> {
        self.0.consume(prefetch).await.map(traced)
    }

    async fn consume_suspects(&self) -> PortResult<Box<dyn Deliveries>> {
        self.0.consume_suspects().await.map(traced)
    }

    async fn consume_dead_letters(&self) -> PortResult<Box<dyn Deliveries>> {
        self.0.consume_dead_letters().await.map(traced)
    }

    async fn close(&self) {
        self.0.close().await;
    }
}}

traced_port! { "queue", BatchPublisher for dyn BatchPublisher {
    async fn publish(&self, batch: &EncodedBatch) -> PortResult<()> {
        batch.seq = batch.id.seq, rows = batch.rows, bytes = batch.body.len()
    };
}}

traced_port! { "queue", EventPublisher for dyn EventPublisher {
    async fn publish_events(&self, events: &[ClaimedEvent]) -> PortResult<Vec<u64>>;
}}

fn traced(deliveries: Box<dyn Deliveries>) -> Box<dyn Deliveries> {
    Box::new(TracedDeliveries(deliveries))
}

#[derive(Debug)]
struct TracedDeliveries(Box<dyn Deliveries>);

#[async_trait]
impl Deliveries for TracedDeliveries {
    async fn next(&mut self) -> PortResult<Delivery> {
        let delivery = self.0.next().await?;
        Ok(Delivery {
            settlement: Box::new(TracedSettlement(delivery.settlement)),
            ..delivery
        })
    }
}

#[derive(Debug)]
struct TracedSettlement(Box<dyn Settlement>);

#[async_trait]
impl Settlement for TracedSettlement {
    async fn ack(self: Box<Self>) -> PortResult<()> {
        observed(call_span!("queue.ack"), self.0.ack()).await
    }

    async fn retry(self: Box<Self>, body: Bytes, tier: RetryTier) -> PortResult<()> {
        observed(call_span!("queue.retry"), self.0.retry(body, tier)).await
    }

    async fn postpone(self: Box<Self>, body: Bytes) -> PortResult<()> {
        observed(call_span!("queue.postpone"), self.0.postpone(body)).await
    }

    async fn dead_letter(self: Box<Self>, body: Bytes, reason: &str) -> PortResult<()> {
        let span = call_span!("queue.dead_letter");
        observed(span, self.0.dead_letter(body, reason)).await
    }
}
