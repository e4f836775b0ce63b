//! Dead letters.

use async_trait::async_trait;

use sqlx::Connection;

use super::connections::LONG;
use super::{PostgresStore, lock_status};
use crate::error::PortResult;
use crate::store::{DeadBatch, DeadLetterStore, Parked};

#[async_trait]
impl DeadLetterStore for PostgresStore {
    async fn park(&self, dead: &DeadBatch) -> PortResult<Parked> {
        self.call("store.park", LONG, async |connection| {
            let mut transaction = connection.begin().await?;
            if let Some(id) = dead.id {
                lock_status(&mut transaction, id.upload.id).await?;
                let (stored,): (bool,) = sqlx::query_as(
                    "SELECT EXISTS (SELECT FROM batches WHERE upload_id = $1 AND epoch = $2 AND seq = $3)",
                )
                .bind(id.upload.id.as_uuid())
                .bind(id.upload.epoch.get())
                .bind(id.seq.cast_signed())
                .fetch_one(&mut *transaction)
                .await?;
                if stored {
                    return Ok(Parked::AlreadyStored);
                }
            }
            // The broker may deliver a dead letter twice.
            sqlx::query(
                "INSERT INTO parked_batches (upload_id, epoch, seq, attempts, reason, body)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT DO NOTHING",
            )
            .bind(dead.id.map(|id| id.upload.id.as_uuid()))
            .bind(dead.id.map(|id| id.upload.epoch.get()))
            .bind(dead.id.map(|id| id.seq.cast_signed()))
            .bind(dead.attempts.cast_signed())
            .bind(&dead.reason)
            .bind(&dead.body[..])
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(Parked::Kept)
        })
        .await
    }
}
