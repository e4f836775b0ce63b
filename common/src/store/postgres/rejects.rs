//! Rejected rows, which the intake writes while it reads.

use async_trait::async_trait;
use futures::stream::BoxStream;
use sqlx::postgres::PgPool;
use sqlx::types::Json;

use super::{PostgresStore, call, fence_key, share_status};
use crate::error::PortResult;
use crate::rejects::RejectedRow;
use crate::store::RejectStore;
use crate::store::sql::{self, PAGE_ROWS, RejectedRecord, signed};
use crate::upload::{UploadId, UploadKey};

#[async_trait]
impl RejectStore for PostgresStore {
    async fn reject(&self, key: UploadKey, rows: &[RejectedRow]) -> PortResult<bool> {
        call("store.reject", async {
            let mut transaction = self.pool.begin().await?;
            share_status(&mut transaction, fence_key(key.id)).await?;
            let (is_receiving,): (bool,) = sqlx::query_as(
                "SELECT EXISTS (SELECT FROM uploads WHERE id = $1 AND epoch = $2 AND status = 'receiving')",
            )
            .bind(key.id.as_uuid())
            .bind(key.epoch.get())
            .fetch_one(&mut *transaction)
            .await?;
            if !is_receiving {
                return Ok(false);
            }
            sqlx::query(
                r#"INSERT INTO rejected_rows (upload_id, row_number, line, byte_offset, column_name, code, message, raw, fields)
                   SELECT $1, row, line, "offset", "column", code, message, raw, fields
                   FROM jsonb_to_recordset($2) AS r (row bigint, line bigint, "offset" bigint, "column" text, code text,
                                                     message text, raw text, fields jsonb)
                   ON CONFLICT DO NOTHING"#,
            )
            .bind(key.id.as_uuid())
            .bind(Json(rows))
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(true)
        })
        .await
    }

    fn rejected(&self, id: UploadId) -> BoxStream<'_, PortResult<RejectedRow>> {
        sql::rejected_rows(move |last_seen| call("store.rejected", page(&self.pool, id, last_seen)))
    }
}

async fn page(pool: &PgPool, id: UploadId, last_seen: u64) -> sqlx::Result<Vec<RejectedRow>> {
    let found: Vec<RejectedRecord> = sqlx::query_as(
        "SELECT row_number, line, byte_offset, column_name, code, message, raw, fields
         FROM rejected_rows WHERE upload_id = $1 AND row_number > $2 ORDER BY row_number LIMIT $3",
    )
    .bind(id.as_uuid())
    .bind(signed(last_seen))
    .bind(PAGE_ROWS)
    .fetch_all(pool)
    .await?;
    found.into_iter().map(sql::rejected_row).collect()
}
