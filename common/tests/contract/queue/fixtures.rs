//! Fixtures for the adapters of the queue.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_common::queue::{
    BatchQueue, RabbitQueue, RabbitSettings, SqliteQueue, SqliteQueueSettings,
};
use carga_testkit::Scope;
use futures::FutureExt;
use lapin::options::QueueDeleteOptions;
use lapin::{Connection, ConnectionProperties};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Killable, QueueFixture};
use crate::suite::Fixture;

const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// A prefix for queues on the shared broker.
pub(super) struct Rabbit(Scope);

impl Fixture for Rabbit {
    async fn start() -> Result<Self> {
        Ok(Self(Scope::new().await?))
    }

    /// Deletes the queues: the broker keeps a queue until it is deleted, and hundreds of queues
    /// slow it down.
    async fn end(self) -> Result<()> {
        let connection =
            Connection::connect(self.0.amqp_url(), ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        for queue in ["batches", "retry.1s", "retry.4s", "retry.16s", "dead"] {
            let name = format!("{}.{queue}", self.0.name());
            channel
                .queue_delete(name.into(), QueueDeleteOptions::default())
                .await?;
        }
        connection.close(200, "done".into()).await?;
        self.0.close().await
    }
}

impl Rabbit {
    async fn open_at(&self, url: String) -> Result<Arc<dyn BatchQueue>> {
        let settings = RabbitSettings {
            url,
            queue: self.0.name().to_owned(),
            program: "contract".to_owned(),
            publish_timeout: PUBLISH_TIMEOUT,
        };
        Ok(Arc::new(RabbitQueue::connect(settings).await?))
    }
}

impl QueueFixture for Rabbit {
    async fn open(&self) -> Result<Arc<dyn BatchQueue>> {
        self.open_at(self.0.amqp_url().to_owned()).await
    }

    /// Connects through a relay in this process, which can cut the connections.
    async fn open_killable(&self) -> Result<Killable> {
        let url = self.0.amqp_url();
        let (_, address) = url.split_once('@').context("the broker URL has no user")?;
        let broker = address.split('/').next().unwrap_or(address);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let relay_url = url.replace(broker, &listener.local_addr()?.to_string());
        let connections = tokio::spawn(relay(listener, broker.to_owned()));
        let queue = self.open_at(relay_url).await?;
        let presume_dead = async move {
            connections.abort();
            // Once the task has ended, all its connections are closed.
            let ended = connections.await;
            ensure!(ended.is_err_and(|error| error.is_cancelled()));
            Ok(())
        };
        Ok(Killable {
            queue,
            presume_dead: presume_dead.boxed(),
        })
    }
}

/// Relays every connection to `to`, until the future is dropped.
async fn relay(listener: TcpListener, to: String) -> std::io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (mut here, _) = listener.accept().await?;
        let mut there = TcpStream::connect(&to).await?;
        connections.spawn(async move { copy_bidirectional(&mut here, &mut there).await });
    }
}

/// A database file in a temporary directory.
pub(super) struct Sqlite(TempDir);

impl Sqlite {
    fn file(&self) -> PathBuf {
        self.0.path().join("queue.db")
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

impl QueueFixture for Sqlite {
    async fn open(&self) -> Result<Arc<dyn BatchQueue>> {
        let settings = SqliteQueueSettings {
            file: self.file(),
            publish_timeout: PUBLISH_TIMEOUT,
            sole_user: false,
        };
        Ok(Arc::new(SqliteQueue::open(settings).await?))
    }

    /// Deletes the record of the holder, as the queue does when a holder sends no heartbeat.
    async fn open_killable(&self) -> Result<Killable> {
        let queue = self.open().await?;
        let file = SqliteConnectOptions::new().filename(self.file());
        let presume_dead = async move {
            let mut connection = file.connect().await?;
            let deleted = sqlx::query("DELETE FROM holders")
                .execute(&mut connection)
                .await?;
            ensure!(deleted.rows_affected() == 1, "{deleted:?}");
            Ok(sqlx::Connection::close(connection).await?)
        };
        Ok(Killable {
            queue,
            presume_dead: presume_dead.boxed(),
        })
    }
}
