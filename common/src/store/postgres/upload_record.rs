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
use crate::tenant::Tenant;
use crate::upload::{Dialect, Failure, Status, UndoneRows, Upload, UploadDataset, UploadId};

/// Selects uploads with their leases, which have the current figures of receiving uploads. It is a
/// macro so that the text of each query is static.
macro_rules! select_upload {
    ($rest:literal) => {
        concat!(
            "SELECT u.id, u.public_id, u.tenant, u.created_by, u.epoch, u.status, u.filename, u.dialect, u.columns, u.dataset, u.bytes_total,
                    GREATEST(u.bytes_received, l.bytes_received) AS bytes_received,
                    GREATEST(u.rows_read, l.rows_read) AS rows_read,
                    GREATEST(u.rows_rejected, l.rows_rejected) AS rows_rejected, u.rows_violating, u.blank_lines,
                    u.batches_total, u.rows_inserted, u.rows_updated, u.rows_duplicate, u.is_reversible, u.undone, u.sha256, u.duplicate_of, u.failure, u.cleanup_pending,
                    d.batches_dead, d.batches_retrying, coalesce(u.rows_dead, d.rows_dead) AS rows_dead,
                    u.created_at, GREATEST(u.updated_at, l.renewed_at) AS updated_at, u.finished_at, u.expired_at,
                    (SELECT missing_since FROM upload_holds h WHERE h.upload_id = u.id AND u.status = 'processing') AS missing_since
             FROM uploads u LEFT JOIN upload_leases l ON l.upload_id = u.id
             CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE retried_at IS NULL) AS batches_dead,
                                        count(*) FILTER (WHERE retried_at IS NOT NULL) AS batches_retrying,
                                        coalesce(sum(rows) FILTER (WHERE retried_at IS NULL), 0)::bigint AS rows_dead
                                 FROM dead_letters WHERE upload_id = u.id AND is_missing) d ",
            $rest
        )
    };
}

impl FromRow<'_, PgRow> for Upload {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let status: String = row.try_get("status")?;
        let id: Uuid = row.try_get("id")?;
        let public_id: Option<Uuid> = row.try_get("public_id")?;
        let tenant: String = row.try_get("tenant")?;
        let sha256: Option<Vec<u8>> = row.try_get("sha256")?;
        let failure: Option<Json<Failure>> = row.try_get("failure")?;
        let undone: Option<Json<UndoneRows>> = row.try_get("undone")?;
        let dataset: Option<Json<UploadDataset>> = row.try_get("dataset")?;
        let batches_total: Option<i32> = row.try_get("batches_total")?;
        let duplicate_of: Option<Uuid> = row.try_get("duplicate_of")?;
        Ok(Self {
            id: id.into(),
            public_id: public_id.unwrap_or(id).into(),
            tenant: sql::parsed("tenant", &tenant)?,
            created_by: row.try_get("created_by")?,
            epoch: row.try_get::<i32, _>("epoch")?.into(),
            status: sql::parsed("status", &status)?,
            filename: row.try_get("filename")?,
            dialect: row.try_get::<Json<Dialect>, _>("dialect")?.0,
            columns: row.try_get("columns")?,
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
            duplicate_of: duplicate_of.map(UploadId::from),
            failure: failure.map(|failure| failure.0),
            cleanup_pending: row.try_get("cleanup_pending")?,
            is_reversible: row.try_get("is_reversible")?,
            undone: undone.map(|undone| undone.0),
            created_at: time(row, "created_at")?,
            updated_at: time(row, "updated_at")?,
            finished_at: maybe_time(row, "finished_at")?,
            expired_at: maybe_time(row, "expired_at")?,
            missing_since: maybe_time(row, "missing_since")?,
        })
    }
}

fn count(row: &PgRow, column: &'static str) -> sqlx::Result<u64> {
    sql::count(column, row.try_get::<i64, _>(column)?)
}

fn maybe_count(row: &PgRow, column: &'static str) -> sqlx::Result<Option<u64>> {
    let value: Option<i64> = row.try_get(column)?;
    value.map(|value| sql::count(column, value)).transpose()
}

fn time(row: &PgRow, column: &str) -> sqlx::Result<Timestamp> {
    let time: SqlTimestamp = row.try_get(column)?;
    Ok(time.to_jiff())
}

fn maybe_time(row: &PgRow, column: &str) -> sqlx::Result<Option<Timestamp>> {
    let time: Option<SqlTimestamp> = row.try_get(column)?;
    Ok(time.map(|time| time.to_jiff()))
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

/// The upload that a tenant knows by this id.
pub(super) async fn find_of(
    connection: &mut PgConnection,
    tenant: &Tenant,
    public_id: UploadId,
) -> sqlx::Result<Option<Upload>> {
    sqlx::query_as(select_upload!(
        "WHERE u.tenant = $1 AND coalesce(u.public_id, u.id) = $2"
    ))
    .bind(tenant.as_str())
    .bind(public_id.as_uuid())
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

/// Uploads of all tenants, newest first.
const OF_ALL: &str = select_upload!(
    "WHERE $7::text IS NULL
       AND ($6::text IS NULL OR u.created_by = $6 OR starts_with(u.created_by, $6 || '.'))
       AND ($1::text IS NULL OR u.status = $1)
       AND ($2::timestamptz IS NULL OR (u.created_at, u.id) < ($2, $3))
       AND ($4::text IS NULL OR u.dataset ->> 'name' = $4)
     ORDER BY u.created_at DESC, u.id DESC
     LIMIT $5"
);

/// Uploads of one tenant, newest first. A query of its own, because a plan for every value of `$7`
/// would not use the index on the tenant. `$3` is a public id, and pages are ordered by the id in
/// the database, so the query looks that one up.
const OF_TENANT: &str = select_upload!(
    "WHERE u.tenant = $7
       AND ($6::text IS NULL OR u.created_by = $6 OR starts_with(u.created_by, $6 || '.'))
       AND ($1::text IS NULL OR u.status = $1)
       AND ($2::timestamptz IS NULL OR (u.created_at, u.id) < ($2, coalesce(
            (SELECT shown.id FROM uploads shown
             WHERE shown.tenant = $7 AND coalesce(shown.public_id, shown.id) = $3), $3)))
       AND ($4::text IS NULL OR u.dataset ->> 'name' = $4)
     ORDER BY u.created_at DESC, u.id DESC
     LIMIT $5"
);

/// Uploads, newest first.
pub(super) async fn list(
    connection: &mut PgConnection,
    query: &UploadQuery,
) -> sqlx::Result<Vec<Upload>> {
    let before: Option<(Timestamp, UploadId)> = query.before;
    let uploads = match query.tenant {
        None => OF_ALL,
        Some(_) => OF_TENANT,
    };
    sqlx::query_as(uploads)
        .bind(query.status.map(Status::name))
        .bind(before.map(|(time, _)| time.to_sqlx()))
        .bind(before.map(|(_, id)| id.as_uuid()))
        .bind(query.dataset.as_ref().map(DatasetName::as_str))
        .bind(i64::from(query.limit))
        .bind(query.created_by.as_deref())
        .bind(query.tenant.as_ref().map(Tenant::as_str))
        .fetch_all(connection)
        .await
}
