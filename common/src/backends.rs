//! The four ports, connected as the settings say: each to its server or to its file, in any mix.

use std::sync::Arc;
use std::time::Duration;

use crate::archive::{BatchArchive, FilesystemArchive, FilesystemArchiveSettings, S3Archive};
use crate::error::PortResult;
use crate::live_progress::LiveProgress;
use crate::progress::{
    ProgressStore, RedisProgress, RedisSettings, SqliteProgress, SqliteProgressSettings,
};
use crate::queue::{BatchQueue, RabbitQueue, RabbitSettings, SqliteQueue, SqliteQueueSettings};
use crate::settings::{ArchivePlace, PortSettings, ProgressPlace, QueuePlace, StorePlace};
use crate::store::{PostgresSettings, PostgresStore, SqliteStore, SqliteStoreSettings, Store};

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
    Ok(match &settings.places.store {
        StorePlace::Postgres(url) => {
            let settings = PostgresSettings {
                url: url.expose().to_owned(),
                program: program.to_owned(),
                connections: settings.database_connections,
                migrate,
            };
            Arc::new(PostgresStore::connect(settings).await?)
        }
        StorePlace::Sqlite(file) => {
            let file = file.clone();
            Arc::new(SqliteStore::open(SqliteStoreSettings { file, migrate }).await?)
        }
    })
}

async fn queue(
    settings: &PortSettings,
    program: &str,
    sharing: Sharing,
) -> PortResult<Arc<dyn BatchQueue>> {
    Ok(match &settings.places.queue {
        QueuePlace::Rabbit(url) => {
            let settings = RabbitSettings {
                url: url.expose().to_owned(),
                queue: settings.queue.clone(),
                program: program.to_owned(),
                publish_timeout: settings.publish_timeout,
            };
            Arc::new(RabbitQueue::connect(settings).await?)
        }
        QueuePlace::Sqlite(file) => {
            let settings = SqliteQueueSettings {
                file: file.clone(),
                publish_timeout: settings.publish_timeout,
                sole_user: sharing == Sharing::Alone && settings.places.is_in_data_dir(file),
            };
            Arc::new(SqliteQueue::open(settings).await?)
        }
    })
}

async fn archive(settings: &PortSettings, sharing: Sharing) -> PortResult<Arc<dyn BatchArchive>> {
    Ok(match &settings.places.archive {
        ArchivePlace::S3 { bucket, prefix } => {
            let endpoint = settings.s3_endpoint.as_deref();
            Arc::new(S3Archive::connect(bucket, prefix, endpoint).await?)
        }
        ArchivePlace::Directory(directory) => {
            let settings = FilesystemArchiveSettings {
                directory: directory.clone(),
                sole_user: sharing == Sharing::Alone && settings.places.is_in_data_dir(directory),
            };
            Arc::new(FilesystemArchive::open(settings).await?)
        }
    })
}

/// The counters' store alone.
pub async fn progress(settings: &PortSettings) -> PortResult<Arc<dyn ProgressStore>> {
    let ttl = settings.progress_ttl;
    Ok(match &settings.places.progress {
        ProgressPlace::Redis(url) => Arc::new(RedisProgress::new(RedisSettings {
            url: url.expose().to_owned(),
            prefix: settings.redis_prefix.clone(),
            ttl,
        })?),
        ProgressPlace::Sqlite(file) => {
            let file = file.clone();
            Arc::new(SqliteProgress::open(SqliteProgressSettings { file, ttl }).await?)
        }
    })
}
