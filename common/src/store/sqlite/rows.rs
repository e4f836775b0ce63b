//! Rows as they are read back.

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use sqlx::types::Json;

use super::SqliteStore;
use super::uploads::find;
use crate::error::{ErrorKind, PortError, PortResult};
use crate::sqlite::{Database, call};
use crate::store::sql::{PAGE_ROWS, count, signed};
use crate::store::{RowStore, StoredRow};
use crate::upload::UploadId;

const OPERATION: &str = "store.rows";

impl RowStore for SqliteStore {
    /// Page by page: a reader who takes an hour for a million rows must not keep the log from being
    /// cut back for an hour.
    fn rows(&self, id: UploadId) -> BoxStream<'_, PortResult<StoredRow>> {
        stream::try_unfold(0, move |last_seen| async move {
            let page = call(OPERATION, page(&self.database, id, last_seen)).await?;
            let Some(last) = page.last().map(|row| row.row_number) else {
                check_not_removed(&self.database, id, last_seen).await?;
                return Ok(None);
            };
            Ok(Some((stream::iter(page).map(Ok), last)))
        })
        .try_flatten()
        .boxed()
    }
}

/// The rows after the last one seen.
async fn page(database: &Database, id: UploadId, last_seen: u64) -> sqlx::Result<Vec<StoredRow>> {
    let found: Vec<(i64, Json<Vec<Option<String>>>)> = sqlx::query_as(
        "SELECT r.row_number, r.fields
         FROM uploads u JOIN rows r ON r.id > (u.number << 36) + $2 AND r.id <= (u.number << 36) + 0xfffffffff
         WHERE u.id = $1 AND u.status IN ('completed', 'partial')
         ORDER BY r.id LIMIT $3",
    )
    .bind(id.to_string())
    .bind(signed(last_seen))
    .bind(PAGE_ROWS)
    .fetch_all(&database.readers)
    .await?;
    let row = |(row_number, fields): (i64, Json<_>)| {
        Ok(StoredRow {
            row_number: count("row_number", row_number)?,
            fields: fields.0,
        })
    };
    found.into_iter().map(row).collect()
}

/// An empty page after others is the end, unless the rows were removed between two pages.
async fn check_not_removed(database: &Database, id: UploadId, last_seen: u64) -> PortResult<()> {
    let upload = call(OPERATION, find(database, id)).await?;
    if last_seen == 0 || upload.is_some_and(|upload| upload.status.keeps_rows()) {
        return Ok(());
    }
    let reason = "the rows were removed while they were being read";
    Err(PortError::new(ErrorKind::Conflict, OPERATION, reason))
}
