//! The records of uploads, from their creation to their end.

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::types::Json;

use super::quotas::{count_rest, end_lease};
use super::upload_record::find;
use super::{SqliteStore, audit, creation, now, rejects, undoing, upload_record};
use crate::audit::{Action, Written};
use crate::error::{ErrorKind, PortResult};
use crate::sha256::Sha256;
use crate::sqlite::{Database, call};
use crate::store::rules;
use crate::store::sql::{self, signed};
use crate::store::{
    CreateConditions, CreateOutcome, Heartbeat, NewUpload, Seal, UploadQuery, UploadStore,
};
use crate::sync::lock;
use crate::tenant::Tenant;
use crate::upload::{Failure, Upload, UploadId, UploadKey};

#[async_trait]
impl UploadStore for SqliteStore {
    async fn create(&self, upload: &NewUpload) -> PortResult<Upload> {
        const OPERATION: &str = "store.create";
        let created = creation::create_if(&self.database, upload, CreateConditions::default());
        let created = call(OPERATION, created)
            .await?
            .and_then(CreateOutcome::upload);
        created.ok_or_else(|| rules::no_dataset(OPERATION))
    }

    async fn create_if(
        &self,
        upload: &NewUpload,
        conditions: CreateConditions<'_>,
    ) -> PortResult<CreateOutcome> {
        const OPERATION: &str = "store.create_if";
        let created = creation::create_if(&self.database, upload, conditions);
        let created = call(OPERATION, created).await?;
        created.ok_or_else(|| rules::no_dataset(OPERATION))
    }

    async fn heartbeat(&self, beats: &[Heartbeat]) -> PortResult<Vec<UploadId>> {
        // An upload in `failing` counts as ended, so its lease is not renewed.
        let renewable: Vec<Heartbeat> = {
            let failing = lock(&self.failing);
            let is_failing = |id| failing.iter().any(|key| key.id == id);
            let renewable = beats.iter().filter(|beat| !is_failing(beat.upload));
            renewable.copied().collect()
        };
        call("store.heartbeat", heartbeat(&self.database, &renewable)).await
    }

    async fn seal(&self, key: UploadKey, seal: &Seal) -> PortResult<bool> {
        call("store.seal", async {
            let mut transaction = self.database.begin().await?;
            // Read inside the transaction, because a sweep may have fenced the upload while this
            // call waited for the writer.
            if self.is_failing(key) {
                transaction.commit().await?;
                return Ok(false);
            }
            let sealed = sqlx::query(
                "UPDATE uploads
                 SET status = 'processing', rows_read = $3, batches_total = $4, bytes_received = $5, sha256 = $6,
                     updated_at = $7, rows_rejected = $8, blank_lines = $9, duplicate_of = $10,
                     dialect = coalesce($11, dialect)
                 WHERE id = $1 AND epoch = $2 AND status = 'receiving'",
            )
            .bind(key.id.to_string())
            .bind(key.epoch.get())
            .bind(signed(seal.rows))
            .bind(seal.batches.cast_signed())
            .bind(signed(seal.bytes))
            .bind(seal.sha256.as_bytes())
            .bind(now())
            .bind(signed(seal.rejected))
            .bind(signed(seal.blank_lines))
            .bind(seal.duplicate_of.map(|id| id.to_string()))
            .bind(seal.dialect.as_ref().map(Json))
            .execute(&mut *transaction)
            .await?;
            let is_sealed = match sealed.rows_affected() {
                0 => {
                    sqlx::query_scalar(sql::IS_SEALED)
                        .bind(key.id.to_string())
                        .bind(key.epoch.get())
                        .bind(signed(seal.rows))
                        .bind(seal.batches.cast_signed())
                        .bind(signed(seal.rejected))
                        .bind(seal.sha256.as_bytes())
                        .fetch_one(&mut *transaction)
                        .await?
                }
                _ => {
                    end_lease(&mut transaction, key.id).await?;
                    true
                }
            };
            transaction.commit().await?;
            Ok(is_sealed)
        })
        .await
    }

    async fn fail(
        &self,
        key: UploadKey,
        failure: &Failure,
        last: Option<Heartbeat>,
    ) -> PortResult<bool> {
        let end = end(&self.database, key, Some(failure), last);
        let failed = call("store.fail", end).await;
        match &failed {
            Ok(_) => lock(&self.failing).remove(&key),
            Err(error) if error.kind() == ErrorKind::Full => lock(&self.failing).insert(key),
            Err(_) => false,
        };
        failed
    }

    async fn cancel(&self, key: UploadKey) -> PortResult<bool> {
        let end = end(&self.database, key, None, None);
        call("store.cancel", end).await
    }

    async fn undo(&self, key: UploadKey) -> PortResult<bool> {
        call("store.undo", undoing::undo(&self.database, key)).await
    }

    async fn same_content(
        &self,
        tenant: &Tenant,
        sha256: Sha256,
        except: UploadId,
    ) -> PortResult<Option<UploadId>> {
        call("store.same_content", async {
            let found: Option<String> = sqlx::query_scalar(sql::SAME_CONTENT)
                .bind(sha256.as_bytes())
                .bind(except.to_string())
                .bind(tenant.as_str())
                .fetch_optional(&self.database.readers)
                .await?;
            found.map(|id| sql::parsed("id", &id)).transpose()
        })
        .await
    }

    async fn claim_content(&self, key: UploadKey, sha256: Sha256) -> PortResult<Option<UploadId>> {
        call("store.claim_content", async {
            let mut transaction = self.database.begin().await?;
            let holder: Option<String> = sqlx::query_scalar(sql::CONTENT_HOLDER)
                .bind(sha256.as_bytes())
                .bind(key.id.to_string())
                .fetch_optional(&mut *transaction)
                .await?;
            if holder.is_none() {
                sqlx::query(sql::CLAIM_CONTENT)
                    .bind(key.id.to_string())
                    .bind(key.epoch.get())
                    .bind(sha256.as_bytes())
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await?;
            holder.map(|id| sql::parsed("id", &id)).transpose()
        })
        .await
    }

    async fn upload(&self, id: UploadId) -> PortResult<Option<Upload>> {
        call("store.upload", find(&self.database, id)).await
    }

    async fn upload_of(&self, tenant: &Tenant, public_id: UploadId) -> PortResult<Option<Upload>> {
        let find = upload_record::find_of(&self.database, tenant, public_id);
        call("store.upload_of", find).await
    }

    async fn uploads(&self, query: &UploadQuery) -> PortResult<Vec<Upload>> {
        call("store.uploads", upload_record::list(&self.database, query)).await
    }
}

async fn heartbeat(database: &Database, beats: &[Heartbeat]) -> sqlx::Result<Vec<UploadId>> {
    let mut transaction = database.begin().await?;
    let now = now();
    let mut renewed = Vec::with_capacity(beats.len());
    for beat in beats {
        let updated = sqlx::query(
            "UPDATE upload_leases
             SET rows_read = max(rows_read, $2), bytes_received = max(bytes_received, $3), renewed_at = $4,
                 rows_rejected = max(rows_rejected, $5)
             WHERE upload_id = $1",
        )
        .bind(beat.upload.to_string())
        .bind(signed(beat.rows_read))
        .bind(signed(beat.bytes_received))
        .bind(&now)
        .bind(signed(beat.rows_rejected))
        .execute(&mut *transaction)
        .await?;
        if updated.rows_affected() > 0 {
            renewed.push(beat.upload);
        }
    }
    transaction.commit().await?;
    Ok(renewed)
}

/// Ends an upload whose rows are not kept: as `failed` if there is a failure, else as `cancelled`.
async fn end(
    database: &Database,
    key: UploadKey,
    failure: Option<&Failure>,
    last: Option<Heartbeat>,
) -> sqlx::Result<bool> {
    let mut transaction = database.begin().await?;
    let has_ended = record_end(&mut transaction, key, failure, last).await?;
    let written = match has_ended && failure.is_none() {
        true => audit::record_upload(&mut transaction, key.id, Action::CancelUpload).await?,
        false => Written(None),
    };
    transaction.commit().await?;
    written.log();
    Ok(has_ended)
}

/// Makes the changes of `end` in a write transaction.
pub(super) async fn record_end(
    connection: &mut SqliteConnection,
    key: UploadKey,
    failure: Option<&Failure>,
    last: Option<Heartbeat>,
) -> sqlx::Result<bool> {
    let violating = violating(connection, key).await?;
    let rejected = rejects::count(connection, key.id).await? - violating;
    // Figures that a client has already read must not go down. They came from the lease, or from
    // the ledger, which may be ahead of the lease. Those of a sealed upload are exact.
    let ended = sqlx::query(
        "UPDATE uploads
         SET status = CASE WHEN $3 IS NULL THEN 'cancelled' ELSE 'failed' END, failure = $3, cleanup_pending = 1, archive_pending = 1,
             rows_read = max(rows_read, $4,
                 coalesce((SELECT rows_read FROM upload_leases WHERE upload_id = $1), 0),
                 CASE WHEN status = 'receiving'
                      THEN coalesce((SELECT sum(rows) FROM batches WHERE upload_id = $1 AND epoch = $2), 0) + $7
                      ELSE 0 END),
             rows_rejected = $7, rows_violating = $9,
             bytes_received = max(bytes_received, $5,
                 coalesce((SELECT bytes_received FROM upload_leases WHERE upload_id = $1), 0)),
             updated_at = $6, finished_at = $6
         WHERE id = $1 AND epoch = $2 AND (status = 'receiving' OR status = 'processing' AND $8)",
    )
    .bind(key.id.to_string())
    .bind(key.epoch.get())
    .bind(failure.map(Json))
    .bind(signed(last.map_or(0, |beat| beat.rows_read)))
    .bind(signed(last.map_or(0, |beat| beat.bytes_received)))
    .bind(now())
    .bind(rejected)
    .bind(last.is_none())
    .bind(violating)
    .execute(&mut *connection)
    .await?;
    let has_ended = ended.rows_affected() > 0;
    match last {
        _ if has_ended => end_lease(connection, key.id).await?,
        Some(last) => count_rest(connection, key, last).await?,
        None => {}
    }
    Ok(has_ended)
}

/// How many rows of an upload violate a constraint of its dataset's table, according to the ledger.
async fn violating(connection: &mut SqliteConnection, key: UploadKey) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "SELECT coalesce(sum(rejected), 0) FROM batches WHERE upload_id = $1 AND epoch = $2",
    )
    .bind(key.id.to_string())
    .bind(key.epoch.get())
    .fetch_one(connection)
    .await
}
