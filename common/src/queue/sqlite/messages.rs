//! The queue's tables and every statement that changes them. Each function does its work in the
//! caller's transaction.

use std::time::Duration;

use sqlx::SqliteConnection;

use super::super::RetryTier;
use crate::batch::{BatchId, EncodedBatch};
use crate::sqlite::now_ms;
use crate::upload::UploadKey;

/// A holder that has been silent for this long is gone.
pub(super) const HOLDER_LIFE: Duration = Duration::from_secs(30);

/// Deliveries whose holder died before the message is called dead: it may be what kills them.
const UNSETTLED_LIMIT: i64 = 20;

/// Each statement by itself may be repeated; `user_version` would tell a later shape from this one.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS messages (
    id           integer PRIMARY KEY AUTOINCREMENT,
    dead         integer NOT NULL DEFAULT 0,
    -- Milliseconds since 1970; a retry waits for its time.
    available_at integer NOT NULL,
    upload_id    text NOT NULL,
    epoch        integer NOT NULL,
    seq          integer NOT NULL,
    attempt      integer NOT NULL DEFAULT 1,
    -- Since it was published or retried.
    deliveries   integer NOT NULL DEFAULT 0,
    -- Deliveries whose holder was never heard of again.
    unsettled    integer NOT NULL DEFAULT 0,
    reason       text,
    holder       text,
    lease        integer NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS dead_messages ON messages (id) WHERE dead = 1;
CREATE TABLE IF NOT EXISTS bodies (
    id   integer PRIMARY KEY,
    body blob NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS holders (
    id         text PRIMARY KEY,
    expires_at integer NOT NULL
) STRICT;
";

/// How a delivery ends.
#[derive(Debug, Clone)]
pub(super) enum End {
    Ack,
    Retry(RetryTier),
    DeadLetter(String),
    /// Dropped: somebody else may have it.
    Release,
}

/// A message that was leased, without its body.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: i64,
    /// Grows with every delivery; a settlement must name it.
    pub(super) lease: i64,
    pub(super) batch: BatchId,
    pub(super) attempt: u32,
    pub(super) deliveries: i64,
    pub(super) reason: Option<String>,
}

pub(super) async fn insert(
    connection: &mut SqliteConnection,
    batch: &EncodedBatch,
) -> sqlx::Result<()> {
    // Available since ever: a clock that is set back must not make it wait.
    let inserted = sqlx::query(
        "INSERT INTO messages (available_at, upload_id, epoch, seq) VALUES (0, $1, $2, $3)",
    )
    .bind(batch.id.upload.id.to_string())
    .bind(batch.id.upload.epoch.get())
    .bind(batch.id.seq)
    .execute(&mut *connection)
    .await?;
    sqlx::query("INSERT INTO bodies (id, body) VALUES ($1, $2)")
        .bind(inserted.last_insert_rowid())
        .bind(&batch.body[..])
        .execute(connection)
        .await?;
    Ok(())
}

/// How many messages there are, counting no further than `most`.
pub(super) async fn count(connection: &mut SqliteConnection, most: usize) -> sqlx::Result<usize> {
    let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM (SELECT 1 FROM messages LIMIT $1)")
        .bind(most as i64)
        .fetch_one(connection)
        .await?;
    Ok(count as usize)
}

/// Leases messages. Dead ones are asked for literally, since only then does SQLite use their
/// index; the queue may be long. No time lies further ahead than a pause or a life is long,
/// unless the clock was set back: then it is over as well.
macro_rules! lease {
    ($dead:literal) => {
        concat!(
            "UPDATE messages
             SET holder = $1, lease = lease + 1, deliveries = deliveries + 1, unsettled = unsettled + 1
             WHERE id IN (
                 SELECT id FROM messages
                 WHERE dead = ",
            $dead,
            " AND available_at NOT BETWEEN $2 + 1 AND $2 + $3
                   AND (holder IS NULL
                        OR holder <> $1
                           AND holder NOT IN (SELECT id FROM holders WHERE expires_at BETWEEN $2 + 1 AND $2 + $4))
                 ORDER BY id LIMIT $5)
             RETURNING id, lease, upload_id, epoch, seq, attempt, deliveries, unsettled, reason"
        )
    };
}

/// Leases up to so many messages to `holder`. Those that nobody survives are dead letters from
/// then on, and not among them.
pub(super) async fn lease(
    connection: &mut SqliteConnection,
    holder: &str,
    dead: bool,
    most: usize,
) -> sqlx::Result<Vec<Message>> {
    type Row = (i64, i64, String, i32, u32, u32, i64, i64, Option<String>);
    let sql = if dead { lease!("1") } else { lease!("0") };
    let mut rows: Vec<Row> = sqlx::query_as(sql)
        .bind(holder)
        .bind(now_ms())
        .bind(milliseconds(RetryTier::LAST.delay()))
        .bind(milliseconds(HOLDER_LIFE))
        .bind(most as i64)
        .fetch_all(&mut *connection)
        .await?;
    // RETURNING promises no order.
    rows.sort_unstable_by_key(|row| row.0);
    let mut leased = Vec::with_capacity(rows.len());
    for (id, lease, upload, epoch, seq, attempt, deliveries, unsettled, reason) in rows {
        if unsettled > UNSETTLED_LIMIT && !dead {
            let reason = format!(
                "it was delivered {UNSETTLED_LIMIT} times and whoever had it was not heard of again"
            );
            settle(connection, holder, id, lease, End::DeadLetter(reason)).await?;
            continue;
        }
        let upload_id = upload.parse().map_err(|error| sqlx::Error::ColumnDecode {
            index: "upload_id".to_owned(),
            source: Box::new(error),
        })?;
        leased.push(Message {
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
            deliveries,
            reason,
        });
    }
    Ok(leased)
}

/// False when the lease is not the holder's any more.
pub(super) async fn settle(
    connection: &mut SqliteConnection,
    holder: &str,
    id: i64,
    lease: i64,
    end: End,
) -> sqlx::Result<bool> {
    let acknowledged = matches!(end, End::Ack);
    let query = match end {
        End::Ack => {
            sqlx::query("DELETE FROM messages WHERE id = $1 AND lease = $2 AND holder = $3")
        }
        End::Retry(_) => sqlx::query(
            "UPDATE messages SET holder = NULL, attempt = attempt + 1, deliveries = 0, unsettled = 0, available_at = $4
             WHERE id = $1 AND lease = $2 AND holder = $3",
        ),
        End::DeadLetter(_) => sqlx::query(
            "UPDATE messages SET holder = NULL, dead = 1, deliveries = 0, unsettled = 0, reason = $4
             WHERE id = $1 AND lease = $2 AND holder = $3",
        ),
        End::Release => sqlx::query(
            "UPDATE messages SET holder = NULL, unsettled = unsettled - 1
             WHERE id = $1 AND lease = $2 AND holder = $3",
        ),
    };
    let query = query.bind(id).bind(lease).bind(holder);
    let query = match end {
        End::Retry(tier) => query.bind(now_ms() + milliseconds(tier.delay())),
        End::DeadLetter(reason) => query.bind(reason),
        End::Ack | End::Release => query,
    };
    let ours = query.execute(&mut *connection).await?.rows_affected() > 0;
    if ours && acknowledged {
        sqlx::query("DELETE FROM bodies WHERE id = $1")
            .bind(id)
            .execute(connection)
            .await?;
    }
    Ok(ours)
}

/// Says that the holder lives, and forgets those who do not.
pub(super) async fn renew(connection: &mut SqliteConnection, holder: &str) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM holders WHERE expires_at <= $1")
        .bind(now_ms())
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO holders VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET expires_at = $2",
    )
    .bind(holder)
    .bind(now_ms() + milliseconds(HOLDER_LIFE))
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives back all that is leased: an orderly end charges nobody.
pub(super) async fn leave(connection: &mut SqliteConnection, holder: &str) -> sqlx::Result<()> {
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

/// Pauses and lives are short.
fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
