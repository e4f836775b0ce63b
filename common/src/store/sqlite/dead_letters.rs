//! Dead letters.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::SqliteConnection;
use sqlx::types::Json;

use super::{SqliteStore, ago, audit, key, now};
use crate::audit::Action;
use crate::batch::BatchId;
use crate::error::PortResult;
use crate::sqlite::{Database, call};
use crate::store::rules::{CLAIM, LOST_RETRY};
use crate::store::sql::{self, dead_rows, retry_conditions, signed};
use crate::store::{
    DeadBatch, DeadLetter, DeadLetterStore, Parked, Retried, RetriedBatch, RetryScope,
};
use crate::upload::{UploadId, UploadKey};

/// Returns an upload to `processing`. `$1` and `$2`: the id and the time.
const RETURN_TO_PROCESSING: &str = "UPDATE uploads
    SET status = 'processing', rows_inserted = NULL, rows_updated = NULL, rows_duplicate = NULL,
        rows_violating = NULL, rows_dead = NULL, updated_at = $2, finished_at = NULL
    WHERE id = $1";

/// The columns of a dead letter in a list.
type Listed = (
    i64,
    Option<String>,
    Option<i32>,
    Option<i32>,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<i32>,
    i32,
    String,
    String,
    Option<String>,
);

#[async_trait]
impl DeadLetterStore for SqliteStore {
    async fn park(&self, dead: &DeadBatch) -> PortResult<Parked> {
        call("store.park", park(&self.database, dead)).await
    }

    async fn dead_letters(&self, after: u64, limit: u32) -> PortResult<Vec<DeadLetter>> {
        call("store.dead_letters", async {
            let found: Vec<Listed> = sqlx::query_as(
                "SELECT d.id, d.upload_id, d.epoch, d.seq, coalesce(u.public_id, u.id),
                        d.first_row, d.last_row, d.rows, d.attempts, d.reason, d.parked_at, d.retried_at
                 FROM dead_letters d LEFT JOIN uploads u ON u.id = d.upload_id
                 WHERE d.id > $1 ORDER BY d.id LIMIT $2",
            )
            .bind(signed(after))
            .bind(i64::from(limit))
            .fetch_all(&self.database.readers)
            .await?;
            found.into_iter().map(dead_letter).collect()
        })
        .await
    }

    async fn dead_message(&self, id: BatchId) -> PortResult<Option<Bytes>> {
        call("store.dead_message", async {
            let body: Option<Vec<u8>> = sqlx::query_scalar(
                "SELECT body FROM parked_batches WHERE upload_id = $1 AND epoch = $2 AND seq = $3",
            )
            .bind(id.upload.id.to_string())
            .bind(id.upload.epoch.get())
            .bind(id.seq.cast_signed())
            .fetch_optional(&self.database.readers)
            .await?;
            Ok(body.map(Bytes::from))
        })
        .await
    }

    async fn retry(&self, key: UploadKey, scope: RetryScope) -> PortResult<Retried> {
        call("store.retry", retry(&self.database, key, scope)).await
    }

    async fn claim_retried(&self, limit: u32) -> PortResult<Vec<RetriedBatch>> {
        call("store.claim_retried", async {
            let claimed: Vec<(i64, String, i32, i32, Option<i32>, Vec<u8>)> = sqlx::query_as(
                "UPDATE parked_batches SET claimed_at = $1
                 WHERE id IN (SELECT id FROM parked_batches
                              WHERE retried_at IS NOT NULL AND published_at IS NULL
                                AND coalesce(claimed_at, '') < $2
                              ORDER BY id LIMIT $3)
                 RETURNING id, upload_id, epoch, seq, rows, body",
            )
            .bind(now())
            .bind(ago(CLAIM))
            .bind(i64::from(limit))
            .fetch_all(self.database.writer())
            .await?;
            claimed.into_iter().map(retried_batch).collect()
        })
        .await
    }

    async fn mark_published(&self, numbers: &[u64]) -> PortResult<()> {
        call("store.mark_published", async {
            sqlx::query(
                "UPDATE parked_batches SET published_at = $2
                 WHERE id IN (SELECT value FROM json_each($1)) AND claimed_at IS NOT NULL",
            )
            .bind(Json(numbers))
            .bind(now())
            .execute(self.database.writer())
            .await?;
            Ok(())
        })
        .await
    }
}

async fn park(database: &Database, dead: &DeadBatch) -> sqlx::Result<Parked> {
    let mut transaction = database.begin().await?;
    if let Some(id) = dead.id {
        let (is_stored, has_ended): (bool, bool) = sqlx::query_as(
            "SELECT EXISTS (SELECT 1 FROM batches WHERE upload_id = $1 AND epoch = $2 AND seq = $3),
                    EXISTS (SELECT 1 FROM uploads
                            WHERE id = $1 AND (epoch <> $2 OR expired_at IS NOT NULL
                                               OR status IN ('failed', 'cancelled', 'undone')))",
        )
        .bind(id.upload.id.to_string())
        .bind(id.upload.epoch.get())
        .bind(id.seq.cast_signed())
        .fetch_one(&mut *transaction)
        .await?;
        let unneeded = match (is_stored, has_ended) {
            (true, _) => Some(Parked::AlreadyStored),
            (false, true) => Some(Parked::Ended),
            (false, false) => None,
        };
        if let Some(unneeded) = unneeded {
            transaction.commit().await?;
            return Ok(unneeded);
        }
    }
    let (first_row, last_row, rows) = dead_rows(dead.rows);
    // The queue may deliver a dead letter twice. A message that arrives before the retried one was
    // claimed is such a copy, and does not end the retry.
    sqlx::query(
        "INSERT INTO parked_batches
             (upload_id, epoch, seq, first_row, last_row, rows, attempts, reason, body, parked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (upload_id, epoch, seq) DO UPDATE
         SET attempts = parked_batches.attempts + excluded.attempts, reason = excluded.reason,
             parked_at = excluded.parked_at, retried_at = NULL, claimed_at = NULL, published_at = NULL
         WHERE parked_batches.claimed_at IS NOT NULL",
    )
    .bind(dead.id.map(|id| id.upload.id.to_string()))
    .bind(dead.id.map(|id| id.upload.epoch.get()))
    .bind(dead.id.map(|id| id.seq.cast_signed()))
    .bind(first_row)
    .bind(last_row)
    .bind(rows)
    .bind(dead.attempts.cast_signed())
    .bind(&dead.reason)
    .bind(&dead.body[..])
    .bind(now())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Parked::Kept)
}

async fn retry(database: &Database, key: UploadKey, scope: RetryScope) -> sqlx::Result<Retried> {
    let mut transaction = database.begin().await?;
    let open: Option<(bool,)> = sqlx::query_as(
        "SELECT status = 'partial' FROM uploads
         WHERE id = $1 AND epoch = $2 AND expired_at IS NULL
           AND status IN ('receiving', 'processing', 'partial', 'completed')",
    )
    .bind(key.id.to_string())
    .bind(key.epoch.get())
    .fetch_optional(&mut *transaction)
    .await?;
    let Some((is_partial,)) = open else {
        transaction.commit().await?;
        return Ok(Retried::Ended);
    };
    let retried = mark_retried(&mut transaction, key, scope).await?;
    if retried == 0 {
        transaction.commit().await?;
        return Ok(Retried::Batches(0));
    }
    let update = match is_partial {
        true => RETURN_TO_PROCESSING,
        // The batches do not count as lost while this is recent.
        false => "UPDATE uploads SET updated_at = $2 WHERE id = $1",
    };
    sqlx::query(update)
        .bind(key.id.to_string())
        .bind(now())
        .execute(&mut *transaction)
        .await?;
    let written = audit::record_upload(&mut transaction, key.id, Action::RetryUpload).await?;
    transaction.commit().await?;
    written.log();
    Ok(Retried::Batches(retried))
}

/// Marks dead letters as retried. Returns how many.
async fn mark_retried(
    connection: &mut SqliteConnection,
    key: UploadKey,
    scope: RetryScope,
) -> sqlx::Result<u64> {
    let (seq, row) = retry_conditions(scope);
    let retried = sqlx::query(
        "UPDATE parked_batches SET retried_at = $5
         WHERE id IN (SELECT id FROM dead_letters
                      WHERE upload_id = $1 AND epoch = $2 AND is_missing AND retried_at IS NULL
                        AND ($3 IS NULL OR seq = $3)
                        AND ($4 IS NULL OR $4 BETWEEN first_row AND last_row))",
    )
    .bind(key.id.to_string())
    .bind(key.epoch.get())
    .bind(seq)
    .bind(row)
    .bind(now())
    .execute(connection)
    .await?;
    Ok(retried.rows_affected())
}

/// Ends the retries of an upload that were published before the `quiet` time and are lost, so that
/// their batches are dead letters again. Returns whether there were any.
pub(super) async fn end_retries(
    connection: &mut SqliteConnection,
    key: UploadKey,
    quiet: Duration,
) -> sqlx::Result<bool> {
    let ended = sqlx::query(
        "UPDATE parked_batches
         SET reason = $3, parked_at = $4, retried_at = NULL, claimed_at = NULL, published_at = NULL
         WHERE id IN (SELECT id FROM dead_letters
                      WHERE upload_id = $1 AND epoch = $2 AND published_at < $5)",
    )
    .bind(key.id.to_string())
    .bind(key.epoch.get())
    .bind(LOST_RETRY)
    .bind(now())
    .bind(ago(quiet))
    .execute(connection)
    .await?;
    Ok(ended.rows_affected() > 0)
}

/// Deletes the messages of an upload whose batches have been stored since.
pub(super) async fn forget_stored(
    connection: &mut SqliteConnection,
    id: UploadId,
) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM parked_batches
         WHERE upload_id = $1 AND EXISTS (SELECT 1 FROM batches b
               WHERE b.upload_id = parked_batches.upload_id AND b.epoch = parked_batches.epoch
                 AND b.seq = parked_batches.seq)",
    )
    .bind(id.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes all messages of an upload, whose rows are not kept.
pub(super) async fn forget_all(
    connection: &mut SqliteConnection,
    id: UploadId,
) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM parked_batches WHERE upload_id = $1")
        .bind(id.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

fn dead_letter(listed: Listed) -> sqlx::Result<DeadLetter> {
    let (number, id, epoch, seq, upload, first, last, rows, attempts, reason, parked, retried) =
        listed;
    let id = match (id, epoch, seq) {
        (Some(id), Some(epoch), Some(seq)) => Some(BatchId {
            upload: key((id, epoch))?,
            seq: seq.cast_unsigned(),
        }),
        _ => None,
    };
    Ok(DeadLetter {
        number: sql::count("id", number)?,
        id,
        upload: sql::parsed_if_any("public_id", upload.as_deref())?,
        rows: sql::batch_rows(first, last, rows)?,
        attempts: attempts.cast_unsigned(),
        reason,
        parked_at: sql::parsed("parked_at", &parked)?,
        retried_at: sql::parsed_if_any("retried_at", retried.as_deref())?,
    })
}

fn retried_batch(
    (number, id, epoch, seq, rows, body): (i64, String, i32, i32, Option<i32>, Vec<u8>),
) -> sqlx::Result<RetriedBatch> {
    Ok(RetriedBatch {
        number: sql::count("id", number)?,
        id: BatchId {
            upload: key((id, epoch))?,
            seq: seq.cast_unsigned(),
        },
        rows: sql::count("rows", rows.unwrap_or(0))?,
        body: Bytes::from(body),
    })
}
