//! Reads rows back, page by page along the ledger. Pages of datasets are in `typed`.

mod typed;

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Connection, FromRow, PgConnection, Postgres, Row as _};

use super::PostgresStore;
use super::connections::LONG;
use super::upload_record::find;
use crate::error::PortResult;
use crate::store::paging::{FIRST_SEQ, Found, LEDGER_LOOKAHEAD, LedgerRange, check_ended, page_of};
use crate::store::sql::{LedgerRecord, count, ledger_entry, signed};
use crate::store::{LedgerEntry, RowPage, RowStore, StoredRow};
use crate::upload::{UploadDataset, UploadId};

const OPERATION: &str = "store.row_page";

/// Makes the planner find rows by the index on row numbers. Before the first ANALYZE of a new
/// table, it would otherwise read the whole table every time.
pub(super) const READ_BY_INDEX: &str = "SELECT set_config('enable_seqscan', 'off', true),
                                    set_config('max_parallel_workers_per_gather', '0', true),
                                    set_config('jit', 'off', true)";

/// One page of rows in `landing`. It is a file, so that a test can run EXPLAIN on the same
/// statement.
const PAGE: &str = include_str!("page_of_rows.sql");

/// One page of rows if the previous version stored some of them, in the table `rows`. `$5`: the id
/// of the upload.
const PAGE_OF_BOTH_TABLES: &str = "SELECT row_number, fields FROM landing
    WHERE upload = $1 AND row_number BETWEEN $2 AND $3
    UNION ALL
    SELECT row_number, fields FROM rows
    WHERE upload_id = $5 AND row_number BETWEEN $2 AND $3
    ORDER BY row_number LIMIT $4";

#[async_trait]
impl RowStore for PostgresStore {
    async fn row_page(&self, id: UploadId, after_seq: u32) -> PortResult<Option<RowPage>> {
        let ledger = self
            .call(OPERATION, LONG, async |connection| {
                ledger(connection, id, after_seq).await
            })
            .await?;
        let Some(range) = page_of(&ledger.entries, after_seq) else {
            let upload = self
                .call(OPERATION, LONG, async |connection| {
                    find(connection, id).await
                })
                .await?;
            return check_ended(OPERATION, upload, after_seq).map(|()| None);
        };
        // This runs once per reading, before the second page, so that it does not delay the first
        // rows.
        if after_seq == FIRST_SEQ {
            let dataset = ledger.dataset.as_ref().map(UploadDataset::key);
            self.summarize(OPERATION, ledger.number, dataset.as_ref())
                .await;
        }
        let rows = self
            .call(OPERATION, LONG, async |connection| match &ledger.dataset {
                Some(dataset) => typed::rows(connection, id, dataset, &range).await,
                None => Ok(Found::Landing(rows(connection, id, &ledger, &range).await?)),
            })
            .await?;
        range.page(OPERATION, rows).map(Some)
    }
}

/// The next entries of an upload's ledger.
#[derive(Debug, Default)]
struct Ledger {
    entries: Vec<LedgerEntry>,
    /// The number of the upload.
    number: i64,
    /// The first batch of these whose rows are in the table `rows`.
    first_in_rows: Option<u32>,
    /// The dataset whose table has the rows of all batches, stored one by one or merged.
    dataset: Option<UploadDataset>,
}

/// A ledger entry with the location of its rows.
struct Entry {
    record: LedgerRecord,
    is_in_landing: bool,
    is_in_dataset: bool,
    /// The number of the upload.
    number: i64,
}

impl FromRow<'_, PgRow> for Entry {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            // It takes the first columns.
            record: FromRow::from_row(row)?,
            is_in_landing: row.try_get("landing")?,
            is_in_dataset: row.try_get("in_dataset")?,
            number: row.try_get("number")?,
        })
    }
}

async fn ledger(
    connection: &mut PgConnection,
    id: UploadId,
    after_seq: u32,
) -> sqlx::Result<Ledger> {
    let found: Vec<Entry> = sqlx::query_as(
        "SELECT b.seq, b.first_row, b.rows, b.rejected, b.updated, b.duplicate, b.archive_bytes, b.archive_crc32,
                b.archive_compression, b.object_bytes,
                b.landing, b.dataset OR u.dataset ->> 'merge' IS NOT NULL AS in_dataset, u.number
         FROM uploads u JOIN batches b ON b.upload_id = u.id AND b.epoch = u.epoch
         WHERE u.id = $1 AND u.status IN ('completed', 'partial') AND u.expired_at IS NULL AND b.seq > $2
         ORDER BY b.seq LIMIT $3",
    )
    .bind(id.as_uuid())
    .bind(i64::from(after_seq))
    .bind(LEDGER_LOOKAHEAD)
    .fetch_all(&mut *connection)
    .await?;
    let mut ledger = Ledger::default();
    let mut has_dataset = false;
    for found in found {
        let entry = ledger_entry(found.record)?;
        if !found.is_in_landing && !found.is_in_dataset && ledger.first_in_rows.is_none() {
            ledger.first_in_rows = Some(entry.seq);
        }
        has_dataset |= found.is_in_dataset;
        ledger.number = found.number;
        ledger.entries.push(entry);
    }
    if has_dataset {
        ledger.dataset = dataset(connection, id).await?;
    }
    Ok(ledger)
}

/// The dataset of an upload. It never changes, and is read once per page, because it has all
/// columns and the ledger would repeat them in every entry.
async fn dataset(
    connection: &mut PgConnection,
    id: UploadId,
) -> sqlx::Result<Option<UploadDataset>> {
    let found: Option<Json<UploadDataset>> =
        sqlx::query_scalar("SELECT dataset FROM uploads WHERE id = $1")
            .bind(id.as_uuid())
            .fetch_one(connection)
            .await?;
    Ok(found.map(|dataset| dataset.0))
}

/// The columns `row_number` and `fields`.
type Row = (i64, Vec<Option<String>>);

async fn rows(
    connection: &mut PgConnection,
    id: UploadId,
    ledger: &Ledger,
    range: &LedgerRange,
) -> sqlx::Result<Vec<StoredRow>> {
    let mut transaction = connection.begin().await?;
    sqlx::query(READ_BY_INDEX)
        .execute(&mut *transaction)
        .await?;
    let in_rows = ledger
        .first_in_rows
        .is_some_and(|seq| seq <= range.last_seq);
    let page = match in_rows {
        true => PAGE_OF_BOTH_TABLES,
        false => PAGE,
    };
    let mut page = sqlx::query_as::<Postgres, Row>(page)
        .bind(ledger.number)
        .bind(signed(range.first_row))
        .bind(signed(range.last_row))
        .bind(signed(range.rows));
    if in_rows {
        page = page.bind(id.as_uuid());
    }
    let found = page.fetch_all(&mut *transaction).await?;
    transaction.commit().await?;
    found.into_iter().map(stored_row).collect()
}

fn stored_row((row_number, fields): Row) -> sqlx::Result<StoredRow> {
    Ok(StoredRow {
        row_number: count("row_number", row_number)?,
        fields,
    })
}
