//! The records of uploads and every change of their status.

use jiff::Timestamp;
use jiff_sqlx::{Timestamp as SqlTimestamp, ToSqlx};
use sqlx::postgres::{PgPool, PgRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row};
use uuid::Uuid;

use super::super::rules::{signed, unsigned};
use super::{lock_status, port_error};
use crate::error::PortResult;
use crate::store::{Heartbeat, NewUpload, Seal, UploadQuery};
use crate::upload::{Dialect, Failure, Status, Upload, UploadId};

/// An upload with its lease: while it is received, the lease has the figures. A macro, since a query's text is static.
macro_rules! select_upload {
    ($rest:literal) => {
        concat!(
            "SELECT u.id, u.epoch, u.status, u.filename, u.dialect, u.columns, u.bytes_total,
                    GREATEST(u.bytes_received, l.bytes_received) AS bytes_received,
                    GREATEST(u.rows_read, l.rows_read) AS rows_read,
                    u.batches_total, u.rows_inserted, u.sha256, u.failure, u.cleanup_pending,
                    (SELECT count(*) FROM parked_batches p WHERE p.upload_id = u.id AND p.epoch = u.epoch) AS batches_dead,
                    u.created_at, GREATEST(u.updated_at, l.renewed_at) AS updated_at, u.finished_at
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
        let sha256: Option<Vec<u8>> = row.try_get("sha256")?;
        let failure: Option<Json<Failure>> = row.try_get("failure")?;
        let dialect: Json<Dialect> = row.try_get("dialect")?;
        let count = |name: &str| Ok::<_, sqlx::Error>(unsigned(row.try_get(name)?));
        let maybe_count =
            |name: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(name)?.map(unsigned));
        let batches_total: Option<i32> = row.try_get("batches_total")?;
        Ok(Self {
            id: row.try_get::<Uuid, _>("id")?.into(),
            epoch: row.try_get("epoch")?,
            status: status.parse().map_err(|error| sqlx::Error::ColumnDecode {
                index: "status".to_owned(),
                source: Box::new(error),
            })?,
            filename: row.try_get("filename")?,
            dialect: dialect.0,
            columns: row.try_get("columns")?,
            bytes_total: maybe_count("bytes_total")?,
            bytes_received: count("bytes_received")?,
            rows_read: count("rows_read")?,
            batches_total: batches_total.map(i32::cast_unsigned),
            batches_dead: count("batches_dead")?,
            rows_inserted: maybe_count("rows_inserted")?,
            sha256: sha256.and_then(|bytes| bytes.try_into().ok()),
            failure: failure.map(|failure| failure.0),
            cleanup_pending: row.try_get("cleanup_pending")?,
            created_at: time("created_at")?,
            updated_at: time("updated_at")?,
            finished_at: finished_at.map(|time| time.to_jiff()),
        })
    }
}

pub(super) async fn create(pool: &PgPool, upload: &NewUpload) -> PortResult<Upload> {
    const OPERATION: &str = "store.create";
    let created = async {
        let mut transaction = pool.begin().await?;
        sqlx::query(
            "INSERT INTO uploads (id, status, filename, dialect, columns, bytes_total)
             VALUES ($1, 'receiving', $2, $3, $4, $5)",
        )
        .bind(upload.id.as_uuid())
        .bind(&upload.filename)
        .bind(Json(&upload.dialect))
        .bind(&upload.columns)
        .bind(upload.bytes_total.map(signed))
        .execute(&mut *transaction)
        .await?;
        sqlx::query("INSERT INTO upload_leases (upload_id) VALUES ($1)")
            .bind(upload.id.as_uuid())
            .execute(&mut *transaction)
            .await?;
        let created = sqlx::query_as(select_upload!("WHERE u.id = $1"))
            .bind(upload.id.as_uuid())
            .fetch_one(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(created)
    };
    created.await.map_err(|error| port_error(OPERATION, error))
}

pub(super) async fn heartbeat(pool: &PgPool, beats: &[Heartbeat]) -> PortResult<Vec<UploadId>> {
    let ids: Vec<Uuid> = beats.iter().map(|beat| beat.upload.as_uuid()).collect();
    let rows: Vec<i64> = beats.iter().map(|beat| signed(beat.rows_read)).collect();
    let bytes: Vec<i64> = beats
        .iter()
        .map(|beat| signed(beat.bytes_received))
        .collect();
    let renewed: Vec<(Uuid,)> = sqlx::query_as(
        "UPDATE upload_leases l
         SET rows_read = GREATEST(l.rows_read, b.rows_read),
             bytes_received = GREATEST(l.bytes_received, b.bytes_received),
             renewed_at = now()
         FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS b (upload_id, rows_read, bytes_received)
         WHERE l.upload_id = b.upload_id
         RETURNING l.upload_id",
    )
    .bind(ids)
    .bind(rows)
    .bind(bytes)
    .fetch_all(pool)
    .await
    .map_err(|error| port_error("store.heartbeat", error))?;
    Ok(renewed.into_iter().map(|(id,)| id.into()).collect())
}

pub(super) async fn seal(pool: &PgPool, id: UploadId, epoch: i32, seal: &Seal) -> PortResult<bool> {
    let sealed = async {
        let mut transaction = pool.begin().await?;
        lock_status(&mut transaction, id).await?;
        let sealed = sqlx::query(
            "UPDATE uploads
             SET status = 'processing', rows_read = $3, batches_total = $4, bytes_received = $5, sha256 = $6,
                 updated_at = now()
             WHERE id = $1 AND epoch = $2 AND status = 'receiving'",
        )
        .bind(id.as_uuid())
        .bind(epoch)
        .bind(signed(seal.rows))
        .bind(seal.batches.cast_signed())
        .bind(signed(seal.bytes))
        .bind(&seal.sha256[..])
        .execute(&mut *transaction)
        .await?;
        if sealed.rows_affected() > 0 {
            end_lease(&mut transaction, id).await?;
        }
        transaction.commit().await?;
        Ok(sealed.rows_affected() > 0)
    };
    sealed
        .await
        .map_err(|error| port_error("store.seal", error))
}

pub(super) async fn fail(
    pool: &PgPool,
    id: UploadId,
    epoch: i32,
    failure: &Failure,
    last: Option<Heartbeat>,
) -> PortResult<bool> {
    let failed = async {
        let mut transaction = pool.begin().await?;
        lock_status(&mut transaction, id).await?;
        // The figures a poll may have seen stay: the lease had them, and the ledger may be ahead of it.
        let failed = sqlx::query(
            "UPDATE uploads u
             SET status = 'failed', failure = $3, cleanup_pending = true, archive_pending = true,
                 rows_read = GREATEST(u.rows_read, $4, (SELECT rows_read FROM upload_leases WHERE upload_id = u.id),
                     (SELECT sum(rows) FROM batches WHERE upload_id = u.id AND epoch = u.epoch)),
                 bytes_received = GREATEST(u.bytes_received, $5,
                     (SELECT bytes_received FROM upload_leases WHERE upload_id = u.id)),
                 updated_at = now(), finished_at = now()
             WHERE u.id = $1 AND u.epoch = $2 AND u.status IN ('receiving', 'processing')",
        )
        .bind(id.as_uuid())
        .bind(epoch)
        .bind(Json(failure))
        .bind(signed(last.map_or(0, |beat| beat.rows_read)))
        .bind(signed(last.map_or(0, |beat| beat.bytes_received)))
        .execute(&mut *transaction)
        .await?;
        if failed.rows_affected() > 0 {
            end_lease(&mut transaction, id).await?;
        }
        transaction.commit().await?;
        Ok(failed.rows_affected() > 0)
    };
    failed
        .await
        .map_err(|error| port_error("store.fail", error))
}

pub(super) async fn complete(pool: &PgPool, id: UploadId, epoch: i32) -> PortResult<bool> {
    let completed = async {
        let mut transaction = pool.begin().await?;
        lock_status(&mut transaction, id).await?;
        // The accounts are closed here, in the store: no other way leads to `completed`.
        let completed = sqlx::query(
            "UPDATE uploads u
             SET status = 'completed', rows_inserted = l.rows, updated_at = now(), finished_at = now()
             FROM (SELECT count(*) AS batches, coalesce(sum(rows), 0)::bigint AS rows
                   FROM batches WHERE upload_id = $1 AND epoch = $2) l
             WHERE u.id = $1 AND u.epoch = $2 AND u.status = 'processing'
               AND u.batches_total = l.batches AND u.rows_read = l.rows",
        )
        .bind(id.as_uuid())
        .bind(epoch)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(completed.rows_affected() > 0)
    };
    completed
        .await
        .map_err(|error| port_error("store.complete", error))
}

async fn end_lease(connection: &mut sqlx::PgConnection, id: UploadId) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM upload_leases WHERE upload_id = $1")
        .bind(id.as_uuid())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn find(pool: &PgPool, id: UploadId) -> PortResult<Option<Upload>> {
    sqlx::query_as(select_upload!("WHERE u.id = $1"))
        .bind(id.as_uuid())
        .fetch_optional(pool)
        .await
        .map_err(|error| port_error("store.upload", error))
}

pub(super) async fn list(pool: &PgPool, query: &UploadQuery) -> PortResult<Vec<Upload>> {
    let before: Option<(Timestamp, UploadId)> = query.before;
    sqlx::query_as(select_upload!(
        "WHERE ($1::text IS NULL OR u.status = $1)
           AND ($2::timestamptz IS NULL OR (u.created_at, u.id) < ($2, $3))
         ORDER BY u.created_at DESC, u.id DESC
         LIMIT $4"
    ))
    .bind(query.status.map(Status::name))
    .bind(before.map(|(time, _)| time.to_sqlx()))
    .bind(before.map(|(_, id)| id.as_uuid()))
    .bind(i64::from(query.limit))
    .fetch_all(pool)
    .await
    .map_err(|error| port_error("store.uploads", error))
}
