//! Rejected rows, which the intake writes while it reads.

use async_trait::async_trait;
use futures::stream::BoxStream;
use sqlx::SqliteConnection;
use sqlx::types::Json;

use super::{SqliteStore, first_id, last_id};
use crate::error::PortResult;
use crate::rejects::RejectedRow;
use crate::sqlite::{Database, call};
use crate::store::RejectStore;
use crate::store::sql::{self, PAGE_ROWS, RejectedRecord, signed};
use crate::upload::{UploadId, UploadKey};

#[async_trait]
impl RejectStore for SqliteStore {
    async fn reject(&self, key: UploadKey, rows: &[RejectedRow]) -> PortResult<bool> {
        if self.is_failing(key) {
            return Ok(false);
        }
        call("store.reject", async {
            let mut transaction = self.database.begin().await?;
            let receiving: Option<i64> = sqlx::query_scalar(
                "SELECT number FROM uploads WHERE id = $1 AND epoch = $2 AND status = 'receiving'",
            )
            .bind(key.id.to_string())
            .bind(key.epoch.get())
            .fetch_optional(&mut *transaction)
            .await?;
            let Some(number) = receiving else {
                transaction.commit().await?;
                return Ok(false);
            };
            sqlx::query(
                "INSERT INTO rejected_rows (id, line, byte_offset, column_name, code, message, raw, fields)
                 SELECT $1 + (value ->> 'row'), value ->> 'line', value ->> 'offset', value ->> 'column', value ->> 'code',
                        value ->> 'message', value ->> 'raw', value ->> 'fields'
                 FROM json_each($2) WHERE true
                 ON CONFLICT DO NOTHING",
            )
            .bind(first_id(number))
            .bind(Json(rows))
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(true)
        })
        .await
    }

    fn rejected(&self, id: UploadId) -> BoxStream<'_, PortResult<RejectedRow>> {
        sql::rejected_rows(move |last_seen| {
            call("store.rejected", page(&self.database, id, last_seen))
        })
    }
}

/// How many rejected rows an upload has.
pub(super) async fn count(connection: &mut SqliteConnection, id: UploadId) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "SELECT count(*) FROM uploads u
         JOIN rejected_rows r ON r.id BETWEEN u.number << 36 AND (u.number << 36) + 0xfffffffff
         WHERE u.id = $1",
    )
    .bind(id.to_string())
    .fetch_one(connection)
    .await
}

async fn page(database: &Database, id: UploadId, last_seen: u64) -> sqlx::Result<Vec<RejectedRow>> {
    let mut connection = database.readers.acquire().await?;
    let known: Option<i64> = sqlx::query_scalar("SELECT number FROM uploads WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(number) = known else {
        return Ok(Vec::new());
    };
    let found: Vec<RejectedRecord> = sqlx::query_as(
        "SELECT row_number, line, byte_offset, column_name, code, message, raw, fields
         FROM rejected_rows WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3",
    )
    .bind(first_id(number) + signed(last_seen))
    .bind(last_id(number))
    .bind(PAGE_ROWS)
    .fetch_all(&mut *connection)
    .await?;
    found.into_iter().map(sql::rejected_row).collect()
}
