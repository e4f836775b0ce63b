//! The audit log.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::{SqliteStore, ago, now};
use crate::audit::{Action, AuditEntry, NewEntry, Written, has_actor};
use crate::error::PortResult;
use crate::sqlite::call;
use crate::store::AuditStore;
use crate::store::sql::{self, FORGOTTEN_AT_ONCE, signed};
use crate::tenant::Tenant;
use crate::upload::UploadId;

/// The columns `id`, `at`, `tenant`, `actor`, `action`, `object`, `address` and `request_id`.
type Record = (
    i64,
    String,
    String,
    String,
    String,
    String,
    Option<String>,
    Option<String>,
);

#[async_trait]
impl AuditStore for SqliteStore {
    async fn record_audit(&self, tenant: &Tenant, action: Action, object: &str) -> PortResult<()> {
        call("store.record_audit", async {
            let mut transaction = self.database.begin().await?;
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
        call("store.audit_entries", async {
            let found: Vec<Record> = sqlx::query_as(
                "SELECT id, at, tenant, actor, action, object, address, request_id FROM audit_log
                 WHERE id > $1 AND ($2 IS NULL OR tenant = $2) ORDER BY id LIMIT $3",
            )
            .bind(signed(after))
            .bind(tenant.map(Tenant::as_str))
            .bind(i64::from(limit))
            .fetch_all(&self.database.readers)
            .await?;
            found.into_iter().map(entry).collect()
        })
        .await
    }

    async fn forget_audit(&self, older_than: Duration) -> PortResult<u64> {
        call("store.forget_audit", async {
            let mut transaction = self.database.begin().await?;
            let deleted = sqlx::query(
                "DELETE FROM audit_log WHERE id IN
                     (SELECT id FROM audit_log WHERE at < $1 ORDER BY at LIMIT $2)",
            )
            .bind(ago(older_than))
            .bind(FORGOTTEN_AT_ONCE)
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(deleted.rows_affected())
        })
        .await
    }
}

fn entry(record: Record) -> sqlx::Result<AuditEntry> {
    let (id, at, tenant, actor, action, object, address, request_id) = record;
    Ok(AuditEntry {
        id: sql::count("id", id)?,
        at: sql::parsed("at", &at)?,
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
    connection: &mut SqliteConnection,
    tenant: &Tenant,
    action: Action,
    object: &str,
) -> sqlx::Result<Written> {
    insert(connection, NewEntry::new(tenant.as_str(), action, object)).await
}

/// Like `record`, for the change of an upload with this id.
pub(super) async fn record_upload(
    connection: &mut SqliteConnection,
    id: UploadId,
    action: Action,
) -> sqlx::Result<Written> {
    if !has_actor() {
        return Ok(Written(None));
    }
    let (tenant, object): (String, String) =
        sqlx::query_as("SELECT tenant, coalesce(public_id, id) FROM uploads WHERE id = $1")
            .bind(id.to_string())
            .fetch_one(&mut *connection)
            .await?;
    insert(connection, NewEntry::new(tenant, action, object)).await
}

async fn insert(
    connection: &mut SqliteConnection,
    entry: Option<NewEntry>,
) -> sqlx::Result<Written> {
    if let Some(entry) = &entry {
        sqlx::query(
            "INSERT INTO audit_log (at, tenant, actor, action, object, address, request_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(now())
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
