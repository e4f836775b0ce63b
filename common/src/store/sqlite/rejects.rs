//! Rejected rows, which the intake writes while it reads.

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use sqlx::SqliteConnection;
use sqlx::types::Json;

use super::super::rules::{PAGE_ROWS, signed, unsigned};
use super::{first_id, last_id};
use crate::error::PortResult;
use crate::rejects::RejectedRow;
use crate::sqlite::{Database, port_error};
use crate::upload::UploadId;

pub(super) async fn reject(
    database: &Database,
    id: UploadId,
    epoch: i32,
    rows: &[RejectedRow],
) -> sqlx::Result<bool> {
    let mut writing = database.begin().await?;
    let receiving: Option<(i64,)> = sqlx::query_as(
        "SELECT number FROM uploads WHERE id = $1 AND epoch = $2 AND status = 'receiving'",
    )
    .bind(id.to_string())
    .bind(epoch)
    .fetch_optional(&mut *writing)
    .await?;
    let Some((number,)) = receiving else {
        writing.commit().await?;
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
    .execute(&mut *writing)
    .await?;
    writing.commit().await?;
    Ok(true)
}

pub(super) async fn count(connection: &mut SqliteConnection, id: UploadId) -> sqlx::Result<i64> {
    let (count,) = sqlx::query_as(
        "SELECT count(*) FROM uploads u
         JOIN rejected_rows r ON r.id BETWEEN u.number << 36 AND (u.number << 36) + 0xfffffffff
         WHERE u.id = $1",
    )
    .bind(id.to_string())
    .fetch_one(connection)
    .await?;
    Ok(count)
}

/// Page by page, as the rows are.
pub(super) fn rejected(
    database: &Database,
    id: UploadId,
) -> BoxStream<'_, PortResult<RejectedRow>> {
    stream::try_unfold(0, move |last_seen| async move {
        let page = page(database, id, last_seen).await;
        let page = page.map_err(|error| port_error("store.rejected", error))?;
        let last = page.last().map(|row| row.row);
        Ok(last.map(|last| (stream::iter(page).map(Ok), last)))
    })
    .try_flatten()
    .boxed()
}

type Row = (
    i64,
    i64,
    i64,
    Option<String>,
    String,
    String,
    Option<String>,
    Option<Json<Vec<String>>>,
);

async fn page(database: &Database, id: UploadId, last_seen: u64) -> sqlx::Result<Vec<RejectedRow>> {
    let mut connection = database.readers.acquire().await?;
    let known: Option<(i64,)> = sqlx::query_as("SELECT number FROM uploads WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let Some((number,)) = known else {
        return Ok(Vec::new());
    };
    let found: Vec<Row> = sqlx::query_as(
        "SELECT row_number, line, byte_offset, column_name, code, message, raw, fields
         FROM rejected_rows WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3",
    )
    .bind(first_id(number) + signed(last_seen))
    .bind(last_id(number))
    .bind(PAGE_ROWS)
    .fetch_all(&mut *connection)
    .await?;
    let row = |(row, line, offset, column, code, message, raw, fields): Row| RejectedRow {
        row: unsigned(row),
        line: unsigned(line),
        offset: unsigned(offset),
        column,
        code,
        message,
        raw,
        fields: fields.map(|fields| fields.0),
    };
    Ok(found.into_iter().map(row).collect())
}
