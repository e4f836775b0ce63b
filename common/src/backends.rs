//! The four ports, connected as the settings say.

use std::sync::Arc;
use std::time::Duration;

use crate::archive::{BatchArchive, S3Archive};
use crate::error::PortResult;
use crate::progress::{LiveProgress, ProgressStore, RedisProgress, RedisSettings};
use crate::queue::{BatchQueue, RabbitQueue, RabbitSettings};
use crate::settings::PortSettings;
use crate::store::{PostgresSettings, PostgresStore, Store};

/// Within the time that orchestrators leave after the grace period.
const GOODBYE: Duration = Duration::from_secs(5);

/// What api and worker work with.
#[derive(Debug, Clone)]
pub struct Backends {
    /// Batches on their way.
    pub queue: Arc<dyn BatchQueue>,
    /// The system of record.
    pub store: Arc<dyn Store>,
    /// Objects for good.
    pub archive: Arc<dyn BatchArchive>,
    /// Live counters, with the store behind them.
    pub progress: Arc<LiveProgress>,
    /// The counters' own server, for health checks.
    pub progress_store: Arc<dyn ProgressStore>,
}

impl Backends {
    /// Connects to all but the live counters, which may be away.
    pub async fn connect(settings: &PortSettings, program: &str) -> PortResult<Self> {
        let store = PostgresStore::connect(PostgresSettings {
            url: settings.database.expose().to_owned(),
            program: program.to_owned(),
            connections: settings.database_connections,
            migrate: settings.migrate,
        });
        let queue = RabbitQueue::connect(RabbitSettings {
            url: settings.amqp.expose().to_owned(),
            queue: settings.queue.clone(),
            program: program.to_owned(),
            publish_timeout: settings.publish_timeout,
        });
        let endpoint = settings.s3_endpoint.as_deref();
        let archive = S3Archive::connect(&settings.bucket, &settings.archive_prefix, endpoint);
        let (store, queue, archive) = tokio::try_join!(store, queue, archive)?;
        let progress = RedisProgress::new(RedisSettings {
            url: settings.redis.expose().to_owned(),
            prefix: settings.redis_prefix.clone(),
            ttl: settings.progress_ttl,
        })?;

        let store: Arc<dyn Store> = Arc::new(store);
        let progress_store: Arc<dyn ProgressStore> = Arc::new(progress);
        Ok(Self {
            queue: Arc::new(queue),
            archive: Arc::new(archive),
            progress: Arc::new(LiveProgress::new(
                Arc::clone(&progress_store),
                Arc::clone(&store),
            )),
            progress_store,
            store,
        })
    }

    /// Says goodbye to broker and database, briefly: what does not answer is left.
    pub async fn close(&self) {
        let goodbye = async {
            tokio::join!(self.queue.close(), self.store.close());
        };
        if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
            tracing::warn!("a server did not answer the goodbye");
        }
    }
}
