//! API keys.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row, SqliteConnection};

use super::{SqliteStore, audit, now, time_text};
use crate::access::{KeyDigest, KeyId, KeyRecord};
use crate::audit::{Action, Written};
use crate::dataset::DatasetName;
use crate::error::PortResult;
use crate::sqlite::call;
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

impl FromRow<'_, SqliteRow> for KeyRecord {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let text = |column: &str| row.try_get::<String, _>(column);
        let time = |column| {
            let time: Option<String> = row.try_get(column)?;
            time.map(|time| sql::parsed(column, &time)).transpose()
        };
        let dataset: Option<String> = row.try_get("dataset")?;
        let created_by: Option<String> = row.try_get("created_by")?;
        Ok(Self {
            id: sql::parsed("id", &text("id")?)?,
            tenant: sql::parsed("tenant", &text("tenant")?)?,
            scopes: sql::parsed("scopes", &text("scopes")?)?,
            dataset: sql::parsed_if_any("dataset", dataset.as_deref())?,
            name: row.try_get("name")?,
            created_at: sql::parsed("created_at", &text("created_at")?)?,
            created_by: sql::parsed_if_any("created_by", created_by.as_deref())?,
            expires_at: time("expires_at")?,
            revoked_at: time("revoked_at")?,
        })
    }
}

#[async_trait]
impl KeyStore for SqliteStore {
    async fn create_key(&self, key: &KeyRecord, digest: &KeyDigest) -> PortResult<()> {
        call("store.create_key", async {
            let mut transaction = self.database.begin().await?;
            let written = insert(&mut transaction, key, digest).await?;
            transaction.commit().await?;
            written.log();
            Ok(())
        })
        .await
    }

    async fn key(&self, id: &KeyId) -> PortResult<Option<(KeyRecord, KeyDigest)>> {
        call("store.key", async {
            let found = sqlx::query(select_key!("WHERE id = $1"))
                .bind(id.as_str())
                .fetch_optional(&self.database.readers)
                .await?;
            let Some(row) = found else {
                return Ok(None);
            };
            let digest = key_digest(row.try_get("digest")?)?;
            Ok(Some((KeyRecord::from_row(&row)?, digest)))
        })
        .await
    }

    async fn keys(
        &self,
        tenant: Option<&Tenant>,
        after: Option<&KeyPosition>,
        limit: u32,
    ) -> PortResult<Vec<KeyRecord>> {
        call("store.keys", async {
            sqlx::query_as(select_key!(
                "WHERE ($1 IS NULL OR tenant = $1) AND (created_at, id) > ($2, $3)
                 ORDER BY created_at, id LIMIT $4"
            ))
            .bind(tenant.map(Tenant::as_str))
            // Every time is greater than the empty text.
            .bind(after.map_or_else(String::new, |after| time_text(after.created_at)))
            .bind(after.map_or("", |after| after.id.as_str()))
            .bind(i64::from(limit))
            .fetch_all(&self.database.readers)
            .await
        })
        .await
    }

    async fn revoke_key(&self, id: &KeyId, tenant: Option<&Tenant>) -> PortResult<bool> {
        call("store.revoke_key", async {
            let mut transaction = self.database.begin().await?;
            let found: Option<(String, bool)> = sqlx::query_as(
                "SELECT tenant, revoked_at IS NULL FROM api_keys
                 WHERE id = $1 AND ($2 IS NULL OR tenant = $2)",
            )
            .bind(id.as_str())
            .bind(tenant.map(Tenant::as_str))
            .fetch_optional(&mut *transaction)
            .await?;
            let mut written = Written(None);
            if let Some((tenant, true)) = &found {
                sqlx::query("UPDATE api_keys SET revoked_at = $2 WHERE id = $1")
                    .bind(id.as_str())
                    .bind(now())
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

/// Records a key, and its creation in the audit log, in a write transaction. The caller logs the
/// entry after the commit.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
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
    .bind(time_text(key.created_at))
    .bind(key.created_by.as_ref().map(KeyId::as_str))
    .bind(key.expires_at.map(time_text))
    .bind(key.revoked_at.map(time_text))
    .execute(&mut *connection)
    .await?;
    audit::record(connection, &key.tenant, Action::CreateKey, key.id.as_str()).await
}
