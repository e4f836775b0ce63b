//! Requests that take effect once.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::upload_record::find;
use super::{SqliteStore, ago, keys, now};
use crate::access::{KeyDigest, KeyRecord};
use crate::audit::Written;
use crate::error::PortResult;
use crate::idempotency::{IdempotencyKey, IdempotentRequest, REQUEST_KEPT};
use crate::sqlite::{Database, call};
use crate::store::rules::FORGOTTEN_REQUESTS;
use crate::store::sql;
use crate::store::{FirstAnswer, FirstUpload, IdempotencyStore};
use crate::upload::UploadId;

#[async_trait]
impl IdempotencyStore for SqliteStore {
    async fn first_upload(&self, key: &IdempotencyKey) -> PortResult<Option<FirstUpload>> {
        call("store.first_upload", async {
            let Some((fingerprint, Some(id), _)) = find_key(&self.database, key).await? else {
                return Ok(None);
            };
            let fingerprint = sql::digest("fingerprint", fingerprint)?;
            let upload = find(&self.database, sql::parsed("upload_id", &id)?).await?;
            Ok(upload.and_then(|upload| FirstUpload::holding(fingerprint, upload)))
        })
        .await
    }

    async fn create_key_once(
        &self,
        key: &KeyRecord,
        digest: &KeyDigest,
        request: &IdempotentRequest,
        answer: &str,
    ) -> PortResult<bool> {
        call("store.create_key_once", async {
            let mut transaction = self.database.begin().await?;
            let holder = holder(&mut transaction, request).await?;
            let is_first = holder != Holder::Request;
            let mut written = Written(None);
            if is_first {
                take(&mut transaction, request, None, Some(answer)).await?;
                written = keys::insert(&mut transaction, key, digest).await?;
            }
            transaction.commit().await?;
            written.log();
            Ok(is_first)
        })
        .await
    }

    async fn first_answer(&self, key: &IdempotencyKey) -> PortResult<Option<FirstAnswer>> {
        call("store.first_answer", async {
            let Some((fingerprint, _, Some(body))) = find_key(&self.database, key).await? else {
                return Ok(None);
            };
            let fingerprint = sql::digest("fingerprint", fingerprint)?;
            Ok(Some(FirstAnswer { fingerprint, body }))
        })
        .await
    }

    async fn forget_requests(&self) -> PortResult<u64> {
        call("store.forget_requests", async {
            let deleted = sqlx::query(
                "DELETE FROM idempotency_keys WHERE (tenant, route, sender, key) IN (
                     SELECT tenant, route, sender, key FROM idempotency_keys
                     WHERE created_at <= $1 ORDER BY created_at LIMIT $2)",
            )
            .bind(ago(REQUEST_KEPT))
            .bind(FORGOTTEN_REQUESTS)
            .execute(self.database.writer())
            .await?;
            Ok(deleted.rows_affected())
        })
        .await
    }
}

/// Who has the key of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nobody, or an upload of another request that ended before its seal. The key is free.
    None,
    /// An upload of the same request that ended before its seal. The key is free.
    FailedAttempt,
    /// Another request.
    Request,
}

/// Who has the key. Nobody else takes it before this transaction ends, because SQLite has one
/// writer.
pub(super) async fn holder(
    connection: &mut SqliteConnection,
    request: &IdempotentRequest,
) -> sqlx::Result<Holder> {
    let IdempotentRequest { key, fingerprint } = request;
    let found: Option<(bool, bool)> = sqlx::query_as(
        "SELECT held.answer IS NOT NULL
             OR coalesce(u.status = 'receiving' OR u.batches_total IS NOT NULL, false),
             held.fingerprint = $6
         FROM idempotency_keys held LEFT JOIN uploads u ON u.id = held.upload_id
         WHERE held.tenant = $1 AND held.route = $2 AND held.sender = $3 AND held.key = $4
           AND held.created_at > $5",
    )
    .bind(key.tenant.as_str())
    .bind(key.route.name())
    .bind(key.sender())
    .bind(key.text.as_str())
    .bind(ago(REQUEST_KEPT))
    .bind(fingerprint.as_bytes())
    .fetch_optional(connection)
    .await?;
    Ok(match found {
        Some((true, _)) => Holder::Request,
        Some((false, true)) => Holder::FailedAttempt,
        Some((false, false)) | None => Holder::None,
    })
}

/// Gives a free key to this upload or answer.
pub(super) async fn take(
    connection: &mut SqliteConnection,
    request: &IdempotentRequest,
    upload: Option<UploadId>,
    answer: Option<&str>,
) -> sqlx::Result<()> {
    let IdempotentRequest { key, fingerprint } = request;
    sqlx::query(
        "INSERT OR REPLACE INTO idempotency_keys
             (tenant, route, sender, key, fingerprint, upload_id, answer, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(key.tenant.as_str())
    .bind(key.route.name())
    .bind(key.sender())
    .bind(key.text.as_str())
    .bind(fingerprint.as_bytes())
    .bind(upload.map(|id| id.to_string()))
    .bind(answer)
    .bind(now())
    .execute(connection)
    .await?;
    Ok(())
}

/// The fingerprint, the upload and the answer of a key, unless the key is free because of its age.
type KeyColumns = (Vec<u8>, Option<String>, Option<String>);

async fn find_key(database: &Database, key: &IdempotencyKey) -> sqlx::Result<Option<KeyColumns>> {
    sqlx::query_as(
        "SELECT fingerprint, upload_id, answer FROM idempotency_keys
         WHERE tenant = $1 AND route = $2 AND sender = $3 AND key = $4 AND created_at > $5",
    )
    .bind(key.tenant.as_str())
    .bind(key.route.name())
    .bind(key.sender())
    .bind(key.text.as_str())
    .bind(ago(REQUEST_KEPT))
    .fetch_optional(&database.readers)
    .await
}
