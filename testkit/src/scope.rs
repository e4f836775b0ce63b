//! One test's part of the shared servers, which isolates tests that run side by side.

use std::collections::BTreeMap;

use anyhow::Result;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::bucket::S3Access;
use crate::services::shared;
use crate::{LocalStack, Postgres, Rabbit, Redis, S3, postgres};

/// A private database, queue, key prefix and bucket, and Carga's settings for them.
///
/// A test that stops or kills a server starts a private one and points its scope to it:
///
/// ```no_run
/// # async fn example() -> anyhow::Result<()> {
/// use carga_testkit::{Rabbit, Scope};
/// let mut rabbit = Rabbit::start().await?;
/// let scope = Scope::new().await?.with_rabbit(&rabbit).with("CARGA_BATCH_ROWS", "100");
/// // … start Carga with `scope.env()` …
/// rabbit.kill()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Scope {
    env: BTreeMap<String, String>,
    s3: S3Access,
    bucket: String,
    database: String,
    /// The server's own database, as its superuser. A test may give Carga another role.
    server: String,
    pool: PgPool,
}

impl Scope {
    /// Creates a scope on the [shared] set.
    pub async fn new() -> Result<Self> {
        let set = shared().await?;
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("test-{}", &unique[..12]);
        let database = format!("test_{unique}");
        let (url, server) = (set.database_url(&database), set.database_url("postgres"));
        postgres::create_database(&server, &database).await?;
        set.s3.create_bucket(&name)?;

        let mut env = set.env();
        env.extend(set.s3.env());
        let own = [
            ("DATABASE_URL", url.clone()),
            ("ARCHIVE_URL", format!("s3://{name}")),
            ("CARGA_QUEUE", name.clone()),
            ("CARGA_REDIS_PREFIX", name.clone()),
            ("CARGA_LISTEN", "127.0.0.1:0".to_owned()),
        ];
        env.extend(own.map(|(key, value)| (key.to_owned(), value)));
        Ok(Self {
            env,
            s3: set.s3,
            bucket: name,
            database,
            server,
            pool: pool(&url)?,
        })
    }

    /// The environment for Carga's programs.
    pub fn env(&self) -> BTreeMap<String, String> {
        self.env.clone()
    }

    /// Adds a setting, or replaces its value.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.env.insert(key.to_owned(), value.into());
        self
    }

    #[must_use]
    pub fn with_redis(self, redis: &Redis) -> Self {
        self.with("REDIS_URL", redis.url())
    }

    #[must_use]
    pub fn with_rabbit(self, rabbit: &Rabbit) -> Self {
        self.with("AMQP_URL", rabbit.url())
    }

    /// Replaces the database on the shared server by one of the same name on this server.
    pub async fn with_postgres(self, postgres: &Postgres) -> Result<Self> {
        postgres.create_database(&self.database).await?;
        let scope = self.close_database().await?;
        let url = postgres.url(&scope.database);
        Ok(Self {
            server: postgres.url("postgres"),
            pool: pool(&url)?,
            ..scope
        }
        .with("DATABASE_URL", url))
    }

    pub fn with_s3(self, s3: &S3) -> Result<Self> {
        self.with_bucket_on(s3.access())
    }

    /// Replaces the bucket by one on LocalStack, which Carga creates when it starts.
    pub fn with_localstack(self, localstack: &LocalStack) -> Result<Self> {
        self.with_bucket_on(localstack.access())
    }

    fn with_bucket_on(mut self, s3: S3Access) -> Result<Self> {
        s3.create_bucket(&self.bucket)?;
        self.env.extend(s3.env());
        self.s3 = s3;
        Ok(self)
    }

    pub fn database_url(&self) -> &str {
        self.setting("DATABASE_URL")
    }

    pub fn amqp_url(&self) -> &str {
        self.setting("AMQP_URL")
    }

    pub fn redis_url(&self) -> &str {
        self.setting("REDIS_URL")
    }

    /// The name of the queue, which is also the key prefix in Redis and the name of the bucket.
    pub fn name(&self) -> &str {
        &self.bucket
    }

    /// Connections to this scope's database, opened on first use. The pool belongs to the runtime
    /// of the test that created the scope.
    pub fn pool(&self) -> PgPool {
        self.pool.clone()
    }

    /// The keys in the bucket, sorted. With `s3s-fs` they are read from its files.
    pub async fn objects(&self) -> Result<Vec<String>> {
        self.s3.objects(&self.bucket).await
    }

    pub async fn object(&self, key: &str) -> Result<Vec<u8>> {
        self.s3.read(&self.bucket, key).await
    }

    /// Drops the database. A failed test does not call this, so its database stays for inspection
    /// until the set is removed.
    pub async fn close(self) -> Result<()> {
        self.close_database().await.map(drop)
    }

    async fn close_database(self) -> Result<Self> {
        self.pool.close().await;
        postgres::drop_database(&self.server, &self.database).await?;
        Ok(self)
    }

    fn setting(&self, key: &str) -> &str {
        self.env.get(key).map_or("", String::as_str)
    }
}

fn pool(url: &str) -> Result<PgPool> {
    Ok(PgPoolOptions::new().max_connections(5).connect_lazy(url)?)
}
