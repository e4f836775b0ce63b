//! Reads rows back, page by page along the ledger. No transaction stays open between two pages,
//! since an open one keeps SQLite from resetting the write-ahead log.

use async_trait::async_trait;
use futures::TryStreamExt;
use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;
use sqlx::{Row, SqliteConnection};

use super::upload_record::find;
use super::{SqliteStore, typed_tables};
use crate::dataset::ColumnType;
use crate::error::PortResult;
use crate::sqlite::{Database, call};
use crate::store::paging::{Found, LEDGER_LOOKAHEAD, LedgerRange, check_ended, page_of};
use crate::store::sql::{LedgerRecord, count, ledger_entry, signed};
use crate::store::{LedgerEntry, RowPage, RowStore, StoredRow};
use crate::upload::{UploadDataset, UploadId};

const OPERATION: &str = "store.row_page";

#[async_trait]
impl RowStore for SqliteStore {
    async fn row_page(&self, id: UploadId, after_seq: u32) -> PortResult<Option<RowPage>> {
        let ledger = call(OPERATION, ledger(&self.database, id, after_seq)).await?;
        let Some(range) = page_of(&ledger, after_seq) else {
            let upload = call(OPERATION, find(&self.database, id)).await?;
            return check_ended(OPERATION, upload, after_seq).map(|()| None);
        };
        let found = call(OPERATION, rows(&self.database, id, &range)).await?;
        range.page(OPERATION, found).map(Some)
    }
}

async fn ledger(
    database: &Database,
    id: UploadId,
    after_seq: u32,
) -> sqlx::Result<Vec<LedgerEntry>> {
    let found: Vec<LedgerRecord> = sqlx::query_as(
        "SELECT b.seq, b.first_row, b.rows, b.rejected, b.updated, b.duplicate, b.archive_bytes, b.archive_crc32,
                b.archive_compression, b.object_bytes
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

/// The highest possible row number, which takes the low 36 bits of a row's id.
const LAST_NUMBER: u64 = (1 << 36) - 1;

/// Reads the rows of a range from one snapshot, so that they cannot be removed in between.
async fn rows(database: &Database, id: UploadId, range: &LedgerRange) -> sqlx::Result<Found> {
    let mut snapshot = database.readers.begin().await?;
    let upload: Option<Option<Json<UploadDataset>>> = sqlx::query_scalar(
        "SELECT dataset FROM uploads
         WHERE id = $1 AND status IN ('completed', 'partial') AND expired_at IS NULL",
    )
    .bind(id.to_string())
    .fetch_optional(&mut *snapshot)
    .await?;
    let found = match upload {
        None => Found::Removed,
        Some(None) => Found::Landing(landing_rows(&mut snapshot, id, range).await?),
        Some(Some(Json(dataset))) => {
            Found::Dataset(typed_rows(&mut snapshot, id, &dataset, range).await?)
        }
    };
    snapshot.commit().await?;
    Ok(found)
}

async fn landing_rows(
    connection: &mut SqliteConnection,
    id: UploadId,
    range: &LedgerRange,
) -> sqlx::Result<Vec<StoredRow>> {
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
    .fetch_all(connection)
    .await?;
    let row = |(row_number, fields): (i64, Json<_>)| {
        Ok(StoredRow {
            row_number: count("row_number", row_number)?,
            fields: fields.0,
        })
    };
    found.into_iter().map(row).collect()
}

/// Takes the rows one by one, since a row of SQLite takes far more memory than its cells. The
/// statement is not kept: it may be long, and each dataset has its own.
async fn typed_rows(
    connection: &mut SqliteConnection,
    id: UploadId,
    dataset: &UploadDataset,
    range: &LedgerRange,
) -> sqlx::Result<Vec<StoredRow>> {
    let statement = typed_tables::select_rows(dataset);
    let mut found = sqlx::query(&statement)
        .persistent(false)
        .bind(id.to_string())
        .bind(signed(range.first_row))
        .bind(signed(range.last_row.min(LAST_NUMBER)))
        .bind(signed(range.rows))
        .fetch(connection);
    let mut rows = Vec::new();
    while let Some(row) = found.try_next().await? {
        rows.push(stored_row(&row, dataset)?);
    }
    Ok(rows)
}

fn stored_row(row: &SqliteRow, dataset: &UploadDataset) -> sqlx::Result<StoredRow> {
    let columns = (1..).zip(&dataset.columns);
    let fields = columns.map(|(index, column)| canonical(row, index, column.kind));
    Ok(StoredRow {
        row_number: count("row_number", row.try_get::<i64, _>(0)?)?,
        fields: fields.collect::<sqlx::Result<_>>()?,
    })
}

/// The canonical text of a stored value. A float is formatted here, since SQLite writes `1.0e-07`
/// for `1e-7`.
fn canonical(row: &SqliteRow, index: usize, kind: ColumnType) -> sqlx::Result<Option<String>> {
    Ok(match kind {
        ColumnType::Integer => {
            let number: Option<i64> = row.try_get(index)?;
            number.map(|number| number.to_string())
        }
        ColumnType::Float => {
            let number: Option<f64> = row.try_get(index)?;
            number.map(|number| format!("{number:?}"))
        }
        ColumnType::Boolean => {
            let is_true: Option<bool> = row.try_get(index)?;
            is_true.map(|is_true| is_true.to_string())
        }
        ColumnType::Text
        | ColumnType::Numeric
        | ColumnType::Date
        | ColumnType::Timestamp
        | ColumnType::Uuid
        | ColumnType::Json => row.try_get(index)?,
    })
}
