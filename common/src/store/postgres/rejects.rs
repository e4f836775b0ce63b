//! Rejected rows. The intake writes them while it reads, and the store writes them with a batch.

use async_trait::async_trait;
use sqlx::types::Json;
use sqlx::{Connection, PgConnection};

use super::connections::{LONG, SHORT};
use super::{PostgresStore, fence_key, share_status};
use crate::error::PortResult;
use crate::rejects::RejectedRow;
use crate::store::RejectStore;
use crate::store::sql::{
    REJECT_PAGE_BYTES, REJECT_PAGE_ROWS, RejectedRecord, rejected_row, signed,
};
use crate::upload::{UploadId, UploadKey};

#[async_trait]
impl RejectStore for PostgresStore {
    async fn reject(&self, key: UploadKey, rows: &[RejectedRow]) -> PortResult<bool> {
        self.call("store.reject", LONG, async |connection| {
            let mut transaction = connection.begin().await?;
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
            insert(&mut transaction, key.id, rows).await?;
            transaction.commit().await?;
            Ok(true)
        })
        .await
    }

    async fn rejected_page(&self, id: UploadId, after_row: u64) -> PortResult<Vec<RejectedRow>> {
        self.call("store.rejected_page", SHORT, async |connection| {
            page(connection, id, after_row).await
        })
        .await
    }
}

/// Inserts rejected rows of an upload. Rows that are already there do not change.
pub(super) async fn insert(
    connection: &mut PgConnection,
    id: UploadId,
    rows: &[RejectedRow],
) -> sqlx::Result<()> {
    sqlx::query(
        r#"INSERT INTO rejected_rows
               (upload_id, row_number, line, byte_offset, column_name, code, constraint_name, message, raw, fields)
           SELECT $1, row, line, "offset", "column", code, "constraint", message, raw, fields
           FROM jsonb_to_recordset($2) AS r (row bigint, line bigint, "offset" bigint, "column" text, code text,
                                             "constraint" text, message text, raw text, fields jsonb)
           ON CONFLICT DO NOTHING"#,
    )
    .bind(id.as_uuid())
    .bind(Json(rows))
    .execute(connection)
    .await?;
    Ok(())
}

async fn page(
    connection: &mut PgConnection,
    id: UploadId,
    after_row: u64,
) -> sqlx::Result<Vec<RejectedRow>> {
    // A stored value may be compressed, and its exact size can only be found by reading it. The
    // stored sizes are known without that, so only rows that may be on the page are read.
    let page: Vec<RejectedRecord> = sqlx::query_as(
        "SELECT row_number, line, byte_offset, column_name, code, constraint_name, message, raw, fields
         FROM (
             SELECT *, sum(bytes) OVER (ORDER BY row_number) - bytes AS bytes_before
             FROM (
                 SELECT *, octet_length(coalesce(raw, '')) + octet_length(coalesce(fields::text, '')) AS bytes
                 FROM (
                     SELECT *, sum(stored_bytes) OVER (ORDER BY row_number) - stored_bytes AS stored_before
                     FROM (
                         SELECT *, coalesce(pg_column_size(raw), 0) + coalesce(pg_column_size(fields), 0) AS stored_bytes
                         FROM rejected_rows WHERE upload_id = $1 AND row_number > $2
                         ORDER BY row_number LIMIT $3
                     ) AS next
                 ) AS candidates
                 WHERE stored_before < $4
             ) AS measured
         ) AS sized
         WHERE bytes_before < $4
         ORDER BY row_number",
    )
    .bind(id.as_uuid())
    .bind(signed(after_row))
    .bind(REJECT_PAGE_ROWS)
    .bind(REJECT_PAGE_BYTES)
    .fetch_all(connection)
    .await?;
    page.into_iter().map(rejected_row).collect()
}
