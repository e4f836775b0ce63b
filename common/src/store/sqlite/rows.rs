//! Reads rows back, page by page along the ledger. No transaction stays open between two pages,
//! since an open one keeps SQLite from resetting the write-ahead log.

use async_trait::async_trait;
use sqlx::types::Json;

use super::SqliteStore;
use super::uploads::find;
use crate::error::PortResult;
use crate::sqlite::{Database, call};
use crate::store::paging::{LEDGER_LOOKAHEAD, LedgerRange, check_ended, page_of};
use crate::store::sql::{LedgerRecord, count, ledger_entry, signed};
use crate::store::{LedgerEntry, RowPage, RowStore, StoredRow};
use crate::upload::UploadId;

const OPERATION: &str = "store.row_page";

#[async_trait]
impl RowStore for SqliteStore {
    async fn row_page(&self, id: UploadId, after_seq: u32) -> PortResult<Option<RowPage>> {
        let ledger = call(OPERATION, ledger(&self.database, id, after_seq)).await?;
        let Some(range) = page_of(&ledger, after_seq) else {
            let upload = call(OPERATION, find(&self.database, id)).await?;
            return check_ended(OPERATION, upload, after_seq).map(|()| None);
        };
        let rows = call(OPERATION, rows(&self.database, id, &range)).await?;
        range.page(OPERATION, rows).map(Some)
    }
}

async fn ledger(
    database: &Database,
    id: UploadId,
    after_seq: u32,
) -> sqlx::Result<Vec<LedgerEntry>> {
    let found: Vec<LedgerRecord> = sqlx::query_as(
        "SELECT b.seq, b.first_row, b.rows, b.archive_bytes, b.archive_crc32
         FROM uploads u JOIN batches b ON b.upload_id = u.id AND b.epoch = u.epoch
         WHERE u.id = $1 AND u.status IN ('completed', 'partial') AND u.expired_at IS NULL AND b.seq > $2
         ORDER BY b.seq LIMIT $3",
    )
    .bind(id.to_string())
    .bind(i64::from(after_seq))
    .bind(LEDGER_LOOKAHEAD)
    .fetch_all(&database.readers)
    .await?;
    found.into_iter().map(ledger_entry).collect()
}

async fn rows(
    database: &Database,
    id: UploadId,
    range: &LedgerRange,
) -> sqlx::Result<Vec<StoredRow>> {
    // A row number takes the low 36 bits of a row's id.
    const LAST_NUMBER: u64 = (1 << 36) - 1;
    let found: Vec<(i64, Json<Vec<Option<String>>>)> = sqlx::query_as(
        "SELECT r.row_number, r.fields
         FROM uploads u JOIN rows r ON r.id BETWEEN (u.number << 36) + $2 AND (u.number << 36) + $3
         WHERE u.id = $1
         ORDER BY r.id LIMIT $4",
    )
    .bind(id.to_string())
    .bind(signed(range.first_row))
    .bind(signed(range.last_row.min(LAST_NUMBER)))
    .bind(signed(range.rows))
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
