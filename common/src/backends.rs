//! Connects the four ports according to the settings: each to its server or to its file.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::archive::BatchArchive;
#[cfg(feature = "s3")]
use crate::archive::S3Archive;
#[cfg(feature = "filesystem")]
use crate::archive::{FilesystemArchive, FilesystemArchiveSettings};
use crate::error::PortResult;
use crate::limiter::RateLimiter;
#[cfg(feature = "redis")]
use crate::limiter::{RedisLimiter, RedisLimiterSettings};
use crate::live_progress::LiveProgress;
use crate::metrics::measured_archive::MeasuredArchive;
use crate::metrics::measured_queue::MeasuredQueue;
use crate::progress::ProgressStore;
#[cfg(feature = "redis")]
use crate::progress::{RedisProgress, RedisSettings};
#[cfg(feature = "sqlite")]
use crate::progress::{SqliteProgress, SqliteProgressSettings};
use crate::queue::BatchQueue;
#[cfg(any(feature = "rabbit", feature = "sqlite"))]
use crate::queue::POSTPONEMENT;
#[cfg(feature = "rabbit")]
use crate::queue::{RabbitQueue, RabbitSettings};
#[cfg(feature = "sqlite")]
use crate::queue::{SqliteQueue, SqliteQueueSettings};
use crate::settings::PortSettings;
#[allow(
    unused_imports,
    reason = "a build with one adapter names the location of its port alone"
)]
use crate::settings::{ArchiveLocation, ProgressLocation, QueueLocation, StoreLocation};
use crate::store::Store;
#[cfg(feature = "postgres")]
use crate::store::{PostgresSettings, PostgresStore};
#[cfg(feature = "sqlite")]
use crate::store::{SqliteStore, SqliteStoreSettings};
use crate::traced::Traced;

/// How long connections may take to close. Orchestrators allow this much after the grace period.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether other processes may use the files of the embedded adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Other processes may use the files.
    Shared,
    /// Only this process uses the files in the data directory, because it holds the lock of the
    /// directory.
    Exclusive,
}

/// The connections of the four ports.
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
    /// Connects all ports. Fails if the store or the queue is unavailable; Redis and S3 may be
    /// away.
    pub async fn connect(
        settings: &PortSettings,
        program: &str,
        access: Access,
    ) -> PortResult<Self> {
        let store = store(settings, program, settings.migrate);
        // The queue writes the store's installation id into every message.
        let store_and_queue = async {
            let store = store.await?;
            let installation = store.installation().await?;
            let queue = queue(settings, program, access, installation).await?;
            let queue: Arc<dyn BatchQueue> = Arc::new(Traced(queue));
            Ok((store, queue))
        };
        let ((store, queue), archive, progress_store) = tokio::try_join!(
            store_and_queue,
            archive(settings, access),
            progress(settings),
        )?;
        let archive: Arc<dyn BatchArchive> = Arc::new(Traced(archive));
        let progress = LiveProgress::new(Arc::clone(&progress_store), Arc::clone(&store));
        Ok(Self {
            // The adapters of the store and of the counters measure their calls themselves.
            queue: Arc::new(MeasuredQueue(queue)),
            archive: Arc::new(MeasuredArchive(archive)),
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
    let store = connect_store(settings, program, migrate).await?;
    Ok(Arc::new(Traced(store)))
}

async fn connect_store(
    settings: &PortSettings,
    program: &str,
    migrate: bool,
) -> PortResult<Arc<dyn Store>> {
    match &settings.locations.store {
        #[cfg(feature = "postgres")]
        StoreLocation::Postgres(url) => {
            let settings = PostgresSettings {
                url: url.clone(),
                program: program.to_owned(),
                connections: settings.database_connections,
                migrate,
                allow_unknown: settings.allow_unknown_postgres,
            };
            Ok(Arc::new(PostgresStore::connect(settings).await?))
        }
        #[cfg(feature = "sqlite")]
        StoreLocation::Sqlite(file) => {
            let file = file.clone();
            let store = SqliteStore::open(SqliteStoreSettings { file, migrate }).await?;
            Ok(Arc::new(store))
        }
        #[cfg(not(all(feature = "postgres", feature = "sqlite")))]
        location => Err(missing("store.connect", (location, program, migrate))),
    }
}

async fn queue(
    settings: &PortSettings,
    program: &str,
    access: Access,
    installation: Uuid,
) -> PortResult<Arc<dyn BatchQueue>> {
    match &settings.locations.queue {
        #[cfg(feature = "rabbit")]
        QueueLocation::Rabbit(url) => {
            let settings = RabbitSettings {
                url: url.clone(),
                queue: settings.queue.clone(),
                program: program.to_owned(),
                publish_timeout: settings.publish_timeout,
                postponement: POSTPONEMENT,
                installation,
            };
            Ok(Arc::new(RabbitQueue::connect(settings).await?))
        }
        #[cfg(feature = "sqlite")]
        QueueLocation::Sqlite(file) => {
            let settings = SqliteQueueSettings {
                file: file.clone(),
                publish_timeout: settings.publish_timeout,
                postponement: POSTPONEMENT,
                installation,
                sole_user: access == Access::Exclusive && settings.locations.is_in_data_dir(file),
            };
            Ok(Arc::new(SqliteQueue::open(settings).await?))
        }
        #[cfg(not(all(feature = "rabbit", feature = "sqlite")))]
        location => Err(missing(
            "queue.connect",
            (location, program, access, installation),
        )),
    }
}

async fn archive(settings: &PortSettings, access: Access) -> PortResult<Arc<dyn BatchArchive>> {
    match &settings.locations.archive {
        #[cfg(feature = "s3")]
        ArchiveLocation::S3 { bucket, prefix } => {
            let endpoint = settings.s3_endpoint.as_ref().map(|url| url.expose());
            let archive = S3Archive::connect(bucket, prefix, endpoint).await?;
            Ok(Arc::new(archive))
        }
        #[cfg(feature = "filesystem")]
        ArchiveLocation::Directory(directory) => {
            let settings = FilesystemArchiveSettings {
                directory: directory.clone(),
                sole_user: access == Access::Exclusive
                    && settings.locations.is_in_data_dir(directory),
            };
            Ok(Arc::new(FilesystemArchive::open(settings).await?))
        }
        #[cfg(not(all(feature = "s3", feature = "filesystem")))]
        location => Err(missing("archive.connect", (location, access))),
    }
}

/// Connects the live counters alone.
pub async fn progress(settings: &PortSettings) -> PortResult<Arc<dyn ProgressStore>> {
    Ok(Arc::new(Traced(connect_progress(settings).await?)))
}

async fn connect_progress(settings: &PortSettings) -> PortResult<Arc<dyn ProgressStore>> {
    match &settings.locations.progress {
        #[cfg(feature = "redis")]
        ProgressLocation::Redis(url) => {
            let settings = RedisSettings {
                url: url.clone(),
                prefix: settings.redis_prefix.clone(),
                ttl: settings.progress_ttl,
            };
            Ok(Arc::new(RedisProgress::new(settings)?))
        }
        #[cfg(feature = "sqlite")]
        ProgressLocation::Sqlite(file) => {
            let settings = SqliteProgressSettings {
                file: file.clone(),
                ttl: settings.progress_ttl,
            };
            Ok(Arc::new(SqliteProgress::open(settings).await?))
        }
        #[cfg(not(all(feature = "redis", feature = "sqlite")))]
        location => Err(missing("progress.connect", location)),
    }
}

/// How long a request waits for the shared rate limiter. Then its process counts alone.
#[cfg(feature = "redis")]
const LIMITER_TIMEOUT: Duration = Duration::from_millis(50);

/// The rate limiter that all APIs share. It is in the Redis of the live counters, which may be
/// away. Without Redis, there is none: a process whose live counters are in a file is the only API.
pub async fn rate_limiter(settings: &PortSettings) -> PortResult<Option<Arc<dyn RateLimiter>>> {
    match &settings.locations.progress {
        #[cfg(feature = "redis")]
        ProgressLocation::Redis(url) => {
            let settings = RedisLimiterSettings {
                url: url.clone(),
                prefix: settings.redis_prefix.clone(),
                timeout: LIMITER_TIMEOUT,
            };
            let limiter: Arc<dyn RateLimiter> = Arc::new(RedisLimiter::connect(settings).await?);
            Ok(Some(Arc::new(Traced(limiter))))
        }
        _ => Ok(None),
    }
}

/// The error of a build without the adapter. Settings from the environment are checked earlier, so
/// only a program that builds its own `PortSettings` gets this error.
#[cfg(not(all(
    feature = "postgres",
    feature = "rabbit",
    feature = "redis",
    feature = "s3",
    feature = "sqlite",
    feature = "filesystem"
)))]
fn missing(operation: &'static str, requested: impl std::fmt::Debug) -> crate::error::PortError {
    use crate::error::{ErrorKind, PortError};
    let reason = format!("this build has no adapter for {requested:?}; enable its Cargo feature");
    PortError::new(ErrorKind::Internal, operation, reason)
}
