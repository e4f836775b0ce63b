//! Rejected rows, which the API writes while it reads.

use futures::stream::BoxStream;
use sqlx::postgres::PgPool;
use sqlx::types::Json;

use super::super::rules::{self, PAGE_ROWS, RejectedRecord, signed};
use super::{fence_key, port_error};
use crate::error::PortResult;
use crate::rejects::RejectedRow;
use crate::upload::UploadId;

/// Shares the upload's lock, as everybody who writes for it does.
pub(super) async fn reject(
    pool: &PgPool,
    id: UploadId,
    epoch: i32,
    rows: &[RejectedRow],
) -> PortResult<bool> {
    let kept = async {
        let mut transaction = pool.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock_shared($1)")
            .bind(fence_key(id))
            .execute(&mut *transaction)
            .await?;
        let (is_receiving,): (bool,) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM uploads WHERE id = $1 AND epoch = $2 AND status = 'receiving')",
        )
        .bind(id.as_uuid())
        .bind(epoch)
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
        .bind(id.as_uuid())
        .bind(Json(rows))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(true)
    };
    kept.await
        .map_err(|error| port_error("store.reject", error))
}

pub(super) fn rejected(pool: &PgPool, id: UploadId) -> BoxStream<'_, PortResult<RejectedRow>> {
    rules::rejected_rows(port_error, move |last_seen| page(pool, id, last_seen))
}

async fn page(pool: &PgPool, id: UploadId, last_seen: u64) -> sqlx::Result<Vec<RejectedRecord>> {
    sqlx::query_as(
        "SELECT row_number, line, byte_offset, column_name, code, message, raw, fields
         FROM rejected_rows WHERE upload_id = $1 AND row_number > $2 ORDER BY row_number LIMIT $3",
    )
    .bind(id.as_uuid())
    .bind(signed(last_seen))
    .bind(PAGE_ROWS)
    .fetch_all(pool)
    .await
}
