//! A consumer that reconnects.

use std::sync::Arc;
use std::time::Duration;

use carga_common::error::PortResult;
use carga_common::queue::{Deliveries, Delivery};

use crate::context::Context;

/// The pause between two attempts to consume.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// The queue to consume.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    Batches,
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

    /// Returns the next delivery, or none when the worker stops.
    pub(crate) async fn next(&mut self) -> Option<Delivery> {
        let stop = self.context.stop.clone();
        loop {
            let next = tokio::select! {
                // Polled first, so that a busy queue cannot keep the worker from stopping.
                biased;
                () = stop.cancelled() => return None,
                next = self.try_next() => next,
            };
            let error = match next {
                Ok(delivery) => return Some(delivery),
                Err(error) => error,
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
        Source::Batches => {
            let prefetch = context.settings.prefetch;
            let deliveries = queue.consume(prefetch).await?;
            tracing::info!(prefetch = prefetch.batches, "worker ready");
            Ok(deliveries)
        }
    }
}
