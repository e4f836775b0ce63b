//! Fixtures for the adapters of the store.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use carga_common::settings::SecretUrl;
use carga_common::store::{
    PostgresSettings, PostgresStore, SqliteStore, SqliteStoreSettings, Store,
};
use carga_common::upload::UploadId;
use carga_testkit::Scope;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tempfile::TempDir;

use super::StoreFixture;
use crate::suite::Fixture;

/// A database on the shared Postgres server.
pub(super) struct Postgres(Scope);

impl Fixture for Postgres {
    async fn start() -> Result<Self> {
        Ok(Self(Scope::new().await?))
    }

    async fn end(self) -> Result<()> {
        self.0.close().await
    }
}

impl StoreFixture for Postgres {
    async fn open(&self) -> Result<Arc<dyn Store>> {
        let settings = PostgresSettings {
            url: SecretUrl::new(self.0.database_url().to_owned()),
            program: "contract".to_owned(),
            connections: 4,
            migrate: true,
        };
        Ok(Arc::new(PostgresStore::connect(settings).await?))
    }

    async fn rows_in_table(&self, id: UploadId) -> Result<u64> {
        let count: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM landing r JOIN uploads u ON u.number = r.upload WHERE u.id = $1)
                    + (SELECT count(*) FROM rows WHERE upload_id = $1)",
        )
        .bind(id.as_uuid())
        .fetch_one(&self.0.pool())
        .await?;
        Ok(u64::try_from(count)?)
    }

    async fn execute(&self, statement: &str) -> Result<()> {
        const NO_CHECK: &str = "ALTER TABLE uploads DROP CONSTRAINT IF EXISTS uploads_status_check";
        sqlx::query(NO_CHECK).execute(&self.0.pool()).await?;
        sqlx::query(statement).execute(&self.0.pool()).await?;
        Ok(())
    }

    fn corrupt_values() -> &'static [(&'static str, &'static str, &'static str)] {
        &[
            ("status", "'done'", "done"),
            ("sha256", r"'\x01ab'", "01ab"),
            ("rows_inserted", "-7", "-7"),
            ("blank_lines", "-8", "-8"),
            ("batches_total", "-9", "-9"),
        ]
    }
}

/// A database file in a temporary directory.
pub(super) struct Sqlite(TempDir);

impl Sqlite {
    fn file(&self) -> PathBuf {
        self.0.path().join("store.db")
    }

    async fn connect(&self) -> Result<SqliteConnection> {
        let options = SqliteConnectOptions::new().filename(self.file());
        Ok(options.connect().await?)
    }
}

impl Fixture for Sqlite {
    async fn start() -> Result<Self> {
        Ok(Self(TempDir::new()?))
    }

    async fn end(self) -> Result<()> {
        Ok(self.0.close()?)
    }
}

impl StoreFixture for Sqlite {
    async fn open(&self) -> Result<Arc<dyn Store>> {
        let settings = SqliteStoreSettings {
            file: self.file(),
            migrate: true,
        };
        Ok(Arc::new(SqliteStore::open(settings).await?))
    }

    async fn rows_in_table(&self, id: UploadId) -> Result<u64> {
        let mut connection = self.connect().await?;
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM rows r JOIN uploads u ON u.number = r.upload WHERE u.id = ?",
        )
        .bind(id.to_string())
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        Ok(u64::try_from(count)?)
    }

    async fn execute(&self, statement: &str) -> Result<()> {
        let mut connection = self.connect().await?;
        sqlx::query("PRAGMA ignore_check_constraints = ON")
            .execute(&mut connection)
            .await?;
        sqlx::query(statement).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    fn corrupt_values() -> &'static [(&'static str, &'static str, &'static str)] {
        &[
            ("status", "'done'", "done"),
            ("sha256", "x'01ab'", "01ab"),
            ("rows_inserted", "-7", "-7"),
            ("blank_lines", "-8", "-8"),
            ("batches_total", "-9", "-9"),
            ("duplicate_of", "'nobody'", "nobody"),
            ("finished_at", "'yesterday'", "yesterday"),
            ("created_at", "'long ago'", "long ago"),
        ]
    }
}
