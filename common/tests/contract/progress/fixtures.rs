//! Fixtures for the adapters of the live counters.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use carga_common::progress::{
    ProgressStore, RedisProgress, RedisSettings, SqliteProgress, SqliteProgressSettings,
};
use carga_common::settings::SecretUrl;
use carga_testkit::Scope;
use tempfile::TempDir;

use super::ProgressFixture;
use crate::suite::Fixture;

/// A prefix for keys on the shared Redis server.
pub(super) struct Redis(Scope);

impl Fixture for Redis {
    async fn start() -> Result<Self> {
        Ok(Self(Scope::new().await?))
    }

    async fn end(self) -> Result<()> {
        self.0.close().await
    }
}

impl ProgressFixture for Redis {
    async fn open(&self, ttl: Duration) -> Result<Arc<dyn ProgressStore>> {
        let settings = RedisSettings {
            url: SecretUrl::new(self.0.redis_url().to_owned()),
            prefix: self.0.name().to_owned(),
            ttl,
        };
        Ok(Arc::new(RedisProgress::new(settings)?))
    }
}

/// A database file in a temporary directory.
pub(super) struct Sqlite(TempDir);

impl Fixture for Sqlite {
    async fn start() -> Result<Self> {
        Ok(Self(TempDir::new()?))
    }

    async fn end(self) -> Result<()> {
        Ok(self.0.close()?)
    }
}

impl ProgressFixture for Sqlite {
    async fn open(&self, ttl: Duration) -> Result<Arc<dyn ProgressStore>> {
        let file = self.0.path().join("progress.db");
        let settings = SqliteProgressSettings { file, ttl };
        Ok(Arc::new(SqliteProgress::open(settings).await?))
    }
}
