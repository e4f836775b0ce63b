//! The queue in SQLite: one file that is as durable as a broker.
//!
//! - One task makes all writes: publishes, leases and settlements. Requests that wait for this
//!   task share a transaction, so thirty-two concurrent publishes cost one `fsync`.
//! - A delivery is a *lease*: the message names its holder, and its lease number grows with every
//!   delivery. A settlement names the lease number (a fencing token), so a holder that has lost
//!   the lease changes nothing.
//! - A holder writes a heartbeat every few seconds. Without heartbeats its leases expire.
//! - A publish into a long queue pauses until the queue is shorter, for a limited time. Otherwise
//!   an upload that is published faster than it is stored would make the file as long as itself.
//! - Bodies have their own table. SQLite rewrites a whole row when one of its columns changes, and
//!   a lease must not rewrite a body of a hundred kilobytes.

mod consumer;
mod messages;
mod schema;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use self::consumer::SqliteDeliveries;
use self::messages::{HOLDER_TIMEOUT, Holder};
use self::writer::{LONG_QUEUE, Request, Writer, ask, closed};
use super::{
    BatchPublisher, BatchQueue, Deliveries, EventPublisher, MessageKind, Prefetch, QueueDepth,
};
use crate::batch::EncodedBatch;
use crate::error::{PortError, PortResult};
use crate::sqlite::{Database, now_ms, port_error};

/// A small prefetch bounds the memory for dead letters and keeps their order.
const DEAD_LETTER_PREFETCH: u16 = 4;

/// How long a publish waits for a long queue to become shorter. The pause is limited, because a
/// queue without consumers must still accept messages.
const LONG_QUEUE_PAUSE: Duration = Duration::from_millis(250);

/// An empty queue whose file has more free bytes than this is vacuumed at the start.
const VACUUM_THRESHOLD_BYTES: i64 = 64 << 20;

/// Settings of the queue in SQLite.
#[derive(Debug, Clone)]
pub struct SqliteQueueSettings {
    /// The file. It is created if it is missing; its directory must exist.
    pub file: PathBuf,
    /// A publish without a commit within this time has failed.
    pub publish_timeout: Duration,
    /// How long a postponed message waits: [`POSTPONEMENT`](super::POSTPONEMENT), or a shorter time
    /// in tests.
    pub postponement: Duration,
    /// The id of this installation of Carga. Every published message carries it.
    pub installation: Uuid,
    /// The caller has made sure that no other process uses the file. Every lease then belongs to
    /// a process that has ended.
    pub sole_user: bool,
}

/// [`BatchQueue`] in SQLite.
#[derive(Debug)]
pub struct SqliteQueue {
    database: Database,
    requests: mpsc::UnboundedSender<Request>,
    /// The number of messages, counted up to [`LONG_QUEUE`]. The writer sends it after every commit
    /// that may have made a message available or settled one.
    changes: watch::Receiver<usize>,
    publish_timeout: Duration,
    postponement: Duration,
}

impl SqliteQueue {
    /// Opens the file, or creates it.
    pub async fn open(settings: SqliteQueueSettings) -> PortResult<Self> {
        Self::open_renewing(settings, HOLDER_TIMEOUT / 3).await
    }

    /// Opens the file as [`open`](Self::open) does. The leases are renewed after each pause.
    async fn open_renewing(settings: SqliteQueueSettings, pause: Duration) -> PortResult<Self> {
        const OPERATION: &str = "queue.connect";
        let database = Database::open(OPERATION, &settings.file).await?;
        schema::update(OPERATION, &database, &settings.file).await?;
        if settings.sole_user
            && let Err(error) = clean_up(&database).await
        {
            // A full disk must not stop the program from starting.
            let error = port_error("queue.clean_up", error);
            tracing::warn!(
                error = error.chain(),
                "could not release the leases of ended processes; they expire by themselves"
            );
        }
        let (requests, inbox) = mpsc::unbounded_channel();
        let (announce, changes) = watch::channel(0);
        let writer = Writer {
            database: database.clone(),
            holder: Holder {
                id: Uuid::new_v4().to_string(),
                installation: settings.installation.to_string(),
            },
            requests: requests.downgrade(),
            announce,
            renewal_pause: pause,
            unreleased: Vec::new(),
        };
        tokio::spawn(writer.run(inbox));
        Ok(Self {
            database,
            requests,
            changes,
            publish_timeout: settings.publish_timeout,
            postponement: settings.postponement,
        })
    }

    fn deliveries(&self, kind: MessageKind, prefetch: Prefetch) -> Box<dyn Deliveries> {
        Box::new(SqliteDeliveries::new(
            self.database.clone(),
            self.requests.clone(),
            self.changes.clone(),
            kind,
            self.postponement,
            prefetch,
        ))
    }
}

/// Releases the leases of processes that have ended, and shrinks the file after a long queue.
async fn clean_up(database: &Database) -> sqlx::Result<()> {
    let writer = database.writer();
    sqlx::query("DELETE FROM holders").execute(writer).await?;
    let (is_empty, free): (bool, i64) = sqlx::query_as(
        "SELECT NOT EXISTS (SELECT 1 FROM messages), freelist_count * page_size
         FROM pragma_freelist_count, pragma_page_size",
    )
    .fetch_one(writer)
    .await?;
    if is_empty && free > VACUUM_THRESHOLD_BYTES {
        sqlx::query("VACUUM").execute(writer).await?;
    }
    Ok(())
}

#[async_trait]
impl BatchQueue for SqliteQueue {
    fn publisher(&self) -> Arc<dyn BatchPublisher> {
        Arc::new(SqlitePublisher {
            requests: self.requests.clone(),
            changes: self.changes.clone(),
            timeout: self.publish_timeout,
        })
    }

    fn event_publisher(&self) -> Option<Arc<dyn EventPublisher>> {
        None
    }

    async fn consume(&self, prefetch: Prefetch) -> PortResult<Box<dyn Deliveries>> {
        Ok(self.deliveries(MessageKind::Batch, prefetch))
    }

    async fn consume_suspects(&self) -> PortResult<Box<dyn Deliveries>> {
        Ok(self.deliveries(MessageKind::Suspect, Prefetch::of_batches(1)))
    }

    async fn consume_dead_letters(&self) -> PortResult<Box<dyn Deliveries>> {
        let prefetch = Prefetch::of_batches(DEAD_LETTER_PREFETCH);
        Ok(self.deliveries(MessageKind::DeadLetter, prefetch))
    }

    async fn depth(&self) -> PortResult<QueueDepth> {
        let (ready, retrying, dead): (i64, i64, i64) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE NOT dead AND available_at <= $1 AND h.id IS NULL),
                    count(*) FILTER (WHERE NOT dead AND available_at > $1),
                    count(*) FILTER (WHERE dead AND h.id IS NULL)
             FROM messages m LEFT JOIN holders h ON h.id = m.holder AND h.expires_at > $1",
        )
        .bind(now_ms())
        .fetch_one(&self.database.readers)
        .await
        .map_err(|error| port_error("queue.depth", error))?;
        Ok(QueueDepth {
            ready: ready.cast_unsigned(),
            retrying: retrying.cast_unsigned(),
            dead: dead.cast_unsigned(),
        })
    }

    async fn ping(&self) -> PortResult<()> {
        const OPERATION: &str = "queue.ping";
        if self.requests.is_closed() {
            return Err(closed(OPERATION));
        }
        sqlx::query("SELECT 1 FROM messages LIMIT 1")
            .execute(&self.database.readers)
            .await
            .map_err(|error| port_error(OPERATION, error))?;
        Ok(())
    }

    async fn close(&self) {
        // This fails if the writer has ended, and then it has released its leases already.
        let _ = ask(&self.requests, "queue.close", |done| Request::Close {
            done,
        })
        .await;
        self.database.close().await;
    }
}

#[derive(Debug)]
struct SqlitePublisher {
    requests: mpsc::UnboundedSender<Request>,
    changes: watch::Receiver<usize>,
    timeout: Duration,
}

#[async_trait]
impl BatchPublisher for SqlitePublisher {
    async fn publish(&self, batch: &EncodedBatch) -> PortResult<()> {
        const OPERATION: &str = "queue.publish";
        let mut changes = self.changes.clone();
        let is_shorter = changes.wait_for(|messages| *messages < LONG_QUEUE);
        // After the timeout the batch is published anyway.
        let _ = tokio::time::timeout(LONG_QUEUE_PAUSE, is_shorter).await;
        let committed = ask(&self.requests, OPERATION, |done| Request::Publish {
            batch: batch.clone(),
            done,
        });
        tokio::time::timeout(self.timeout, committed)
            .await
            .unwrap_or_else(|_| {
                let reason = format!("no commit within {} ms", self.timeout.as_millis());
                Err(PortError::unavailable(OPERATION, reason))
            })
    }
}

#[cfg(test)]
mod tests;
