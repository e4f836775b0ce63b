//! Reads the records of uploads.

use jiff::Timestamp;
use jiff_sqlx::{Timestamp as SqlTimestamp, ToSqlx};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row};
use uuid::Uuid;

use crate::dataset::DatasetName;
use crate::store::UploadQuery;
use crate::store::sql;
use crate::upload::{Dialect, Failure, Status, UndoneRows, Upload, UploadDataset, UploadId};

/// Selects uploads with their leases, which have the current figures of receiving uploads. It is a
/// macro so that the text of each query is static.
macro_rules! select_upload {
    ($rest:literal) => {
        concat!(
            "SELECT u.id, u.epoch, u.status, u.filename, u.dialect, u.columns, u.dataset, u.bytes_total,
                    GREATEST(u.bytes_received, l.bytes_received) AS bytes_received,
                    GREATEST(u.rows_read, l.rows_read) AS rows_read,
                    GREATEST(u.rows_rejected, l.rows_rejected) AS rows_rejected, u.rows_violating, u.blank_lines,
                    u.batches_total, u.rows_inserted, u.rows_updated, u.rows_duplicate, u.is_reversible, u.undone, u.sha256, u.duplicate_of, u.failure, u.cleanup_pending,
                    (SELECT count(*) FROM parked_batches p WHERE p.upload_id = u.id AND p.epoch = u.epoch) AS batches_dead,
                    u.created_at, GREATEST(u.updated_at, l.renewed_at) AS updated_at, u.finished_at, u.expired_at,
                    (SELECT missing_since FROM upload_holds h WHERE h.upload_id = u.id AND u.status = 'processing') AS missing_since
             FROM uploads u LEFT JOIN upload_leases l ON l.upload_id = u.id ",
            $rest
        )
    };
}

impl FromRow<'_, PgRow> for Upload {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let status: String = row.try_get("status")?;
        let time =
            |name: &str| Ok::<_, sqlx::Error>(row.try_get::<SqlTimestamp, _>(name)?.to_jiff());
        let finished_at: Option<SqlTimestamp> = row.try_get("finished_at")?;
        let expired_at: Option<SqlTimestamp> = row.try_get("expired_at")?;
        let missing_since: Option<SqlTimestamp> = row.try_get("missing_since")?;
        let sha256: Option<Vec<u8>> = row.try_get("sha256")?;
        let failure: Option<Json<Failure>> = row.try_get("failure")?;
        let undone: Option<Json<UndoneRows>> = row.try_get("undone")?;
        let dialect: Json<Dialect> = row.try_get("dialect")?;
        let dataset: Option<Json<UploadDataset>> = row.try_get("dataset")?;
        let count = |name| sql::count(name, row.try_get::<i64, _>(name)?);
        let maybe_count = |name| {
            let value: Option<i64> = row.try_get(name)?;
            value.map(|value| sql::count(name, value)).transpose()
        };
        let batches_total: Option<i32> = row.try_get("batches_total")?;
        let duplicate_of: Option<Uuid> = row.try_get("duplicate_of")?;
        Ok(Self {
            id: row.try_get::<Uuid, _>("id")?.into(),
            epoch: row.try_get::<i32, _>("epoch")?.into(),
            status: sql::parsed("status", &status)?,
            filename: row.try_get("filename")?,
            dialect: dialect.0,
            columns: row.try_get("columns")?,
            dataset: dataset.map(|dataset| dataset.0),
            bytes_total: maybe_count("bytes_total")?,
            bytes_received: count("bytes_received")?,
            rows_read: count("rows_read")?,
            rows_rejected: count("rows_rejected")?,
            rows_violating: maybe_count("rows_violating")?,
            blank_lines: maybe_count("blank_lines")?,
            batches_total: batches_total
                .map(|total| sql::count("batches_total", total))
                .transpose()?,
            batches_dead: count("batches_dead")?,
            rows_inserted: maybe_count("rows_inserted")?,
            rows_updated: maybe_count("rows_updated")?,
            rows_duplicate: maybe_count("rows_duplicate")?,
            sha256: sha256
                .map(|bytes| sql::digest("sha256", bytes))
                .transpose()?,
            duplicate_of: duplicate_of.map(UploadId::from),
            failure: failure.map(|failure| failure.0),
            cleanup_pending: row.try_get("cleanup_pending")?,
            is_reversible: row.try_get("is_reversible")?,
            undone: undone.map(|undone| undone.0),
            created_at: time("created_at")?,
            updated_at: time("updated_at")?,
            finished_at: finished_at.map(|time| time.to_jiff()),
            expired_at: expired_at.map(|time| time.to_jiff()),
            missing_since: missing_since.map(|time| time.to_jiff()),
        })
    }
}

/// One upload.
pub(in crate::store::postgres) async fn find(
    connection: &mut PgConnection,
    id: UploadId,
) -> sqlx::Result<Option<Upload>> {
    sqlx::query_as(select_upload!("WHERE u.id = $1"))
        .bind(id.as_uuid())
        .fetch_optional(connection)
        .await
}

/// Whether the rows of an upload are merged into the table of its dataset at the end.
pub(in crate::store::postgres) async fn is_staged(
    connection: &mut PgConnection,
    id: UploadId,
) -> sqlx::Result<bool> {
    let is_staged: Option<bool> =
        sqlx::query_scalar("SELECT dataset ->> 'merge' IS NOT NULL FROM uploads WHERE id = $1")
            .bind(id.as_uuid())
            .fetch_optional(connection)
            .await?;
    Ok(is_staged.unwrap_or(false))
}

/// Uploads, newest first.
pub(super) async fn list(
    connection: &mut PgConnection,
    query: &UploadQuery,
) -> sqlx::Result<Vec<Upload>> {
    let before: Option<(Timestamp, UploadId)> = query.before;
    sqlx::query_as(select_upload!(
        "WHERE ($1::text IS NULL OR u.status = $1)
           AND ($2::timestamptz IS NULL OR (u.created_at, u.id) < ($2, $3))
           AND ($4::text IS NULL OR u.dataset ->> 'name' = $4)
         ORDER BY u.created_at DESC, u.id DESC
         LIMIT $5"
    ))
    .bind(query.status.map(Status::name))
    .bind(before.map(|(time, _)| time.to_sqlx()))
    .bind(before.map(|(_, id)| id.as_uuid()))
    .bind(query.dataset.as_ref().map(DatasetName::as_str))
    .bind(i64::from(query.limit))
    .fetch_all(connection)
    .await
}
