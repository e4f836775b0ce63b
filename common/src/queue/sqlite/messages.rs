//! Every statement that changes messages. Each function runs in the caller's transaction.

use std::time::Duration;

use sqlx::SqliteConnection;

use super::super::{
    MessageKind, POSTPONEMENT, RetryTier, SUSPECT_AFTER, SUSPECT_LIMIT, unsettled_reason,
};
use crate::batch::{BatchId, EncodedBatch};
use crate::sqlite::now_ms;
use crate::upload::{UploadId, UploadKey};

/// The leases of a holder expire when its last heartbeat is older than this.
pub(super) const HOLDER_TIMEOUT: Duration = Duration::from_secs(30);

/// How a delivery is settled.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Ack,
    Retry(RetryTier),
    /// The message is available again after `delay`. A postponement of a foreign message is not
    /// counted.
    Postpone {
        delay: Duration,
        is_counted: bool,
    },
    DeadLetter(String),
    /// The delivery was dropped, and the message is available again.
    Release,
}

/// This process, as the messages name it.
#[derive(Debug)]
pub(super) struct Holder {
    /// The process's id in the leases.
    pub(super) id: String,
    /// The id of its installation of Carga.
    pub(super) installation: String,
}

/// A message that was leased, without its body.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: i64,
    /// The lease number, which grows with every delivery. A settlement must name it.
    pub(super) lease: i64,
    pub(super) batch: BatchId,
    pub(super) attempt: u32,
    pub(super) postponed: u32,
    pub(super) deliveries: i64,
    pub(super) is_foreign: bool,
    pub(super) reason: Option<String>,
}

pub(super) async fn insert(
    connection: &mut SqliteConnection,
    installation: &str,
    batch: &EncodedBatch,
) -> sqlx::Result<()> {
    // Zero, so that setting the clock back cannot delay the message.
    let inserted = sqlx::query(
        "INSERT INTO messages (available_at, upload_id, epoch, seq, installation)
         VALUES (0, $1, $2, $3, $4)",
    )
    .bind(batch.id.upload.id.to_string())
    .bind(batch.id.upload.epoch.get())
    .bind(batch.id.seq)
    .bind(installation)
    .execute(&mut *connection)
    .await?;
    sqlx::query("INSERT INTO bodies (id, body) VALUES ($1, $2)")
        .bind(inserted.last_insert_rowid())
        .bind(&batch.body[..])
        .execute(connection)
        .await?;
    Ok(())
}

/// The number of messages, counted up to `limit`.
pub(super) async fn count(connection: &mut SqliteConnection, limit: usize) -> sqlx::Result<usize> {
    let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM (SELECT 1 FROM messages LIMIT $1)")
        .bind(limit as i64)
        .fetch_one(connection)
        .await?;
    Ok(count as usize)
}

// The statements of `lease` repeat the number as a literal.
const _: () = assert!(SUSPECT_AFTER == 5);

/// The statement that leases messages. `which` is a literal, because SQLite uses a partial index
/// only for literals. A time beyond the longest delay or the holder timeout counts as past, because
/// only a clock that was set back leaves such a time.
macro_rules! lease {
    ($which:literal) => {
        concat!(
            "UPDATE messages
             SET holder = $1, lease = lease + 1, deliveries = deliveries + 1, unsettled = unsettled + 1
             WHERE id IN (
                 SELECT id FROM messages
                 WHERE ",
            $which,
            " AND available_at NOT BETWEEN $2 + 1 AND $2 + $3
                   AND (holder IS NULL
                        OR holder <> $1
                           AND holder NOT IN (SELECT id FROM holders WHERE expires_at BETWEEN $2 + 1 AND $2 + $4))
                 ORDER BY id LIMIT $5)
             RETURNING id, lease, upload_id, epoch, seq, attempt, postponed, deliveries, unsettled,
                       coalesce(installation <> $6, 0), reason"
        )
    };
}

/// A leased message as the statement returns it.
type Row = (
    i64,
    i64,
    String,
    i32,
    u32,
    u32,
    u32,
    i64,
    i64,
    bool,
    Option<String>,
);

/// Leases up to `limit` messages to the holder. A suspect that was too often delivered without
/// being settled becomes a dead letter instead.
pub(super) async fn lease(
    connection: &mut SqliteConnection,
    holder: &Holder,
    kind: MessageKind,
    limit: usize,
) -> sqlx::Result<Vec<Message>> {
    const UNSETTLED_LIMIT: u32 = SUSPECT_AFTER + SUSPECT_LIMIT;
    let sql = match kind {
        MessageKind::Batch => lease!("dead = 0 AND unsettled < 5"),
        MessageKind::Suspect => lease!("dead = 0 AND unsettled >= 5"),
        MessageKind::DeadLetter => lease!("dead = 1"),
    };
    let mut rows: Vec<Row> = sqlx::query_as(sql)
        .bind(holder.id.as_str())
        .bind(now_ms())
        .bind(milliseconds(RetryTier::LAST.delay().max(POSTPONEMENT)))
        .bind(milliseconds(HOLDER_TIMEOUT))
        .bind(limit as i64)
        .bind(holder.installation.as_str())
        .fetch_all(&mut *connection)
        .await?;
    // RETURNING does not guarantee an order.
    rows.sort_unstable_by_key(|row| row.0);
    let mut leased = Vec::with_capacity(rows.len());
    for row in rows {
        let (id, lease, unsettled) = (row.0, row.1, row.8);
        if kind == MessageKind::Suspect && unsettled > i64::from(UNSETTLED_LIMIT) {
            let reason = unsettled_reason(UNSETTLED_LIMIT);
            settle(
                connection,
                &holder.id,
                id,
                lease,
                Outcome::DeadLetter(reason),
            )
            .await?;
            continue;
        }
        leased.push(message(row)?);
    }
    Ok(leased)
}

fn message(row: Row) -> sqlx::Result<Message> {
    let (id, lease, upload, epoch, seq, attempt, postponed, deliveries, _, is_foreign, reason) =
        row;
    let upload_id: UploadId = upload.parse().map_err(|error| sqlx::Error::ColumnDecode {
        index: "upload_id".to_owned(),
        source: Box::new(error),
    })?;
    Ok(Message {
        id,
        lease,
        batch: BatchId {
            upload: UploadKey {
                id: upload_id,
                epoch: epoch.into(),
            },
            seq,
        },
        attempt,
        postponed,
        deliveries,
        is_foreign,
        reason,
    })
}

/// Settles a message. Returns false if the holder has lost the lease.
pub(super) async fn settle(
    connection: &mut SqliteConnection,
    holder: &str,
    id: i64,
    lease: i64,
    outcome: Outcome,
) -> sqlx::Result<bool> {
    let acknowledged = matches!(outcome, Outcome::Ack);
    let query = match outcome {
        Outcome::Ack => {
            sqlx::query("DELETE FROM messages WHERE id = $1 AND lease = $2 AND holder = $3")
        }
        Outcome::Retry(_) => sqlx::query(
            "UPDATE messages SET holder = NULL, attempt = attempt + 1, deliveries = 0, unsettled = 0, available_at = $4
             WHERE id = $1 AND lease = $2 AND holder = $3",
        ),
        Outcome::Postpone { .. } => sqlx::query(
            "UPDATE messages SET holder = NULL, postponed = postponed + $5, deliveries = 0, unsettled = 0,
                                 available_at = $4
             WHERE id = $1 AND lease = $2 AND holder = $3",
        ),
        Outcome::DeadLetter(_) => sqlx::query(
            "UPDATE messages SET holder = NULL, dead = 1, deliveries = 0, unsettled = 0, reason = $4
             WHERE id = $1 AND lease = $2 AND holder = $3",
        ),
        Outcome::Release => sqlx::query(
            "UPDATE messages SET holder = NULL, unsettled = unsettled - 1
             WHERE id = $1 AND lease = $2 AND holder = $3",
        ),
    };
    let query = query.bind(id).bind(lease).bind(holder);
    let query = match outcome {
        Outcome::Retry(tier) => query.bind(now_ms() + milliseconds(tier.delay())),
        Outcome::Postpone { delay, is_counted } => query
            .bind(now_ms() + milliseconds(delay))
            .bind(i64::from(is_counted)),
        Outcome::DeadLetter(reason) => query.bind(reason),
        Outcome::Ack | Outcome::Release => query,
    };
    let is_settled = query.execute(&mut *connection).await?.rows_affected() > 0;
    if is_settled && acknowledged {
        sqlx::query("DELETE FROM bodies WHERE id = $1")
            .bind(id)
            .execute(connection)
            .await?;
    }
    Ok(is_settled)
}

/// Writes the holder's heartbeat, and deletes expired holders.
pub(super) async fn renew(connection: &mut SqliteConnection, holder: &str) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM holders WHERE expires_at <= $1")
        .bind(now_ms())
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO holders VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET expires_at = $2",
    )
    .bind(holder)
    .bind(now_ms() + milliseconds(HOLDER_TIMEOUT))
    .execute(connection)
    .await?;
    Ok(())
}

/// Releases all leases of a holder that ends in order. These deliveries do not count as unsettled.
pub(super) async fn release_all(
    connection: &mut SqliteConnection,
    holder: &str,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE messages SET holder = NULL, unsettled = unsettled - 1 WHERE holder = $1")
        .bind(holder)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM holders WHERE id = $1")
        .bind(holder)
        .execute(connection)
        .await?;
    Ok(())
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
