//! Consuming: leases messages while the prefetch has room, and waits for new ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::super::{Deliveries, Delivery, MessageKind, Prefetch, RetryTier, Settlement};
use super::messages::Outcome;
use super::writer::{Lease, Leased, Request, ask, closed};
use crate::error::PortResult;
use crate::sqlite::{Database, port_error};

const OPERATION: &str = "queue.consume";

/// The most messages of one lease request. A small group lets other requests run in between.
const LEASE_GROUP: usize = 8;

/// How often an empty queue is polled. The writer does not announce a retry that has become
/// available, or a publish by another process.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct SqliteDeliveries {
    database: Database,
    requests: mpsc::UnboundedSender<Request>,
    changes: watch::Receiver<usize>,
    kind: MessageKind,
    /// How long a postponed message waits.
    postponement: Duration,
    /// One permit per unsettled delivery.
    prefetch: Arc<Semaphore>,
    /// One permit per byte of the unsettled deliveries that `next` has returned.
    bytes: Arc<Semaphore>,
    /// The number of all byte permits. A larger message takes all of them.
    max_bytes: u32,
    leased: VecDeque<(Leased, OwnedSemaphorePermit)>,
}

impl SqliteDeliveries {
    pub(super) fn new(
        database: Database,
        requests: mpsc::UnboundedSender<Request>,
        changes: watch::Receiver<usize>,
        kind: MessageKind,
        postponement: Duration,
        prefetch: Prefetch,
    ) -> Self {
        let max_bytes = u32::try_from(prefetch.bytes).unwrap_or(u32::MAX);
        Self {
            database,
            requests,
            changes,
            kind,
            postponement,
            prefetch: Arc::new(Semaphore::new(usize::from(prefetch.batches))),
            bytes: Arc::new(Semaphore::new(max_bytes as usize)),
            max_bytes,
            leased: VecDeque::new(),
        }
    }

    /// Leases available messages, or waits until some may be available.
    async fn lease(&mut self) -> PortResult<()> {
        let mut room = Vec::with_capacity(LEASE_GROUP);
        // The semaphore is never closed.
        let first = Arc::clone(&self.prefetch).acquire_owned().await;
        room.push(first.map_err(|_| closed(OPERATION))?);
        while room.len() < LEASE_GROUP
            && let Ok(permit) = Arc::clone(&self.prefetch).try_acquire_owned()
        {
            room.push(permit);
        }
        self.changes.mark_unchanged();
        let (kind, limit) = (self.kind, room.len());
        let leased = ask(&self.requests, OPERATION, |done| Request::Lease {
            kind,
            limit,
            done,
        })
        .await?;
        if leased.is_empty() {
            drop(room);
            // After a change or a timeout the caller leases again. A message becomes a suspect when
            // its holder ends, and the writer does not announce that.
            match kind {
                MessageKind::Suspect => tokio::time::sleep(POLL_INTERVAL).await,
                MessageKind::Batch | MessageKind::DeadLetter => {
                    let _ = tokio::time::timeout(POLL_INTERVAL, self.changes.changed()).await;
                }
            }
        } else {
            self.leased.extend(leased.into_iter().zip(room));
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
            .map(|(leased, _)| (leased.message.id, leased.message.reason.clone()))
        else {
            return Err(closed(OPERATION));
        };
        // The message stays in `leased` across both awaits, so that a caller that drops this future
        // does not lose it.
        let body = self.body(id).await?;
        let bytes = u32::try_from(body.len())
            .unwrap_or(u32::MAX)
            .min(self.max_bytes);
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(bytes).await;
        let bytes = bytes.map_err(|_| closed(OPERATION))?;
        let Some((leased, prefetched)) = self.leased.pop_front() else {
            return Err(closed(OPERATION));
        };
        Ok(Delivery {
            body,
            id: Some(leased.message.batch),
            attempt: leased.message.attempt,
            postponed: leased.message.postponed,
            redelivered: leased.message.deliveries > 1,
            is_foreign: leased.message.is_foreign,
            reason,
            settlement: Box::new(SqliteSettlement {
                lease: leased.lease,
                is_foreign: leased.message.is_foreign,
                postponement: self.postponement,
                _prefetched: (prefetched, bytes),
            }),
        })
    }
}

#[derive(Debug)]
struct SqliteSettlement {
    lease: Lease,
    is_foreign: bool,
    postponement: Duration,
    _prefetched: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

#[async_trait]
impl Settlement for SqliteSettlement {
    async fn ack(self: Box<Self>) -> PortResult<()> {
        self.lease.settle(Outcome::Ack).await
    }

    /// The queue still has the body, so the caller's copy is not written.
    async fn retry(self: Box<Self>, _body: Bytes, tier: RetryTier) -> PortResult<()> {
        self.lease.settle(Outcome::Retry(tier)).await
    }

    async fn postpone(self: Box<Self>, _body: Bytes) -> PortResult<()> {
        let postponed = Outcome::Postpone {
            delay: self.postponement,
            is_counted: !self.is_foreign,
        };
        self.lease.settle(postponed).await
    }

    async fn dead_letter(self: Box<Self>, _body: Bytes, reason: &str) -> PortResult<()> {
        self.lease
            .settle(Outcome::DeadLetter(reason.to_owned()))
            .await
    }
}
