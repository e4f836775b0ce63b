//! The records of uploads, from their creation to their end.

use async_trait::async_trait;
use sqlx::types::Json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::connections::{LONG, SHORT};
use super::quotas::{count_rest, end_lease};
use super::upload_record::{find, is_staged};
use super::{PostgresStore, audit, creation, lock_status, upload_record};
use crate::audit::{Action, Written};
use crate::error::PortResult;
use crate::sha256::Sha256;
use crate::store::rules;
use crate::store::sql::{self, signed};
use crate::store::{
    CreateConditions, CreateOutcome, Heartbeat, NewUpload, Seal, UploadQuery, UploadStore,
};
use crate::tenant::Tenant;
use crate::upload::{Failure, Upload, UploadId, UploadKey};

#[async_trait]
impl UploadStore for PostgresStore {
    async fn create(&self, upload: &NewUpload) -> PortResult<Upload> {
        const OPERATION: &str = "store.create";
        let created = self.call(OPERATION, SHORT, async |connection| {
            creation::create_if(connection, upload, CreateConditions::default()).await
        });
        let created = created.await?.and_then(CreateOutcome::upload);
        created.ok_or_else(|| rules::no_dataset(OPERATION))
    }

    async fn create_if(
        &self,
        upload: &NewUpload,
        conditions: CreateConditions<'_>,
    ) -> PortResult<CreateOutcome> {
        const OPERATION: &str = "store.create_if";
        let created = self.call(OPERATION, SHORT, async |connection| {
            creation::create_if(connection, upload, conditions).await
        });
        let created = created.await?;
        created.ok_or_else(|| rules::no_dataset(OPERATION))
    }

    async fn heartbeat(&self, beats: &[Heartbeat]) -> PortResult<Vec<UploadId>> {
        let renewed = self
            .renewing
            .call("store.heartbeat", SHORT, async |connection| {
                heartbeat(connection, beats).await
            });
        renewed.await
    }

    async fn seal(&self, key: UploadKey, seal: &Seal) -> PortResult<bool> {
        self.call("store.seal", LONG, async |connection| {
            let mut transaction = connection.begin().await?;
            lock_status(&mut transaction, key.id).await?;
            let sealed = sqlx::query(
                "UPDATE uploads
                 SET status = 'processing', rows_read = $3, batches_total = $4, bytes_received = $5, sha256 = $6,
                     rows_rejected = $7, blank_lines = $8, duplicate_of = $9, dialect = coalesce($10, dialect),
                     updated_at = now()
                 WHERE id = $1 AND epoch = $2 AND status = 'receiving'",
            )
            .bind(key.id.as_uuid())
            .bind(key.epoch.get())
            .bind(signed(seal.rows))
            .bind(seal.batches.cast_signed())
            .bind(signed(seal.bytes))
            .bind(seal.sha256.as_bytes())
            .bind(signed(seal.rejected))
            .bind(signed(seal.blank_lines))
            .bind(seal.duplicate_of.map(|id| id.as_uuid()))
            .bind(seal.dialect.as_ref().map(Json))
            .execute(&mut *transaction)
            .await?;
            let is_sealed = match sealed.rows_affected() {
                0 => {
                    sqlx::query_scalar(sql::IS_SEALED)
                        .bind(key.id.as_uuid())
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
        self.call("store.fail", LONG, async |connection| {
            end(connection, key, Some(failure), last).await
        })
        .await
    }

    async fn cancel(&self, key: UploadKey) -> PortResult<bool> {
        self.call("store.cancel", LONG, async |connection| {
            end(connection, key, None, None).await
        })
        .await
    }

    async fn undo(&self, key: UploadKey) -> PortResult<bool> {
        const OPERATION: &str = "store.undo";
        let is_staged = self.call(OPERATION, SHORT, async |connection| {
            is_staged(connection, key.id).await
        });
        if is_staged.await? {
            return self.undo_merge(OPERATION, key).await;
        }
        self.call(OPERATION, LONG, async |connection| {
            let mut transaction = connection.begin().await?;
            lock_status(&mut transaction, key.id).await?;
            // `undone` belongs to the next epoch, so messages of this epoch change nothing.
            let undone = sqlx::query(
                "UPDATE uploads
                 SET status = 'undone', epoch = epoch + 1, cleanup_pending = true, archive_pending = true,
                     rows_inserted = NULL, rows_dead = NULL, updated_at = now(), finished_at = now()
                 WHERE id = $1 AND epoch = $2 AND status IN ('completed', 'partial')",
            )
            .bind(key.id.as_uuid())
            .bind(key.epoch.get())
            .execute(&mut *transaction)
            .await?;
            let is_undone = undone.rows_affected() > 0;
            let written = match is_undone {
                true => audit::record_upload(&mut transaction, key.id, Action::UndoUpload).await?,
                false => Written(None),
            };
            transaction.commit().await?;
            written.log();
            Ok(is_undone)
        })
        .await
    }

    async fn same_content(
        &self,
        tenant: &Tenant,
        sha256: Sha256,
        except: UploadId,
    ) -> PortResult<Option<UploadId>> {
        self.call("store.same_content", SHORT, async |connection| {
            let found: Option<Uuid> = sqlx::query_scalar(sql::SAME_CONTENT)
                .bind(sha256.as_bytes())
                .bind(except.as_uuid())
                .bind(tenant.as_str())
                .fetch_optional(connection)
                .await?;
            Ok(found.map(UploadId::from))
        })
        .await
    }

    async fn claim_content(&self, key: UploadKey, sha256: Sha256) -> PortResult<Option<UploadId>> {
        self.call("store.claim_content", LONG, async |connection| {
            let mut transaction = connection.begin().await?;
            lock_content(&mut transaction, sha256).await?;
            let holder: Option<Uuid> = sqlx::query_scalar(sql::CONTENT_HOLDER)
                .bind(sha256.as_bytes())
                .bind(key.id.as_uuid())
                .fetch_optional(&mut *transaction)
                .await?;
            if holder.is_none() {
                sqlx::query(sql::CLAIM_CONTENT)
                    .bind(key.id.as_uuid())
                    .bind(key.epoch.get())
                    .bind(sha256.as_bytes())
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await?;
            Ok(holder.map(UploadId::from))
        })
        .await
    }

    async fn upload(&self, id: UploadId) -> PortResult<Option<Upload>> {
        self.call("store.upload", SHORT, async |connection| {
            find(connection, id).await
        })
        .await
    }

    async fn upload_of(&self, tenant: &Tenant, public_id: UploadId) -> PortResult<Option<Upload>> {
        self.call("store.upload_of", SHORT, async |connection| {
            upload_record::find_of(connection, tenant, public_id).await
        })
        .await
    }

    async fn uploads(&self, query: &UploadQuery) -> PortResult<Vec<Upload>> {
        self.call("store.uploads", LONG, async |connection| {
            upload_record::list(connection, query).await
        })
        .await
    }
}

/// Lets the uploads of one content claim it one after another. Locks with two keys never collide
/// with locks with one key, such as the fence.
async fn lock_content(connection: &mut PgConnection, sha256: Sha256) -> sqlx::Result<()> {
    let part = |range| {
        let bytes = sha256.as_bytes().get(range).and_then(<[u8]>::first_chunk);
        i32::from_be_bytes(bytes.copied().unwrap_or_default())
    };
    sqlx::query("SELECT pg_advisory_xact_lock($1, $2)")
        .bind(part(0..4))
        .bind(part(4..8))
        .execute(connection)
        .await?;
    Ok(())
}

async fn heartbeat(
    connection: &mut PgConnection,
    beats: &[Heartbeat],
) -> sqlx::Result<Vec<UploadId>> {
    let ids: Vec<Uuid> = beats.iter().map(|beat| beat.upload.as_uuid()).collect();
    let list = |figure: fn(&Heartbeat) -> u64| {
        let list = beats.iter().map(|beat| signed(figure(beat)));
        list.collect::<Vec<i64>>()
    };
    let renewed: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE upload_leases l
         SET rows_read = GREATEST(l.rows_read, b.rows_read),
             rows_rejected = GREATEST(l.rows_rejected, b.rows_rejected),
             bytes_received = GREATEST(l.bytes_received, b.bytes_received),
             renewed_at = now()
         FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[])
              AS b (upload_id, rows_read, rows_rejected, bytes_received)
         WHERE l.upload_id = b.upload_id
         RETURNING l.upload_id",
    )
    .bind(ids)
    .bind(list(|beat| beat.rows_read))
    .bind(list(|beat| beat.rows_rejected))
    .bind(list(|beat| beat.bytes_received))
    .fetch_all(connection)
    .await?;
    Ok(renewed.into_iter().map(UploadId::from).collect())
}

/// Ends an upload whose rows are not kept: as `failed` if there is a failure, else as `cancelled`.
async fn end(
    connection: &mut PgConnection,
    key: UploadKey,
    failure: Option<&Failure>,
    last: Option<Heartbeat>,
) -> sqlx::Result<bool> {
    let mut transaction = connection.begin().await?;
    lock_status(&mut transaction, key.id).await?;
    let has_ended = record_end(&mut transaction, key, failure, last).await?;
    let written = match has_ended && failure.is_none() {
        true => audit::record_upload(&mut transaction, key.id, Action::CancelUpload).await?,
        false => Written(None),
    };
    transaction.commit().await?;
    written.log();
    Ok(has_ended)
}

/// Makes the changes of `end` in a transaction that holds the exclusive lock.
pub(super) async fn record_end(
    connection: &mut PgConnection,
    key: UploadKey,
    failure: Option<&Failure>,
    last: Option<Heartbeat>,
) -> sqlx::Result<bool> {
    // Figures that a client has already read must not go down. While the file was received, they
    // came from the lease, or from the ledger, which may be ahead of the lease. A sealed upload has
    // its final number of rows. The ledger also counts the rejected rows that violate a constraint
    // of the table. `written_columns` shows that this version has ended the upload (migration
    // 0011).
    let ended = sqlx::query(
        "UPDATE uploads u
         SET status = CASE WHEN $3::jsonb IS NULL THEN 'cancelled' ELSE 'failed' END, failure = $3, cleanup_pending = true, archive_pending = true,
             rows_read = GREATEST(u.rows_read, $4, (SELECT rows_read FROM upload_leases WHERE upload_id = u.id),
                 CASE WHEN u.status = 'receiving' THEN ledger.rows + rejected.rows - ledger.rejected END),
             rows_rejected = rejected.rows - ledger.rejected, rows_violating = ledger.rejected,
             written_columns = CASE WHEN u.dataset ->> 'table' IS NOT NULL THEN '{}'::text[] END,
             bytes_received = GREATEST(u.bytes_received, $5,
                 (SELECT bytes_received FROM upload_leases WHERE upload_id = u.id)),
             updated_at = now(), finished_at = now()
         FROM (SELECT coalesce(sum(rows), 0)::bigint AS rows, coalesce(sum(rejected), 0)::bigint AS rejected
               FROM batches WHERE upload_id = $1 AND epoch = $2) ledger,
              (SELECT count(*) AS rows FROM rejected_rows WHERE upload_id = $1) rejected
         WHERE u.id = $1 AND u.epoch = $2 AND (u.status = 'receiving' OR u.status = 'processing' AND $6)",
    )
    .bind(key.id.as_uuid())
    .bind(key.epoch.get())
    .bind(failure.map(Json))
    .bind(signed(last.map_or(0, |beat| beat.rows_read)))
    .bind(signed(last.map_or(0, |beat| beat.bytes_received)))
    .bind(last.is_none())
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
