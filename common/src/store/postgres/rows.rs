//! Reads rows back, page by page along the ledger.

use async_trait::async_trait;
use sqlx::postgres::PgPool;

use super::uploads::find;
use super::{PostgresStore, call};
use crate::error::PortResult;
use crate::store::paging::{FIRST_SEQ, LEDGER_LOOKAHEAD, LedgerRange, check_ended, page_of};
use crate::store::sql::{LedgerRecord, count, ledger_entry, signed};
use crate::store::{LedgerEntry, RowPage, RowStore, StoredRow};
use crate::upload::UploadId;

const OPERATION: &str = "store.row_page";

/// Makes the planner read a page by the index on row numbers. Before the first ANALYZE of a new
/// table, it would otherwise read the whole table for every page.
const READ_BY_INDEX: &str = "SELECT set_config('enable_seqscan', 'off', true),
                                    set_config('max_parallel_workers_per_gather', '0', true),
                                    set_config('jit', 'off', true)";

#[async_trait]
impl RowStore for PostgresStore {
    async fn row_page(&self, id: UploadId, after_seq: u32) -> PortResult<Option<RowPage>> {
        // This runs once per reading, before the second page, so that it does not delay the first
        // rows.
        if after_seq == FIRST_SEQ {
            summarize(&self.pool).await;
        }
        let ledger = call(OPERATION, ledger(&self.pool, id, after_seq)).await?;
        let Some(range) = page_of(&ledger, after_seq) else {
            let upload = call(OPERATION, find(&self.pool, id)).await?;
            return check_ended(OPERATION, upload, after_seq).map(|()| None);
        };
        let rows = call(OPERATION, rows(&self.pool, id, &range)).await?;
        range.page(OPERATION, rows).map(Some)
    }
}

/// Adds new blocks to the BRIN index on row numbers. Autovacuum does the same within a minute, but
/// until then every page of a new upload reads all new blocks.
async fn summarize(pool: &PgPool) {
    let summarize = sqlx::query("SELECT brin_summarize_new_values('rows_by_number'::regclass)");
    let summarized = call(OPERATION, summarize.execute(pool)).await;
    if let Err(error) = summarized {
        tracing::debug!(
            error = error.chain(),
            "cannot summarize the index `rows_by_number`; pages of new uploads are read slowly until autovacuum does it"
        );
    }
}

async fn ledger(pool: &PgPool, id: UploadId, after_seq: u32) -> sqlx::Result<Vec<LedgerEntry>> {
    let found: Vec<LedgerRecord> = sqlx::query_as(
        "SELECT b.seq, b.first_row, b.rows, b.archive_bytes, b.archive_crc32
         FROM uploads u JOIN batches b ON b.upload_id = u.id AND b.epoch = u.epoch
         WHERE u.id = $1 AND u.status IN ('completed', 'partial') AND b.seq > $2
         ORDER BY b.seq LIMIT $3",
    )
    .bind(id.as_uuid())
    .bind(i64::from(after_seq))
    .bind(LEDGER_LOOKAHEAD)
    .fetch_all(pool)
    .await?;
    found.into_iter().map(ledger_entry).collect()
}

async fn rows(pool: &PgPool, id: UploadId, range: &LedgerRange) -> sqlx::Result<Vec<StoredRow>> {
    let mut transaction = pool.begin().await?;
    sqlx::query(READ_BY_INDEX)
        .execute(&mut *transaction)
        .await?;
    let found: Vec<(i64, Vec<Option<String>>)> = sqlx::query_as(
        "SELECT row_number, fields FROM rows
         WHERE upload_id = $1 AND row_number BETWEEN $2 AND $3
         ORDER BY row_number LIMIT $4",
    )
    .bind(id.as_uuid())
    .bind(signed(range.first_row))
    .bind(signed(range.last_row))
    .bind(signed(range.rows))
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let row = |(row_number, fields)| {
        Ok(StoredRow {
            row_number: count("row_number", row_number)?,
            fields,
        })
    };
    found.into_iter().map(row).collect()
}
