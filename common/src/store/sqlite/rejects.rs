//! Rejected rows. The intake writes them while it reads, and the store writes them with a batch.

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::types::Json;

use super::{SqliteStore, first_id};
use crate::error::PortResult;
use crate::rejects::RejectedRow;
use crate::sqlite::{Database, call};
use crate::store::RejectStore;
use crate::store::sql::{
    REJECT_PAGE_BYTES, REJECT_PAGE_ROWS, RejectedRecord, rejected_row, signed,
};
use crate::upload::{UploadId, UploadKey};

/// A larger row is inserted alone. SQLite holds about ten copies of each row of a group, which it
/// reads as JSON.
const GROUPED_BYTES: usize = 64 << 10;

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
            insert(&mut transaction, number, rows).await?;
            transaction.commit().await?;
            Ok(true)
        })
        .await
    }

    async fn rejected_page(&self, id: UploadId, after_row: u64) -> PortResult<Vec<RejectedRow>> {
        call("store.rejected_page", page(&self.database, id, after_row)).await
    }
}

/// Inserts rejected rows of the upload with this number.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    number: i64,
    rows: &[RejectedRow],
) -> sqlx::Result<()> {
    let is_small = |row: &RejectedRow| row.size_bytes() <= GROUPED_BYTES;
    for group in rows.chunk_by(|row, next| is_small(row) && is_small(next)) {
        match group {
            [row] => insert_row(connection, first_id(number), row).await?,
            rows => insert_group(connection, first_id(number), rows).await?,
        }
    }
    Ok(())
}

async fn insert_group(
    connection: &mut SqliteConnection,
    first_id: i64,
    rows: &[RejectedRow],
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO rejected_rows (id, line, byte_offset, column_name, code, constraint_name, message, raw, fields)
         SELECT $1 + (value ->> 'row'), value ->> 'line', value ->> 'offset', value ->> 'column', value ->> 'code',
                value ->> 'constraint', value ->> 'message', value ->> 'raw', value ->> 'fields'
         FROM json_each($2) WHERE true
         ON CONFLICT DO NOTHING",
    )
    .bind(first_id)
    .bind(Json(rows))
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_row(
    connection: &mut SqliteConnection,
    first_id: i64,
    row: &RejectedRow,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO rejected_rows (id, line, byte_offset, column_name, code, constraint_name, message, raw, fields)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT DO NOTHING",
    )
    .bind(first_id + signed(row.row))
    .bind(signed(row.line))
    .bind(signed(row.offset))
    .bind(&row.column)
    .bind(&row.code)
    .bind(&row.constraint)
    .bind(&row.message)
    .bind(&row.raw)
    .bind(row.fields.as_ref().map(Json))
    .execute(connection)
    .await?;
    Ok(())
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

/// Selects the next rejected rows. `$1` to `$4`: the upload, the row number before the page, the
/// most rows, the most bytes. The rows are read last: `octet_length` reads no content if its
/// argument is a column. With any other expression, each page of long rows would also read the rows
/// behind it.
const PAGE: &str = "WITH
    next AS (SELECT r.id, coalesce(octet_length(r.raw), 0) + coalesce(octet_length(r.fields), 0) AS bytes
             FROM uploads u
             JOIN rejected_rows r ON r.id > (u.number << 36) + $2
                 AND r.id <= (u.number << 36) + 0xfffffffff
             WHERE u.id = $1 ORDER BY r.id LIMIT $3),
    sized AS (SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS bytes_before FROM next)
    SELECT r.row_number, r.line, r.byte_offset, r.column_name, r.code, r.constraint_name, r.message, r.raw, r.fields
    FROM sized s JOIN rejected_rows r ON r.id = s.id
    WHERE s.bytes_before < $4 ORDER BY r.id";

async fn page(database: &Database, id: UploadId, after_row: u64) -> sqlx::Result<Vec<RejectedRow>> {
    let page: Vec<RejectedRecord> = sqlx::query_as(PAGE)
        .bind(id.to_string())
        .bind(signed(after_row))
        .bind(REJECT_PAGE_ROWS)
        .bind(REJECT_PAGE_BYTES)
        .fetch_all(&database.readers)
        .await?;
    page.into_iter().map(rejected_row).collect()
}
