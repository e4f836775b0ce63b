//! Dead letters.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff_sqlx::Timestamp as SqlTimestamp;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::connections::{LONG, SHORT};
use super::{PostgresStore, audit, key, lock_status};
use crate::audit::Action;
use crate::batch::BatchId;
use crate::error::PortResult;
use crate::store::rules::{CLAIM, LOST_RETRY};
use crate::store::sql::{self, dead_rows, retry_conditions, signed};
use crate::store::{
    DeadBatch, DeadLetter, DeadLetterStore, Parked, Retried, RetriedBatch, RetryScope,
};
use crate::upload::{UploadId, UploadKey};

/// Returns an upload to `processing`. `$1`: the id.
const RETURN_TO_PROCESSING: &str = "UPDATE uploads
    SET status = 'processing', rows_inserted = NULL, rows_updated = NULL, rows_duplicate = NULL,
        rows_violating = NULL, rows_dead = NULL, updated_at = now(), finished_at = NULL
    WHERE id = $1";

/// The columns of a dead letter in a list.
type Listed = (
    i64,
    Option<Uuid>,
    Option<i32>,
    Option<i32>,
    Option<Uuid>,
    Option<i64>,
    Option<i64>,
    Option<i32>,
    i32,
    String,
    SqlTimestamp,
    Option<SqlTimestamp>,
);

#[async_trait]
impl DeadLetterStore for PostgresStore {
    async fn park(&self, dead: &DeadBatch) -> PortResult<Parked> {
        self.call("store.park", LONG, async |connection| {
            park(connection, dead).await
        })
        .await
    }

    async fn dead_letters(&self, after: u64, limit: u32) -> PortResult<Vec<DeadLetter>> {
        self.call("store.dead_letters", SHORT, async |connection| {
            let found: Vec<Listed> = sqlx::query_as(
                "SELECT d.id, d.upload_id, d.epoch, d.seq, coalesce(u.public_id, u.id),
                        d.first_row, d.last_row, d.rows, d.attempts, d.reason, d.parked_at, d.retried_at
                 FROM dead_letters d LEFT JOIN uploads u ON u.id = d.upload_id
                 WHERE d.id > $1 ORDER BY d.id LIMIT $2",
            )
            .bind(signed(after))
            .bind(i64::from(limit))
            .fetch_all(connection)
            .await?;
            found.into_iter().map(dead_letter).collect()
        })
        .await
    }

    async fn dead_message(&self, id: BatchId) -> PortResult<Option<Bytes>> {
        self.call("store.dead_message", SHORT, async |connection| {
            let body: Option<Vec<u8>> = sqlx::query_scalar(
                "SELECT body FROM parked_batches WHERE upload_id = $1 AND epoch = $2 AND seq = $3",
            )
            .bind(id.upload.id.as_uuid())
            .bind(id.upload.epoch.get())
            .bind(id.seq.cast_signed())
            .fetch_optional(connection)
            .await?;
            Ok(body.map(Bytes::from))
        })
        .await
    }

    async fn retry(&self, key: UploadKey, scope: RetryScope) -> PortResult<Retried> {
        self.call("store.retry", LONG, async |connection| {
            retry(connection, key, scope).await
        })
        .await
    }

    async fn claim_retried(&self, limit: u32) -> PortResult<Vec<RetriedBatch>> {
        self.call("store.claim_retried", LONG, async |connection| {
            let claimed: Vec<(i64, Uuid, i32, i32, Option<i32>, Vec<u8>)> = sqlx::query_as(
                "UPDATE parked_batches p SET claimed_at = now()
                 FROM (SELECT id FROM parked_batches
                       WHERE retried_at IS NOT NULL AND published_at IS NULL
                         AND coalesce(claimed_at, '-infinity') < now() - make_interval(secs => $1)
                       ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED) free
                 WHERE p.id = free.id
                 RETURNING p.id, p.upload_id, p.epoch, p.seq, p.rows, p.body",
            )
            .bind(CLAIM.as_secs_f64())
            .bind(i64::from(limit))
            .fetch_all(connection)
            .await?;
            claimed.into_iter().map(retried_batch).collect()
        })
        .await
    }

    async fn mark_published(&self, numbers: &[u64]) -> PortResult<()> {
        let numbers: Vec<i64> = numbers.iter().map(|number| signed(*number)).collect();
        self.call("store.mark_published", SHORT, async |connection| {
            sqlx::query(
                "UPDATE parked_batches SET published_at = now()
                 WHERE id = ANY ($1) AND claimed_at IS NOT NULL",
            )
            .bind(numbers)
            .execute(connection)
            .await?;
            Ok(())
        })
        .await
    }
}

async fn park(connection: &mut PgConnection, dead: &DeadBatch) -> sqlx::Result<Parked> {
    let mut transaction = connection.begin().await?;
    if let Some(id) = dead.id {
        lock_status(&mut transaction, id.upload.id).await?;
        let (is_stored, has_ended): (bool, bool) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM batches WHERE upload_id = $1 AND epoch = $2 AND seq = $3),
                    EXISTS (SELECT FROM uploads
                            WHERE id = $1 AND (epoch <> $2 OR expired_at IS NOT NULL
                                               OR status IN ('failed', 'cancelled', 'undone')))",
        )
        .bind(id.upload.id.as_uuid())
        .bind(id.upload.epoch.get())
        .bind(id.seq.cast_signed())
        .fetch_one(&mut *transaction)
        .await?;
        match (is_stored, has_ended) {
            (true, _) => return Ok(Parked::AlreadyStored),
            (false, true) => return Ok(Parked::Ended),
            (false, false) => {}
        }
    }
    let (first_row, last_row, rows) = dead_rows(dead.rows);
    // The broker may deliver a dead letter twice. A message that arrives before the retried one was
    // claimed is such a copy, and does not end the retry.
    sqlx::query(
        "INSERT INTO parked_batches (upload_id, epoch, seq, first_row, last_row, rows, attempts, reason, body)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (upload_id, epoch, seq) DO UPDATE
         SET attempts = parked_batches.attempts + excluded.attempts, reason = excluded.reason, parked_at = now(),
             retried_at = NULL, claimed_at = NULL, published_at = NULL
         WHERE parked_batches.claimed_at IS NOT NULL",
    )
    .bind(dead.id.map(|id| id.upload.id.as_uuid()))
    .bind(dead.id.map(|id| id.upload.epoch.get()))
    .bind(dead.id.map(|id| id.seq.cast_signed()))
    .bind(first_row)
    .bind(last_row)
    .bind(rows)
    .bind(dead.attempts.cast_signed())
    .bind(&dead.reason)
    .bind(&dead.body[..])
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Parked::Kept)
}

async fn retry(
    connection: &mut PgConnection,
    key: UploadKey,
    scope: RetryScope,
) -> sqlx::Result<Retried> {
    let mut transaction = connection.begin().await?;
    lock_status(&mut transaction, key.id).await?;
    // The row is locked too, because the expiry of rows takes this lock alone.
    let open: Option<(bool,)> = sqlx::query_as(
        "SELECT status = 'partial' FROM uploads
         WHERE id = $1 AND epoch = $2 AND expired_at IS NULL
           AND status IN ('receiving', 'processing', 'partial', 'completed')
         FOR NO KEY UPDATE",
    )
    .bind(key.id.as_uuid())
    .bind(key.epoch.get())
    .fetch_optional(&mut *transaction)
    .await?;
    let Some((is_partial,)) = open else {
        return Ok(Retried::Ended);
    };
    let (seq, row) = retry_conditions(scope);
    let retried = sqlx::query(
        "UPDATE parked_batches SET retried_at = now()
         WHERE id IN (SELECT id FROM dead_letters
                      WHERE upload_id = $1 AND epoch = $2 AND is_missing AND retried_at IS NULL
                        AND ($3::int IS NULL OR seq = $3)
                        AND ($4::bigint IS NULL OR $4 BETWEEN first_row AND last_row))",
    )
    .bind(key.id.as_uuid())
    .bind(key.epoch.get())
    .bind(seq)
    .bind(row)
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    if retried == 0 {
        return Ok(Retried::Batches(0));
    }
    let update = match is_partial {
        true => RETURN_TO_PROCESSING,
        // The batches do not count as lost while this is recent.
        false => "UPDATE uploads SET updated_at = now() WHERE id = $1",
    };
    sqlx::query(update)
        .bind(key.id.as_uuid())
        .execute(&mut *transaction)
        .await?;
    let written = audit::record_upload(&mut transaction, key.id, Action::RetryUpload).await?;
    transaction.commit().await?;
    written.log();
    Ok(Retried::Batches(retried))
}

/// Ends the retries of an upload that were published before the `quiet` time and are lost, so that
/// their batches are dead letters again. Returns whether there were any.
pub(super) async fn end_retries(
    connection: &mut PgConnection,
    key: UploadKey,
    quiet: Duration,
) -> sqlx::Result<bool> {
    let ended = sqlx::query(
        "UPDATE parked_batches
         SET reason = $3, parked_at = now(), retried_at = NULL, claimed_at = NULL, published_at = NULL
         WHERE id IN (SELECT id FROM dead_letters
                      WHERE upload_id = $1 AND epoch = $2
                        AND published_at < now() - make_interval(secs => $4))",
    )
    .bind(key.id.as_uuid())
    .bind(key.epoch.get())
    .bind(LOST_RETRY)
    .bind(quiet.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(ended.rows_affected() > 0)
}

/// Deletes the messages of an upload whose batches have been stored since.
pub(super) async fn forget_stored(connection: &mut PgConnection, id: UploadId) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM parked_batches p
         WHERE p.upload_id = $1 AND EXISTS (SELECT FROM batches b
               WHERE b.upload_id = p.upload_id AND b.epoch = p.epoch AND b.seq = p.seq)",
    )
    .bind(id.as_uuid())
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes all messages of an upload, whose rows are not kept.
pub(super) async fn forget_all(connection: &mut PgConnection, id: UploadId) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM parked_batches WHERE upload_id = $1")
        .bind(id.as_uuid())
        .execute(connection)
        .await?;
    Ok(())
}

fn dead_letter(listed: Listed) -> sqlx::Result<DeadLetter> {
    let (number, id, epoch, seq, upload, first, last, rows, attempts, reason, parked, retried) =
        listed;
    let id = match (id, epoch, seq) {
        (Some(id), Some(epoch), Some(seq)) => Some(BatchId {
            upload: key(id, epoch),
            seq: seq.cast_unsigned(),
        }),
        _ => None,
    };
    Ok(DeadLetter {
        number: sql::count("id", number)?,
        id,
        upload: upload.map(UploadId::from),
        rows: sql::batch_rows(first, last, rows)?,
        attempts: attempts.cast_unsigned(),
        reason,
        parked_at: parked.to_jiff(),
        retried_at: retried.map(|time| time.to_jiff()),
    })
}

fn retried_batch(
    (number, id, epoch, seq, rows, body): (i64, Uuid, i32, i32, Option<i32>, Vec<u8>),
) -> sqlx::Result<RetriedBatch> {
    Ok(RetriedBatch {
        number: sql::count("id", number)?,
        id: BatchId {
            upload: key(id, epoch),
            seq: seq.cast_unsigned(),
        },
        rows: sql::count("rows", rows.unwrap_or(0))?,
        body: Bytes::from(body),
    })
}
