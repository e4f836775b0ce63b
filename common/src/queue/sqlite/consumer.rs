//! Consuming: leases as many messages as the prefetch leaves room for, and waits for more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::super::{Deliveries, Delivery, Prefetch, RetryTier, Settlement};
use super::messages::End;
use super::writer::{Lease, Request, Taken, ask, closed};
use crate::error::PortResult;
use crate::sqlite::{Database, port_error};

const OPERATION: &str = "queue.consume";

/// Messages leased at once; the writer does other things in between.
const TAKE: usize = 8;

/// A retry whose time has come and another process's publish announce themselves to nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct SqliteDeliveries {
    database: Database,
    requests: mpsc::UnboundedSender<Request>,
    changes: watch::Receiver<usize>,
    dead: bool,
    /// A permit per delivery that is not settled.
    prefetch: Arc<Semaphore>,
    /// A permit per byte of those that were handed out.
    bytes: Arc<Semaphore>,
    /// All of them: a larger message waits for this much.
    most_bytes: u32,
    leased: VecDeque<(Taken, OwnedSemaphorePermit)>,
}

impl SqliteDeliveries {
    pub(super) fn new(
        database: Database,
        requests: mpsc::UnboundedSender<Request>,
        changes: watch::Receiver<usize>,
        dead: bool,
        prefetch: Prefetch,
    ) -> Self {
        let most_bytes = u32::try_from(prefetch.bytes).unwrap_or(u32::MAX);
        Self {
            database,
            requests,
            changes,
            dead,
            prefetch: Arc::new(Semaphore::new(usize::from(prefetch.batches))),
            bytes: Arc::new(Semaphore::new(most_bytes as usize)),
            most_bytes,
            leased: VecDeque::new(),
        }
    }

    /// Leases what there is, or waits until there may be something.
    async fn lease(&mut self) -> PortResult<()> {
        let mut room = Vec::with_capacity(TAKE);
        // The semaphore is never closed; if it were, the consumer would be over.
        let first = Arc::clone(&self.prefetch).acquire_owned().await;
        room.push(first.map_err(|_| closed(OPERATION))?);
        while room.len() < TAKE
            && let Ok(permit) = Arc::clone(&self.prefetch).try_acquire_owned()
        {
            room.push(permit);
        }
        self.changes.mark_unchanged();
        let (dead, most) = (self.dead, room.len());
        let taken = ask(&self.requests, OPERATION, |taken| Request::Take {
            dead,
            most,
            taken,
        })
        .await?;
        if taken.is_empty() {
            drop(room);
            // Both an end of the waiting and a change mean the same: look again.
            let _ = tokio::time::timeout(LOOK_AGAIN, self.changes.changed()).await;
        } else {
            self.leased.extend(taken.into_iter().zip(room));
        }
        Ok(())
    }

    async fn body(&self, id: i64) -> PortResult<Bytes> {
        let (body,): (Vec<u8>,) = sqlx::query_as("SELECT body FROM bodies WHERE id = $1")
            .bind(id)
            .fetch_one(&self.database.readers)
            .await
            .map_err(|error| port_error(OPERATION, error))?;
        Ok(Bytes::from(body))
    }
}

#[async_trait]
impl Deliveries for SqliteDeliveries {
    async fn next(&mut self) -> PortResult<Delivery> {
        while self.leased.is_empty() {
            self.lease().await?;
        }
        let Some((id, reason)) = self
            .leased
            .front()
            .map(|(taken, _)| (taken.message.id, taken.message.reason.clone()))
        else {
            return Err(closed(OPERATION));
        };
        // Both before it is taken off the list: a caller that stops waiting here loses nothing.
        let body = self.body(id).await?;
        let bytes = u32::try_from(body.len())
            .unwrap_or(u32::MAX)
            .min(self.most_bytes);
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(bytes).await;
        let bytes = bytes.map_err(|_| closed(OPERATION))?;
        let Some((taken, prefetched)) = self.leased.pop_front() else {
            return Err(closed(OPERATION));
        };
        Ok(Delivery {
            body,
            id: Some(taken.message.batch),
            attempt: taken.message.attempt,
            redelivered: taken.message.deliveries > 1,
            reason,
            settlement: Box::new(SqliteSettlement {
                lease: taken.lease,
                _prefetched: (prefetched, bytes),
            }),
        })
    }
}

#[derive(Debug)]
struct SqliteSettlement {
    lease: Lease,
    _prefetched: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

#[async_trait]
impl Settlement for SqliteSettlement {
    async fn ack(self: Box<Self>) -> PortResult<()> {
        self.lease.settle(End::Ack).await
    }

    /// The body is still there, and is what was delivered.
    async fn retry(self: Box<Self>, _body: Bytes, tier: RetryTier) -> PortResult<()> {
        self.lease.settle(End::Retry(tier)).await
    }

    async fn dead_letter(self: Box<Self>, _body: Bytes, reason: &str) -> PortResult<()> {
        self.lease.settle(End::DeadLetter(reason.to_owned())).await
    }
}
