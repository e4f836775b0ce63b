//! Requests that take effect once.

use async_trait::async_trait;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::connections::{LONG, SHORT};
use super::upload_record::find;
use super::{PostgresStore, keys};
use crate::access::{KeyDigest, KeyRecord};
use crate::audit::Written;
use crate::error::PortResult;
use crate::idempotency::{IdempotencyKey, IdempotentRequest, REQUEST_KEPT};
use crate::store::rules::FORGOTTEN_REQUESTS;
use crate::store::sql;
use crate::store::{FirstAnswer, FirstUpload, IdempotencyStore};
use crate::upload::UploadId;

/// Takes a key that nobody has, or that is free because of its age. `$1` to `$8`: tenant, route,
/// sender, key, fingerprint, upload, answer, the age in seconds. Returns false, because this is the
/// first attempt of the request, or no row if somebody has the key.
///
/// This statement waits for a transaction that is inserting the same key. It locks the row of a key
/// that it finds, even if it does not change the row.
const TAKE: &str = "INSERT INTO idempotency_keys AS held
        (tenant, route, sender, key, fingerprint, upload_id, answer)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (tenant, route, sender, key) DO UPDATE
    SET fingerprint = excluded.fingerprint, upload_id = excluded.upload_id, answer = excluded.answer,
        created_at = now()
    WHERE held.created_at <= now() - make_interval(secs => $8)
    RETURNING false";

/// Takes the key over from an upload that does not hold it, after [`TAKE`] has locked its row. As a
/// separate statement, it sees the row and the status as they are after the wait for the lock.
/// Returns whether that upload was of the same request. `earlier` is the row before the change.
const TAKE_OVER: &str = "UPDATE idempotency_keys AS held
    SET fingerprint = $5, upload_id = $6, answer = $7, created_at = now()
    FROM idempotency_keys AS earlier
    WHERE held.tenant = $1 AND held.route = $2 AND held.sender = $3 AND held.key = $4
      AND earlier.tenant = $1 AND earlier.route = $2 AND earlier.sender = $3 AND earlier.key = $4
      AND (earlier.created_at <= now() - make_interval(secs => $8)
           OR earlier.upload_id IS NOT NULL AND NOT EXISTS (
               SELECT FROM uploads u
               WHERE u.id = earlier.upload_id AND (u.status = 'receiving' OR u.batches_total IS NOT NULL)))
    RETURNING earlier.fingerprint = $5";

#[async_trait]
impl IdempotencyStore for PostgresStore {
    async fn first_upload(&self, key: &IdempotencyKey) -> PortResult<Option<FirstUpload>> {
        self.call("store.first_upload", SHORT, async |connection| {
            let Some((fingerprint, Some(id), _)) = find_key(connection, key).await? else {
                return Ok(None);
            };
            let fingerprint = sql::digest("fingerprint", fingerprint)?;
            let upload = find(connection, id.into()).await?;
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
        self.call("store.create_key_once", SHORT, async |connection| {
            let mut transaction = connection.begin().await?;
            let taken = take(&mut transaction, request, None, Some(answer)).await?;
            let is_first = taken != Taken::No;
            let written = match is_first {
                true => keys::insert(&mut transaction, key, digest).await?,
                false => Written(None),
            };
            transaction.commit().await?;
            written.log();
            Ok(is_first)
        })
        .await
    }

    async fn first_answer(&self, key: &IdempotencyKey) -> PortResult<Option<FirstAnswer>> {
        self.call("store.first_answer", SHORT, async |connection| {
            let Some((fingerprint, _, Some(body))) = find_key(connection, key).await? else {
                return Ok(None);
            };
            let fingerprint = sql::digest("fingerprint", fingerprint)?;
            Ok(Some(FirstAnswer { fingerprint, body }))
        })
        .await
    }

    async fn forget_requests(&self) -> PortResult<u64> {
        self.call("store.forget_requests", LONG, async |connection| {
            // The keys that a request is taking are skipped, and so are those that another worker
            // is deleting.
            let deleted = sqlx::query(
                "DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY (
                     SELECT ctid FROM idempotency_keys
                     WHERE created_at <= now() - make_interval(secs => $1)
                     ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
            )
            .bind(REQUEST_KEPT.as_secs_f64())
            .bind(FORGOTTEN_REQUESTS)
            .execute(connection)
            .await?;
            Ok(deleted.rows_affected())
        })
        .await
    }
}

/// Whether a request has got its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Nobody had the key, or an upload of another request that ended before its seal.
    Free,
    /// An upload of the same request that ended before its seal had the key.
    Again,
    /// Another request has the key.
    No,
}

/// Gives the key of a request to this upload or answer, unless another request has it.
pub(super) async fn take(
    connection: &mut PgConnection,
    request: &IdempotentRequest,
    upload: Option<UploadId>,
    answer: Option<&str>,
) -> sqlx::Result<Taken> {
    let IdempotentRequest { key, fingerprint } = request;
    for statement in [TAKE, TAKE_OVER] {
        let is_again: Option<bool> = sqlx::query_scalar(statement)
            .bind(key.tenant.as_str())
            .bind(key.route.name())
            .bind(key.sender())
            .bind(key.text.as_str())
            .bind(fingerprint.as_bytes())
            .bind(upload.map(|id| id.as_uuid()))
            .bind(answer)
            .bind(REQUEST_KEPT.as_secs_f64())
            .fetch_optional(&mut *connection)
            .await?;
        match is_again {
            Some(true) => return Ok(Taken::Again),
            Some(false) => return Ok(Taken::Free),
            None => {}
        }
    }
    Ok(Taken::No)
}

/// The fingerprint, the upload and the answer of a key, unless the key is free because of its age.
type KeyColumns = (Vec<u8>, Option<Uuid>, Option<String>);

async fn find_key(
    connection: &mut PgConnection,
    key: &IdempotencyKey,
) -> sqlx::Result<Option<KeyColumns>> {
    sqlx::query_as(
        "SELECT fingerprint, upload_id, answer FROM idempotency_keys
         WHERE tenant = $1 AND route = $2 AND sender = $3 AND key = $4
           AND created_at > now() - make_interval(secs => $5)",
    )
    .bind(key.tenant.as_str())
    .bind(key.route.name())
    .bind(key.sender())
    .bind(key.text.as_str())
    .bind(REQUEST_KEPT.as_secs_f64())
    .fetch_optional(connection)
    .await
}
