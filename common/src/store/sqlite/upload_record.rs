//! Reads the records of uploads.

use std::fmt::Display;
use std::str::FromStr;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row, Sqlite, SqliteConnection};

use crate::dataset::DatasetName;
use crate::sqlite::Database;
use crate::store::UploadQuery;
use crate::store::sql;
use crate::store::sqlite::time_text;
use crate::tenant::Tenant;
use crate::upload::{Dialect, Failure, Status, UndoneRows, Upload, UploadDataset, UploadId};

/// Selects uploads with their leases, which have the current figures of receiving uploads. It is a
/// macro so that the text of each query is static.
macro_rules! select_upload {
    ($($rest:literal),+) => {
        concat!(
            "SELECT u.id, u.public_id, u.tenant, u.created_by, u.epoch, u.status, u.filename, u.dialect, u.columns, u.dataset, u.bytes_total,
                    max(u.bytes_received, coalesce(l.bytes_received, 0)) AS bytes_received,
                    max(u.rows_read, coalesce(l.rows_read, 0)) AS rows_read,
                    max(u.rows_rejected, coalesce(l.rows_rejected, 0)) AS rows_rejected, u.rows_violating, u.blank_lines,
                    u.batches_total, u.rows_inserted, u.rows_updated, u.rows_duplicate, u.sha256, u.duplicate_of, u.failure,
                    u.cleanup_pending, u.is_reversible, u.undone,
                    (SELECT count(*) FROM dead_letters d WHERE d.upload_id = u.id AND d.is_missing AND d.retried_at IS NULL) AS batches_dead,
                    (SELECT count(*) FROM dead_letters d WHERE d.upload_id = u.id AND d.is_missing AND d.retried_at IS NOT NULL) AS batches_retrying,
                    coalesce(u.rows_dead, (SELECT coalesce(sum(d.rows), 0) FROM dead_letters d
                                           WHERE d.upload_id = u.id AND d.is_missing AND d.retried_at IS NULL)) AS rows_dead,
                    u.created_at, max(u.updated_at, coalesce(l.renewed_at, '')) AS updated_at, u.finished_at, u.expired_at,
                    (SELECT missing_since FROM upload_holds h WHERE h.upload_id = u.id AND u.status = 'processing') AS missing_since
             FROM uploads u LEFT JOIN upload_leases l ON l.upload_id = u.id ",
            $($rest),+
        )
    };
}

/// Each of these queries has all seven parameters. `$1` to `$7`: the status, the time and the id at
/// the end of the page before, the length of the page, the tenant, the dataset, the sender.
const ALL_UPLOADS: &str = select_upload!(
    "WHERE $5 IS NULL AND ($6 IS NULL OR u.dataset ->> 'name' = $6)
       AND ($7 IS NULL OR u.created_by = $7 OR substr(u.created_by, 1, length($7) + 1) = $7 || '.')
       AND ($1 IS NULL OR u.status = $1)
       AND ($2 IS NULL OR (u.created_at, u.id) < ($2, $3))
     ORDER BY u.created_at DESC, u.id DESC
     LIMIT $4"
);

/// Selects a page of the uploads of a tenant. `$3` is a public id, and pages are ordered by the id
/// in the database, so the query looks that one up.
macro_rules! select_page_of_tenant {
    ($condition:literal) => {
        select_upload!(
            $condition,
            " AND u.tenant = $5
              AND ($7 IS NULL OR u.created_by = $7 OR substr(u.created_by, 1, length($7) + 1) = $7 || '.')
              AND ($1 IS NULL OR u.status = $1)
              AND ($2 IS NULL OR (u.created_at, u.id) < ($2, coalesce(
                   (SELECT shown.id FROM uploads shown
                    WHERE shown.tenant = $5 AND coalesce(shown.public_id, shown.id) = $3), $3)))
              ORDER BY u.created_at DESC, u.id DESC
              LIMIT $4"
        )
    };
}

/// A query of its own, because SQLite does not use an index for `$5 IS NULL OR …`.
const UPLOADS_OF_A_TENANT: &str = select_page_of_tenant!("WHERE $6 IS NULL");

/// The condition repeats that of the partial index.
const UPLOADS_OF_A_DATASET: &str =
    select_page_of_tenant!("WHERE u.dataset IS NOT NULL AND u.dataset ->> 'name' = $6");

impl FromRow<'_, SqliteRow> for Upload {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let sha256: Option<Vec<u8>> = row.try_get("sha256")?;
        let failure: Option<Json<Failure>> = row.try_get("failure")?;
        let undone: Option<Json<UndoneRows>> = row.try_get("undone")?;
        let dialect: Json<Dialect> = row.try_get("dialect")?;
        let columns: Json<Vec<String>> = row.try_get("columns")?;
        let dataset: Option<Json<UploadDataset>> = row.try_get("dataset")?;
        let batches_total: Option<i32> = row.try_get("batches_total")?;
        let id = parsed(row, "id")?;
        Ok(Self {
            id,
            public_id: maybe_parsed(row, "public_id")?.unwrap_or(id),
            tenant: parsed(row, "tenant")?,
            created_by: row.try_get("created_by")?,
            epoch: row.try_get::<i32, _>("epoch")?.into(),
            status: parsed(row, "status")?,
            filename: row.try_get("filename")?,
            dialect: dialect.0,
            columns: columns.0,
            dataset: dataset.map(|dataset| dataset.0),
            bytes_total: maybe_count(row, "bytes_total")?,
            bytes_received: count(row, "bytes_received")?,
            rows_read: count(row, "rows_read")?,
            rows_rejected: count(row, "rows_rejected")?,
            rows_violating: maybe_count(row, "rows_violating")?,
            blank_lines: maybe_count(row, "blank_lines")?,
            batches_total: batches_total
                .map(|total| sql::count("batches_total", total))
                .transpose()?,
            batches_dead: count(row, "batches_dead")?,
            batches_retrying: count(row, "batches_retrying")?,
            rows_dead: count(row, "rows_dead")?,
            rows_inserted: maybe_count(row, "rows_inserted")?,
            rows_updated: maybe_count(row, "rows_updated")?,
            rows_duplicate: maybe_count(row, "rows_duplicate")?,
            sha256: sha256
                .map(|bytes| sql::digest("sha256", bytes))
                .transpose()?,
            duplicate_of: maybe_parsed(row, "duplicate_of")?,
            failure: failure.map(|failure| failure.0),
            cleanup_pending: row.try_get("cleanup_pending")?,
            is_reversible: row.try_get("is_reversible")?,
            undone: undone.map(|undone| undone.0),
            created_at: parsed(row, "created_at")?,
            updated_at: parsed(row, "updated_at")?,
            finished_at: maybe_parsed(row, "finished_at")?,
            expired_at: maybe_parsed(row, "expired_at")?,
            missing_since: maybe_parsed(row, "missing_since")?,
        })
    }
}

fn count(row: &SqliteRow, column: &'static str) -> sqlx::Result<u64> {
    sql::count(column, row.try_get::<i64, _>(column)?)
}

fn maybe_count(row: &SqliteRow, column: &'static str) -> sqlx::Result<Option<u64>> {
    let value: Option<i64> = row.try_get(column)?;
    value.map(|value| sql::count(column, value)).transpose()
}

fn parsed<T: FromStr<Err: Display>>(row: &SqliteRow, column: &'static str) -> sqlx::Result<T> {
    sql::parsed(column, row.try_get(column)?)
}

fn maybe_parsed<T: FromStr<Err: Display>>(
    row: &SqliteRow,
    column: &'static str,
) -> sqlx::Result<Option<T>> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| sql::parsed(column, text)).transpose()
}

/// One upload.
pub(in crate::store::sqlite) async fn find(
    database: &Database,
    id: UploadId,
) -> sqlx::Result<Option<Upload>> {
    sqlx::query_as(select_upload!("WHERE u.id = $1"))
        .bind(id.to_string())
        .fetch_optional(&database.readers)
        .await
}

/// Finds an upload inside a transaction.
pub(in crate::store::sqlite) async fn find_in(
    connection: &mut SqliteConnection,
    id: UploadId,
) -> sqlx::Result<Option<Upload>> {
    sqlx::query_as(select_upload!("WHERE u.id = $1"))
        .bind(id.to_string())
        .fetch_optional(connection)
        .await
}

/// The upload that a tenant knows by this id.
pub(super) async fn find_of(
    database: &Database,
    tenant: &Tenant,
    public_id: UploadId,
) -> sqlx::Result<Option<Upload>> {
    sqlx::query_as(select_upload!(
        "WHERE u.tenant = $1 AND coalesce(u.public_id, u.id) = $2"
    ))
    .bind(tenant.as_str())
    .bind(public_id.to_string())
    .fetch_optional(&database.readers)
    .await
}

/// Uploads, newest first.
pub(super) async fn list(database: &Database, query: &UploadQuery) -> sqlx::Result<Vec<Upload>> {
    let before: Option<(Timestamp, UploadId)> = query.before;
    let uploads = match (&query.tenant, &query.dataset) {
        (None, _) => ALL_UPLOADS,
        (Some(_), None) => UPLOADS_OF_A_TENANT,
        (Some(_), Some(_)) => UPLOADS_OF_A_DATASET,
    };
    sqlx::query_as::<Sqlite, Upload>(uploads)
        .bind(query.status.map(Status::name))
        .bind(before.map(|(time, _)| time_text(time)))
        .bind(before.map(|(_, id)| id.to_string()))
        .bind(i64::from(query.limit))
        .bind(query.tenant.as_ref().map(Tenant::as_str))
        .bind(query.dataset.as_ref().map(DatasetName::as_str))
        .bind(query.created_by.as_deref())
        .fetch_all(&database.readers)
        .await
}
