//! Connects the four ports as the settings say: each to its server or to its file, in any mix.

use std::sync::Arc;
use std::time::Duration;

use crate::archive::{BatchArchive, FilesystemArchive, FilesystemArchiveSettings, S3Archive};
use crate::error::PortResult;
use crate::live_progress::LiveProgress;
use crate::progress::{
    ProgressStore, RedisProgress, RedisSettings, SqliteProgress, SqliteProgressSettings,
};
use crate::queue::{BatchQueue, RabbitQueue, RabbitSettings, SqliteQueue, SqliteQueueSettings};
use crate::settings::{
    ArchiveLocation, PortSettings, ProgressLocation, QueueLocation, StoreLocation,
};
use crate::store::{PostgresSettings, PostgresStore, SqliteStore, SqliteStoreSettings, Store};

/// How long connections may take to close. Orchestrators allow this much after the grace period.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether other processes may use the files of the embedded adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Other processes may use them.
    Shared,
    /// Files in the data directory belong to this process: it holds the directory's lock.
    Exclusive,
}

/// The four ports, connected.
#[derive(Debug, Clone)]
pub struct Backends {
    /// Batches between the API and the workers.
    pub queue: Arc<dyn BatchQueue>,
    /// The system of record.
    pub store: Arc<dyn Store>,
    /// Batches as objects.
    pub archive: Arc<dyn BatchArchive>,
    /// Live counters, rebuilt from the store.
    pub progress: Arc<LiveProgress>,
    /// The counters without the store, for health checks.
    pub progress_store: Arc<dyn ProgressStore>,
}

impl Backends {
    /// Connects all ports. Redis alone may be unavailable.
    pub async fn connect(
        settings: &PortSettings,
        program: &str,
        access: Access,
    ) -> PortResult<Self> {
        let (store, queue, archive, progress_store) = tokio::try_join!(
            store(settings, program, settings.migrate),
            queue(settings, program, access),
            archive(settings, access),
            progress(settings),
        )?;
        let progress = LiveProgress::new(Arc::clone(&progress_store), Arc::clone(&store));
        Ok(Self {
            queue,
            archive,
            progress: Arc::new(progress),
            progress_store,
            store,
        })
    }

    /// Closes all connections, waiting at most `CLOSE_TIMEOUT`.
    pub async fn close(&self) {
        let closed = async {
            tokio::join!(
                self.queue.close(),
                self.store.close(),
                self.progress_store.close()
            );
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            tracing::warn!("timed out closing connections");
        }
    }
}

/// Connects the store alone.
pub async fn store(
    settings: &PortSettings,
    program: &str,
    migrate: bool,
) -> PortResult<Arc<dyn Store>> {
    Ok(match &settings.locations.store {
        StoreLocation::Postgres(url) => {
            let settings = PostgresSettings {
                url: url.expose().to_owned(),
                program: program.to_owned(),
                connections: settings.database_connections,
                migrate,
            };
            Arc::new(PostgresStore::connect(settings).await?)
        }
        StoreLocation::Sqlite(file) => {
            let file = file.clone();
            Arc::new(SqliteStore::open(SqliteStoreSettings { file, migrate }).await?)
        }
    })
}

async fn queue(
    settings: &PortSettings,
    program: &str,
    access: Access,
) -> PortResult<Arc<dyn BatchQueue>> {
    Ok(match &settings.locations.queue {
        QueueLocation::Rabbit(url) => {
            let settings = RabbitSettings {
                url: url.expose().to_owned(),
                queue: settings.queue.clone(),
                program: program.to_owned(),
                publish_timeout: settings.publish_timeout,
            };
            Arc::new(RabbitQueue::connect(settings).await?)
        }
        QueueLocation::Sqlite(file) => {
            let settings = SqliteQueueSettings {
                file: file.clone(),
                publish_timeout: settings.publish_timeout,
                sole_user: access == Access::Exclusive && settings.locations.is_in_data_dir(file),
            };
            Arc::new(SqliteQueue::open(settings).await?)
        }
    })
}

async fn archive(settings: &PortSettings, access: Access) -> PortResult<Arc<dyn BatchArchive>> {
    Ok(match &settings.locations.archive {
        ArchiveLocation::S3 { bucket, prefix } => {
            let endpoint = settings.s3_endpoint.as_deref();
            Arc::new(S3Archive::connect(bucket, prefix, endpoint).await?)
        }
        ArchiveLocation::Directory(directory) => {
            let settings = FilesystemArchiveSettings {
                directory: directory.clone(),
                sole_user: access == Access::Exclusive
                    && settings.locations.is_in_data_dir(directory),
            };
            Arc::new(FilesystemArchive::open(settings).await?)
        }
    })
}

/// Connects the live counters alone.
pub async fn progress(settings: &PortSettings) -> PortResult<Arc<dyn ProgressStore>> {
    let ttl = settings.progress_ttl;
    Ok(match &settings.locations.progress {
        ProgressLocation::Redis(url) => Arc::new(RedisProgress::new(RedisSettings {
            url: url.expose().to_owned(),
            prefix: settings.redis_prefix.clone(),
            ttl,
        })?),
        ProgressLocation::Sqlite(file) => {
            let file = file.clone();
            Arc::new(SqliteProgress::open(SqliteProgressSettings { file, ttl }).await?)
        }
    })
}
