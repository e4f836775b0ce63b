//! API keys.

use async_trait::async_trait;
use jiff::Timestamp;
use jiff_sqlx::{Timestamp as SqlTimestamp, ToSqlx};
use sqlx::postgres::PgRow;
use sqlx::{Connection, FromRow, PgConnection, Row};

use super::connections::SHORT;
use super::{PostgresStore, audit};
use crate::access::{KeyDigest, KeyId, KeyRecord};
use crate::audit::{Action, Written};
use crate::dataset::DatasetName;
use crate::error::PortResult;
use crate::store::sql::{self, key_digest};
use crate::store::{KeyPosition, KeyStore};
use crate::tenant::Tenant;

/// Selects keys. It is a macro so that the text of each query is static.
macro_rules! select_key {
    ($rest:literal) => {
        concat!(
            "SELECT id, digest, tenant, scopes, dataset, name, created_at, created_by, expires_at, revoked_at
             FROM api_keys ",
            $rest
        )
    };
}

impl FromRow<'_, PgRow> for KeyRecord {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let text = |column: &str| row.try_get::<String, _>(column);
        let time = |column: &str| {
            let time: Option<SqlTimestamp> = row.try_get(column)?;
            Ok::<_, sqlx::Error>(time.map(SqlTimestamp::to_jiff))
        };
        let dataset: Option<String> = row.try_get("dataset")?;
        let created_by: Option<String> = row.try_get("created_by")?;
        Ok(Self {
            id: sql::parsed("id", &text("id")?)?,
            tenant: sql::parsed("tenant", &text("tenant")?)?,
            scopes: sql::parsed("scopes", &text("scopes")?)?,
            dataset: sql::parsed_if_any("dataset", dataset.as_deref())?,
            name: row.try_get("name")?,
            created_at: row.try_get::<SqlTimestamp, _>("created_at")?.to_jiff(),
            created_by: sql::parsed_if_any("created_by", created_by.as_deref())?,
            expires_at: time("expires_at")?,
            revoked_at: time("revoked_at")?,
        })
    }
}

#[async_trait]
impl KeyStore for PostgresStore {
    async fn create_key(&self, key: &KeyRecord, digest: &KeyDigest) -> PortResult<()> {
        self.call("store.create_key", SHORT, async |connection| {
            let mut transaction = connection.begin().await?;
            let written = insert(&mut transaction, key, digest).await?;
            transaction.commit().await?;
            written.log();
            Ok(())
        })
        .await
    }

    async fn key(&self, id: &KeyId) -> PortResult<Option<(KeyRecord, KeyDigest)>> {
        let finding = self
            .finding_keys
            .call("store.key", SHORT, async |connection| {
                let found = sqlx::query(select_key!("WHERE id = $1"))
                    .bind(id.as_str())
                    .fetch_optional(connection)
                    .await?;
                let Some(row) = found else {
                    return Ok(None);
                };
                let digest = key_digest(row.try_get("digest")?)?;
                Ok(Some((KeyRecord::from_row(&row)?, digest)))
            });
        finding.await
    }

    async fn keys(
        &self,
        tenant: Option<&Tenant>,
        after: Option<&KeyPosition>,
        limit: u32,
    ) -> PortResult<Vec<KeyRecord>> {
        self.call("store.keys", SHORT, async |connection| {
            sqlx::query_as(select_key!(
                "WHERE ($1::text IS NULL OR tenant = $1)
                   AND ($2::timestamptz IS NULL OR (created_at, id) > ($2, $3))
                 ORDER BY created_at, id LIMIT $4"
            ))
            .bind(tenant.map(Tenant::as_str))
            .bind(after.map(|after| after.created_at.to_sqlx()))
            .bind(after.map_or("", |after| after.id.as_str()))
            .bind(i64::from(limit))
            .fetch_all(connection)
            .await
        })
        .await
    }

    async fn revoke_key(&self, id: &KeyId, tenant: Option<&Tenant>) -> PortResult<bool> {
        self.call("store.revoke_key", SHORT, async |connection| {
            let mut transaction = connection.begin().await?;
            // Locked, so that of concurrent calls one revokes the key.
            let found: Option<(String, bool)> = sqlx::query_as(
                "SELECT tenant, revoked_at IS NULL FROM api_keys
                 WHERE id = $1 AND ($2::text IS NULL OR tenant = $2) FOR UPDATE",
            )
            .bind(id.as_str())
            .bind(tenant.map(Tenant::as_str))
            .fetch_optional(&mut *transaction)
            .await?;
            let mut written = Written(None);
            if let Some((tenant, true)) = &found {
                sqlx::query("UPDATE api_keys SET revoked_at = now() WHERE id = $1")
                    .bind(id.as_str())
                    .execute(&mut *transaction)
                    .await?;
                let (tenant, action) = (sql::parsed("tenant", tenant)?, Action::RevokeKey);
                let record = audit::record(&mut transaction, &tenant, action, id.as_str());
                written = record.await?;
            }
            transaction.commit().await?;
            written.log();
            Ok(found.is_some())
        })
        .await
    }
}

/// Records a key, and its creation in the audit log, in a transaction. The caller logs the entry
/// after the commit.
pub(super) async fn insert(
    connection: &mut PgConnection,
    key: &KeyRecord,
    digest: &KeyDigest,
) -> sqlx::Result<Written> {
    sqlx::query(
        "INSERT INTO api_keys (id, digest, tenant, scopes, dataset, name, created_at, created_by, expires_at, revoked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(key.id.as_str())
    .bind(&digest.as_bytes()[..])
    .bind(key.tenant.as_str())
    .bind(key.scopes.to_string())
    .bind(key.dataset.as_ref().map(DatasetName::as_str))
    .bind(&key.name)
    .bind(key.created_at.to_sqlx())
    .bind(key.created_by.as_ref().map(KeyId::as_str))
    .bind(key.expires_at.map(Timestamp::to_sqlx))
    .bind(key.revoked_at.map(Timestamp::to_sqlx))
    .execute(&mut *connection)
    .await?;
    audit::record(connection, &key.tenant, Action::CreateKey, key.id.as_str()).await
}
