//! Fixtures for the adapters of the rate limiter.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use carga_common::limiter::{LocalLimiter, RateLimiter, RedisLimiter, RedisLimiterSettings};
use carga_common::settings::SecretUrl;
use carga_testkit::Scope;

use super::LimiterFixture;
use crate::suite::Fixture;

/// Long enough for a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);

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

impl LimiterFixture for Redis {
    async fn limiter(&self) -> Result<Arc<dyn RateLimiter>> {
        let settings = RedisLimiterSettings {
            url: SecretUrl::new(self.0.redis_url().to_owned()),
            prefix: self.0.name().to_owned(),
            timeout: TIMEOUT,
        };
        Ok(Arc::new(RedisLimiter::new(settings)?))
    }
}

/// The memory of this process.
pub(super) struct Local;

impl Fixture for Local {
    async fn start() -> Result<Self> {
        Ok(Self)
    }

    async fn end(self) -> Result<()> {
        Ok(())
    }
}

impl LimiterFixture for Local {
    async fn limiter(&self) -> Result<Arc<dyn RateLimiter>> {
        Ok(Arc::new(LocalLimiter::new()))
    }
}
