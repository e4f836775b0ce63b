//! The queue in SQLite: one file, as durable as a broker and without one.
//!
//! - A publish, a lease and a settlement are writes, and one task makes them all: what waits for
//!   it shares a transaction, so thirty-two publishes at once cost one `fsync`.
//! - A delivery is a *lease*: the message names its holder and carries a number that grows with
//!   every delivery. A settlement names that number, so whoever lost the lease in the meantime
//!   changes nothing (a fencing token).
//! - A holder says every few seconds that it lives. The leases of one that does not are free.
//! - A publish into a long queue waits a moment for it to become shorter. What is published
//!   faster than it is stored would only lie on the disk, and make the file grow with every
//!   upload's length.
//! - Bodies have a table of their own: SQLite writes a row anew when one of its columns changes,
//!   and a lease must not write a hundred kilobytes.

mod consumer;
mod messages;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use self::consumer::SqliteDeliveries;
use self::messages::SCHEMA;
use self::writer::{LONG, Request, Writer, ask, closed};
use super::{BatchPublisher, BatchQueue, Deliveries, Prefetch, QueueDepth};
use crate::batch::EncodedBatch;
use crate::error::{PortError, PortResult};
use crate::sqlite::{Database, now_ms, port_error};

/// Dead letters are few; a small prefetch keeps them in order of arrival and cheap to hold.
const DEAD_LETTER_PREFETCH: u16 = 4;

/// For so long a publish waits at most: where nobody takes messages, the disk takes them.
const LONG_QUEUE_PAUSE: Duration = Duration::from_millis(250);

/// A file with more free space than this is made small again at the start, if nothing is in it.
const WORTH_SHRINKING: i64 = 64 << 20;

/// Where the file is and how to use it.
#[derive(Debug, Clone)]
pub struct SqliteQueueSettings {
    /// The file; it is made if it is missing, its directory is not.
    pub file: PathBuf,
    /// A publish that is not committed within this time has failed.
    pub publish_timeout: Duration,
    /// The caller has made sure that no other process uses the file: whatever is leased belongs
    /// to one that is gone.
    pub sole_user: bool,
}

/// [`BatchQueue`] in SQLite.
#[derive(Debug)]
pub struct SqliteQueue {
    database: Database,
    requests: mpsc::UnboundedSender<Request>,
    /// How many messages there are, [`LONG`] at most; announced whenever one may have become
    /// available or was settled.
    changes: watch::Receiver<usize>,
    publish_timeout: Duration,
}

impl SqliteQueue {
    /// Opens the file, or makes it.
    pub async fn open(settings: SqliteQueueSettings) -> PortResult<Self> {
        const OPERATION: &str = "queue.connect";
        let database = Database::open(OPERATION, &settings.file).await?;
        sqlx::raw_sql(SCHEMA)
            .execute(database.writer())
            .await
            .map_err(|error| port_error(OPERATION, error))?;
        if settings.sole_user
            && let Err(error) = tidy(&database).await
        {
            // A full disk must not keep anybody from starting: leases run out by themselves.
            let error = port_error("queue.tidy", error);
            tracing::warn!(error = error.chain(), "the queue was not tidied up");
        }
        let (requests, inbox) = mpsc::unbounded_channel();
        let (announce, changes) = watch::channel(0);
        let writer = Writer {
            database: database.clone(),
            holder: Uuid::new_v4().to_string(),
            requests: requests.downgrade(),
            announce,
            orphans: Vec::new(),
        };
        tokio::spawn(writer.run(inbox));
        Ok(Self {
            database,
            requests,
            changes,
            publish_timeout: settings.publish_timeout,
        })
    }

    fn deliveries(&self, dead: bool, prefetch: Prefetch) -> Box<dyn Deliveries> {
        Box::new(SqliteDeliveries::new(
            self.database.clone(),
            self.requests.clone(),
            self.changes.clone(),
            dead,
            prefetch,
        ))
    }
}

/// Frees what is leased to processes that are gone, and gives the disk back what a long queue took.
async fn tidy(database: &Database) -> sqlx::Result<()> {
    let writer = database.writer();
    sqlx::query("DELETE FROM holders").execute(writer).await?;
    let (is_empty, free): (bool, i64) = sqlx::query_as(
        "SELECT NOT EXISTS (SELECT 1 FROM messages), freelist_count * page_size
         FROM pragma_freelist_count, pragma_page_size",
    )
    .fetch_one(writer)
    .await?;
    if is_empty && free > WORTH_SHRINKING {
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

    async fn consume(&self, prefetch: Prefetch) -> PortResult<Box<dyn Deliveries>> {
        Ok(self.deliveries(false, prefetch))
    }

    async fn consume_dead_letters(&self) -> PortResult<Box<dyn Deliveries>> {
        Ok(self.deliveries(true, Prefetch::of_batches(DEAD_LETTER_PREFETCH)))
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
        // A writer that has ended already has said its goodbye.
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
        let is_shorter = changes.wait_for(|messages| *messages < LONG);
        // It has become shorter, or is to grow all the same.
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
