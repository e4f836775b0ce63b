//! The audit log.

use std::time::Duration;

use async_trait::async_trait;
use jiff_sqlx::Timestamp as SqlTimestamp;
use sqlx::{Connection, PgConnection};

use super::PostgresStore;
use super::connections::{LONG, SHORT};
use crate::audit::{Action, AuditEntry, NewEntry, Written, has_actor};
use crate::error::PortResult;
use crate::store::AuditStore;
use crate::store::sql::{self, FORGOTTEN_AT_ONCE, signed};
use crate::tenant::Tenant;
use crate::upload::UploadId;

/// A change shares this lock from before its entry gets an id until its commit, and a list takes it
/// exclusively. Otherwise a list could show an entry while an older one is not committed yet, and
/// the next page would skip that one.
const CHANGING: [i32; 2] = [0x6361_7267, 0x6175_6469];

/// Limits how long a list waits for changes, because new changes wait behind it. A change of a
/// dataset gives up after two seconds, so the limit is shorter.
const WAIT_BRIEFLY: &str = "SELECT set_config('lock_timeout', '1500ms', true)";

/// The columns `id`, `at`, `tenant`, `actor`, `action`, `object`, `address` and `request_id`.
type Record = (
    i64,
    SqlTimestamp,
    String,
    String,
    String,
    String,
    Option<String>,
    Option<String>,
);

#[async_trait]
impl AuditStore for PostgresStore {
    async fn record_audit(&self, tenant: &Tenant, action: Action, object: &str) -> PortResult<()> {
        self.call("store.record_audit", SHORT, async |connection| {
            let mut transaction = connection.begin().await?;
            let written = record(&mut transaction, tenant, action, object).await?;
            transaction.commit().await?;
            written.log();
            Ok(())
        })
        .await
    }

    async fn audit_entries(
        &self,
        tenant: Option<&Tenant>,
        after: u64,
        limit: u32,
    ) -> PortResult<Vec<AuditEntry>> {
        self.call("store.audit_entries", SHORT, async |connection| {
            let mut transaction = connection.begin().await?;
            sqlx::query(WAIT_BRIEFLY).execute(&mut *transaction).await?;
            lock(&mut transaction, "SELECT pg_advisory_xact_lock($1, $2)").await?;
            // A statement after the lock sees what the earlier holders have committed.
            let found: Vec<Record> = sqlx::query_as(
                "SELECT id, at, tenant, actor, action, object, address, request_id FROM audit_log
                 WHERE id > $1 AND ($2::text IS NULL OR tenant = $2) ORDER BY id LIMIT $3",
            )
            .bind(signed(after))
            .bind(tenant.map(Tenant::as_str))
            .bind(i64::from(limit))
            .fetch_all(&mut *transaction)
            .await?;
            transaction.commit().await?;
            found.into_iter().map(entry).collect()
        })
        .await
    }

    async fn forget_audit(&self, older_than: Duration) -> PortResult<u64> {
        self.call("store.forget_audit", LONG, async |connection| {
            let deleted = sqlx::query(
                "DELETE FROM audit_log WHERE id IN
                     (SELECT id FROM audit_log WHERE at < now() - make_interval(secs => $1)
                      ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)",
            )
            .bind(older_than.as_secs_f64())
            .bind(FORGOTTEN_AT_ONCE)
            .execute(connection)
            .await?;
            Ok(deleted.rows_affected())
        })
        .await
    }
}

fn entry(record: Record) -> sqlx::Result<AuditEntry> {
    let (id, at, tenant, actor, action, object, address, request_id) = record;
    Ok(AuditEntry {
        id: sql::count("id", id)?,
        at: at.to_jiff(),
        tenant: sql::parsed("tenant", &tenant)?,
        actor,
        action,
        object,
        address: sql::parsed_if_any("address", address.as_deref())?,
        request_id,
    })
}

/// Adds the entry of a change to its transaction, if the change has an actor.
pub(super) async fn record(
    connection: &mut PgConnection,
    tenant: &Tenant,
    action: Action,
    object: &str,
) -> sqlx::Result<Written> {
    insert(connection, NewEntry::new(tenant.as_str(), action, object)).await
}

/// Like `record`, for the change of an upload with this id.
pub(super) async fn record_upload(
    connection: &mut PgConnection,
    id: UploadId,
    action: Action,
) -> sqlx::Result<Written> {
    if !has_actor() {
        return Ok(Written(None));
    }
    let (tenant, object): (String, String) =
        sqlx::query_as("SELECT tenant, coalesce(public_id, id)::text FROM uploads WHERE id = $1")
            .bind(id.as_uuid())
            .fetch_one(&mut *connection)
            .await?;
    insert(connection, NewEntry::new(tenant, action, object)).await
}

/// Takes the lock [`CHANGING`] until the end of the transaction.
async fn lock(connection: &mut PgConnection, statement: &'static str) -> sqlx::Result<()> {
    let [first, second] = CHANGING;
    let locking = sqlx::query(statement).bind(first).bind(second);
    locking.execute(connection).await?;
    Ok(())
}

async fn insert(connection: &mut PgConnection, entry: Option<NewEntry>) -> sqlx::Result<Written> {
    if let Some(entry) = &entry {
        lock(connection, "SELECT pg_advisory_xact_lock_shared($1, $2)").await?;
        sqlx::query(
            "INSERT INTO audit_log (tenant, actor, action, object, address, request_id)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(&entry.tenant)
        .bind(entry.actor())
        .bind(entry.action.name())
        .bind(&entry.object)
        .bind(entry.address())
        .bind(entry.request_id())
        .execute(connection)
        .await?;
    }
    Ok(Written(entry))
}
