//! The four ports, connected as the settings say: each to its server or to its file, in any mix.

use std::sync::Arc;
use std::time::Duration;

use crate::archive::BatchArchive;
#[cfg(feature = "s3")]
use crate::archive::S3Archive;
#[cfg(feature = "filesystem")]
use crate::archive::{FilesystemArchive, FilesystemArchiveSettings};
use crate::error::PortResult;
#[cfg(not(all(
    feature = "postgres",
    feature = "rabbit",
    feature = "redis",
    feature = "s3",
    feature = "sqlite",
    feature = "filesystem"
)))]
use crate::error::{ErrorKind, PortError};
use crate::progress::{LiveProgress, ProgressStore};
#[cfg(feature = "redis")]
use crate::progress::{RedisProgress, RedisSettings};
#[cfg(feature = "sqlite")]
use crate::progress::{SqliteProgress, SqliteProgressSettings};
use crate::queue::BatchQueue;
#[cfg(feature = "rabbit")]
use crate::queue::{RabbitQueue, RabbitSettings};
#[cfg(feature = "sqlite")]
use crate::queue::{SqliteQueue, SqliteQueueSettings};
use crate::settings::{ArchivePlace, PortSettings, ProgressPlace, QueuePlace, StorePlace};
use crate::store::Store;
#[cfg(feature = "postgres")]
use crate::store::{PostgresSettings, PostgresStore};
#[cfg(feature = "sqlite")]
use crate::store::{SqliteStore, SqliteStoreSettings};

/// Within the time that orchestrators leave after the grace period.
const GOODBYE: Duration = Duration::from_secs(5);

/// Who else may use the files of the embedded adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Other processes may.
    Others,
    /// Those in the data directory are ours alone: its lock is held.
    Alone,
}

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
    /// Connects to all but Redis, which may be away.
    pub async fn connect(
        settings: &PortSettings,
        program: &str,
        sharing: Sharing,
    ) -> PortResult<Self> {
        let (store, queue, archive, progress_store) = tokio::try_join!(
            store(settings, program, settings.migrate),
            queue(settings, program, sharing),
            archive(settings, sharing),
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

    /// Says goodbye to all that keep a connection, briefly: what does not answer is left.
    pub async fn close(&self) {
        let goodbye = async {
            tokio::join!(
                self.queue.close(),
                self.store.close(),
                self.progress_store.close()
            );
        };
        if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
            tracing::warn!("a server did not answer the goodbye");
        }
    }
}

/// The store alone.
pub async fn store(
    settings: &PortSettings,
    program: &str,
    migrate: bool,
) -> PortResult<Arc<dyn Store>> {
    match &settings.places.store {
        #[cfg(feature = "postgres")]
        StorePlace::Postgres(url) => {
            let settings = PostgresSettings {
                url: url.expose().to_owned(),
                program: program.to_owned(),
                connections: settings.database_connections,
                migrate,
            };
            Ok(Arc::new(PostgresStore::connect(settings).await?))
        }
        #[cfg(feature = "sqlite")]
        StorePlace::Sqlite(file) => {
            let file = file.clone();
            let store = SqliteStore::open(SqliteStoreSettings { file, migrate }).await?;
            Ok(Arc::new(store))
        }
        #[cfg(not(all(feature = "postgres", feature = "sqlite")))]
        place => Err(missing("store.connect", (place, program, migrate))),
    }
}

async fn queue(
    settings: &PortSettings,
    program: &str,
    sharing: Sharing,
) -> PortResult<Arc<dyn BatchQueue>> {
    match &settings.places.queue {
        #[cfg(feature = "rabbit")]
        QueuePlace::Rabbit(url) => {
            let settings = RabbitSettings {
                url: url.expose().to_owned(),
                queue: settings.queue.clone(),
                program: program.to_owned(),
                publish_timeout: settings.publish_timeout,
            };
            Ok(Arc::new(RabbitQueue::connect(settings).await?))
        }
        #[cfg(feature = "sqlite")]
        QueuePlace::Sqlite(file) => {
            let settings = SqliteQueueSettings {
                file: file.clone(),
                publish_timeout: settings.publish_timeout,
                sole_user: sharing == Sharing::Alone && settings.places.is_in_data_dir(file),
            };
            Ok(Arc::new(SqliteQueue::open(settings).await?))
        }
        #[cfg(not(all(feature = "rabbit", feature = "sqlite")))]
        place => Err(missing("queue.connect", (place, program, sharing))),
    }
}

async fn archive(settings: &PortSettings, sharing: Sharing) -> PortResult<Arc<dyn BatchArchive>> {
    match &settings.places.archive {
        #[cfg(feature = "s3")]
        ArchivePlace::S3 { bucket, prefix } => {
            let endpoint = settings.s3_endpoint.as_deref();
            let archive = S3Archive::connect(bucket, prefix, endpoint).await?;
            Ok(Arc::new(archive))
        }
        #[cfg(feature = "filesystem")]
        ArchivePlace::Directory(directory) => {
            let settings = FilesystemArchiveSettings {
                directory: directory.clone(),
                sole_user: sharing == Sharing::Alone && settings.places.is_in_data_dir(directory),
            };
            Ok(Arc::new(FilesystemArchive::open(settings).await?))
        }
        #[cfg(not(all(feature = "s3", feature = "filesystem")))]
        place => Err(missing("archive.connect", (place, sharing))),
    }
}

/// The counters' store alone.
pub async fn progress(settings: &PortSettings) -> PortResult<Arc<dyn ProgressStore>> {
    match &settings.places.progress {
        #[cfg(feature = "redis")]
        ProgressPlace::Redis(url) => {
            let settings = RedisSettings {
                url: url.expose().to_owned(),
                prefix: settings.redis_prefix.clone(),
                ttl: settings.progress_ttl,
            };
            Ok(Arc::new(RedisProgress::new(settings)?))
        }
        #[cfg(feature = "sqlite")]
        ProgressPlace::Sqlite(file) => {
            let settings = SqliteProgressSettings {
                file: file.clone(),
                ttl: settings.progress_ttl,
            };
            Ok(Arc::new(SqliteProgress::open(settings).await?))
        }
        #[cfg(not(all(feature = "redis", feature = "sqlite")))]
        place => Err(missing("progress.connect", place)),
    }
}

/// This build lacks the adapter. The settings are refused before that by the name of their variable,
/// so only a program that makes its settings by hand gets here.
#[cfg(not(all(
    feature = "postgres",
    feature = "rabbit",
    feature = "redis",
    feature = "s3",
    feature = "sqlite",
    feature = "filesystem"
)))]
fn missing(operation: &'static str, asked_for: impl std::fmt::Debug) -> PortError {
    let reason = format!("this build has no adapter for {asked_for:?}");
    PortError::new(ErrorKind::Internal, operation, reason)
}
