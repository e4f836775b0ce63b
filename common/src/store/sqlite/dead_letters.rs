//! Dead letters.

use async_trait::async_trait;

use super::{SqliteStore, now};
use crate::error::PortResult;
use crate::sqlite::call;
use crate::store::{DeadBatch, DeadLetterStore, Parked};

#[async_trait]
impl DeadLetterStore for SqliteStore {
    async fn park(&self, dead: &DeadBatch) -> PortResult<Parked> {
        call("store.park", async {
            let mut transaction = self.database.begin().await?;
            if let Some(id) = dead.id {
                let (stored,): (bool,) = sqlx::query_as(
                    "SELECT EXISTS (SELECT 1 FROM batches WHERE upload_id = $1 AND epoch = $2 AND seq = $3)",
                )
                .bind(id.upload.id.to_string())
                .bind(id.upload.epoch.get())
                .bind(id.seq.cast_signed())
                .fetch_one(&mut *transaction)
                .await?;
                if stored {
                    transaction.commit().await?;
                    return Ok(Parked::AlreadyStored);
                }
            }
            // The queue may deliver a dead letter twice.
            sqlx::query(
                "INSERT INTO parked_batches (upload_id, epoch, seq, attempts, reason, body, parked_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT DO NOTHING",
            )
            .bind(dead.id.map(|id| id.upload.id.to_string()))
            .bind(dead.id.map(|id| id.upload.epoch.get()))
            .bind(dead.id.map(|id| id.seq.cast_signed()))
            .bind(dead.attempts.cast_signed())
            .bind(&dead.reason)
            .bind(&dead.body[..])
            .bind(now())
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(Parked::Kept)
        })
        .await
    }
}
