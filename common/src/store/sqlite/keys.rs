//! API keys.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row, SqliteConnection};

use super::{SqliteStore, now, time_text};
use crate::access::{KeyDigest, KeyId, KeyRecord};
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
            insert(&mut transaction, key, digest).await?;
            transaction.commit().await
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
            let revoked = sqlx::query(
                "UPDATE api_keys SET revoked_at = coalesce(revoked_at, $3)
                 WHERE id = $1 AND ($2 IS NULL OR tenant = $2)",
            )
            .bind(id.as_str())
            .bind(tenant.map(Tenant::as_str))
            .bind(now())
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(revoked.rows_affected() > 0)
        })
        .await
    }
}

/// Records a key in a write transaction.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    key: &KeyRecord,
    digest: &KeyDigest,
) -> sqlx::Result<()> {
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
    .execute(connection)
    .await?;
    Ok(())
}
