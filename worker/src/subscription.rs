//! A consumer that reconnects, and pauses while the store is away.

use std::sync::Arc;
use std::time::Duration;

use carga_common::error::PortResult;
use carga_common::queue::{Deliveries, Delivery};

use crate::context::Context;
use crate::progress_watch::InHand;

/// The pause between two attempts to consume.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// The queue to consume.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    Batches,
    Suspects,
    DeadLetters,
}

/// A consumer of one queue that reconnects until the worker stops.
#[derive(Debug)]
pub(crate) struct Subscription {
    context: Arc<Context>,
    source: Source,
    deliveries: Option<Box<dyn Deliveries>>,
}

impl Subscription {
    pub(crate) fn new(context: Arc<Context>, source: Source) -> Self {
        Self {
            context,
            source,
            deliveries: None,
        }
    }

    /// Starts the consumer, so that its messages arrive before the first call of `next`. If this
    /// fails, `next` tries again.
    pub(crate) async fn start(&mut self) {
        let deliveries = tokio::select! {
            deliveries = consume(&self.context, self.source) => deliveries,
            () = self.context.stop.cancelled() => return,
        };
        self.deliveries = deliveries.ok();
    }

    /// Like [`next`](Self::next). The batch is in hand at once, even if it must wait for room, so
    /// that no other worker takes it for lost.
    pub(crate) async fn next_in_hand(&mut self) -> Option<(Delivery, InHand)> {
        let delivery = self.next().await?;
        let upload = delivery.id.map(|id| id.upload.id);
        let in_hand = self.context.progress_watch.take(upload);
        Some((delivery, in_hand))
    }

    /// Returns the next delivery, or none when the worker stops.
    pub(crate) async fn next(&mut self) -> Option<Delivery> {
        let context = Arc::clone(&self.context);
        let (stop, store_contact) = (&context.stop, &context.store_contact);
        loop {
            let next = tokio::select! {
                // Polled first, so that a busy queue cannot keep the worker from stopping.
                biased;
                () = stop.cancelled() => return None,
                () = store_contact.away() => None,
                next = self.try_next() => Some(next),
            };
            let error = match next {
                Some(Ok(delivery)) => return Some(delivery),
                Some(Err(error)) => error,
                None => {
                    self.pause().await;
                    continue;
                }
            };
            self.deliveries = None;
            tracing::warn!(
                source = ?self.source,
                error = error.chain(),
                "a consumer failed; reconnecting"
            );
            tokio::select! {
                () = tokio::time::sleep(RECONNECT_PAUSE) => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    /// Gives the messages that have arrived back to the queue, for other workers. Completes when
    /// the store is back or the worker stops.
    async fn pause(&mut self) {
        self.deliveries = None;
        tokio::select! {
            () = self.context.store_contact.back() => {}
            () = self.context.stop.cancelled() => {}
        }
    }

    async fn try_next(&mut self) -> PortResult<Delivery> {
        let deliveries = match &mut self.deliveries {
            Some(deliveries) => deliveries,
            None => {
                let consuming = consume(&self.context, self.source).await?;
                self.deliveries.insert(consuming)
            }
        };
        deliveries.next().await
    }
}

async fn consume(context: &Context, source: Source) -> PortResult<Box<dyn Deliveries>> {
    let queue = &context.backends.queue;
    match source {
        Source::DeadLetters => queue.consume_dead_letters().await,
        Source::Suspects => queue.consume_suspects().await,
        Source::Batches => {
            let prefetch = context.settings.prefetch;
            let deliveries = queue.consume(prefetch).await?;
            context.progress_watch.record_connection();
            tracing::info!(prefetch = prefetch.batches, "worker ready");
            Ok(deliveries)
        }
    }
}
