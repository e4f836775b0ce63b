//! Fixtures for the adapters of the queue.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_common::queue::{
    BatchQueue, RabbitQueue, RabbitSettings, SqliteQueue, SqliteQueueSettings,
};
use carga_common::settings::SecretUrl;
use carga_testkit::Scope;
use futures::FutureExt;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Connection, ConnectionProperties};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Executor};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

use super::{INSTALLATION, Killable, QueueFixture, Silence, Silenceable};
use crate::suite::Fixture;

const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// The timeout of a publish to a queue that falls silent.
const SHORT_TIMEOUT: Duration = Duration::from_secs(4);

/// The settlements of a silent broker fail side by side. Two of them one after the other would take
/// eight seconds.
const RABBIT_SETTLES_WITHIN: Duration = Duration::from_secs(7);

/// One task makes all writes to the file. Each of its attempts waits ten seconds for the lock, and
/// the settlements may need several attempts.
const SQLITE_SETTLES_WITHIN: Duration = Duration::from_secs(60);

/// Two seconds instead of half a minute.
pub(super) const POSTPONEMENT: Duration = Duration::from_secs(2);

/// A prefix for queues on the shared broker.
pub(super) struct Rabbit(Scope);

impl Fixture for Rabbit {
    async fn start() -> Result<Self> {
        Ok(Self(Scope::new().await?))
    }

    /// Deletes the queues and the exchange: the broker keeps a queue until it is deleted, and
    /// hundreds of queues slow it down.
    async fn end(self) -> Result<()> {
        self.delete_queues().await?;
        self.0.close().await
    }
}

impl Rabbit {
    fn settings(&self, url: String) -> RabbitSettings {
        RabbitSettings {
            url: SecretUrl::new(url),
            queue: self.0.name().to_owned(),
            program: "contract".to_owned(),
            publish_timeout: PUBLISH_TIMEOUT,
            postponement: POSTPONEMENT,
            installation: INSTALLATION,
        }
    }

    /// The name of the queue with this end.
    pub(super) fn queue(&self, end: &str) -> String {
        format!("{}.{end}", self.0.name())
    }

    /// Opens a connection without the adapter.
    pub(super) async fn connect(&self) -> Result<Connection> {
        let properties = ConnectionProperties::default();
        Ok(Connection::connect(self.0.amqp_url(), properties).await?)
    }

    async fn delete_queues(&self) -> Result<()> {
        const QUEUES: [&str; 7] = [
            "batches",
            "suspects",
            "retry.1s",
            "retry.4s",
            "retry.16s",
            "wait",
            "dead",
        ];
        let connection = self.connect().await?;
        let channel = connection.create_channel().await?;
        for queue in QUEUES {
            let name = self.queue(queue);
            channel
                .queue_delete(name.into(), QueueDeleteOptions::default())
                .await?;
        }
        let exchange = self.queue("events");
        channel
            .exchange_delete(exchange.into(), ExchangeDeleteOptions::default())
            .await?;
        connection.close(200, "done".into()).await?;
        Ok(())
    }

    /// Opens a queue whose broker answers after this time. A publish times out earlier.
    pub(super) async fn open_late(&self, delay: Duration) -> Result<Arc<dyn BatchQueue>> {
        let relay = self.relay_after(delay).await?;
        open_rabbit(RabbitSettings {
            publish_timeout: SHORT_TIMEOUT,
            ..self.settings(relay.url)
        })
        .await
    }

    /// Starts a relay to the broker.
    async fn relay(&self) -> Result<Relay> {
        self.relay_after(Duration::ZERO).await
    }

    /// Starts a relay that serves its connections after this time.
    async fn relay_after(&self, delay: Duration) -> Result<Relay> {
        let url = self.0.amqp_url();
        let (_, address) = url.split_once('@').context("the broker URL has no user")?;
        let broker = address.split('/').next().unwrap_or(address);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = url.replace(broker, &listener.local_addr()?.to_string());
        let (silence, silent) = watch::channel(false);
        let broker = broker.to_owned();
        let connections = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            relay(listener, broker, silent).await
        });
        Ok(Relay {
            url,
            silence,
            connections,
        })
    }
}

async fn open_rabbit(settings: RabbitSettings) -> Result<Arc<dyn BatchQueue>> {
    Ok(Arc::new(RabbitQueue::connect(settings).await?))
}

impl QueueFixture for Rabbit {
    async fn open_as(&self, installation: Uuid) -> Result<Arc<dyn BatchQueue>> {
        open_rabbit(RabbitSettings {
            installation,
            ..self.settings(self.0.amqp_url().to_owned())
        })
        .await
    }

    /// Connects through a relay in this process, which can cut the connections.
    async fn open_killable(&self) -> Result<Killable> {
        let Relay {
            url, connections, ..
        } = self.relay().await?;
        let queue = open_rabbit(self.settings(url)).await?;
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

    /// Silences every connection except the consumer's.
    async fn open_silenceable(&self) -> Result<Silenceable> {
        // Creating the queues may take longer than the short timeout.
        self.open().await?.close().await;
        let relay = self.relay().await?;
        let queue = open_rabbit(RabbitSettings {
            publish_timeout: SHORT_TIMEOUT,
            ..self.settings(relay.url.clone())
        })
        .await?;
        let fall_silent = async move {
            relay.silence.send_replace(true);
            let silence: Silence = Box::new(Silencer(relay.silence));
            anyhow::Ok(silence)
        };
        Ok(Silenceable {
            queue,
            fall_silent: fall_silent.boxed(),
            settles_within: RABBIT_SETTLES_WITHIN,
        })
    }

    async fn delete_the_queue(&self) -> Result<()> {
        self.delete_queues().await
    }
}

/// A relay in this process.
struct Relay {
    /// The broker's URL with the address of the relay.
    url: String,
    /// Whether the connections are silent.
    silence: watch::Sender<bool>,
    connections: JoinHandle<std::io::Result<()>>,
}

/// Ends the silence when it is dropped.
struct Silencer(watch::Sender<bool>);

impl Drop for Silencer {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// The queue connects its publishers first and its consumers second.
const CONSUMERS_CONNECTION: u32 = 2;

/// Relays every connection to `to`, until the future is dropped.
async fn relay(
    listener: TcpListener,
    to: String,
    silent: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        let (here, _) = listener.accept().await?;
        let there = TcpStream::connect(&to).await?;
        number += 1;
        let silent = (number != CONSUMERS_CONNECTION).then(|| silent.clone());
        connections.spawn(relay_connection(here, there, silent));
    }
}

/// Relays a connection until it ends. Once it is silent it stays open, and neither side hears from
/// the other again.
async fn relay_connection(
    mut here: TcpStream,
    mut there: TcpStream,
    silent: Option<watch::Receiver<bool>>,
) {
    let is_silent = async {
        if let Some(mut silent) = silent {
            // This fails when no one can silence the connection any more.
            let is_silent = silent.wait_for(|is_silent| *is_silent).await.is_ok();
            if is_silent {
                return;
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        biased;
        () = is_silent => std::future::pending().await,
        _ = copy_bidirectional(&mut here, &mut there) => {}
    }
}

/// A database file in a temporary directory.
pub(super) struct Sqlite(TempDir);

impl Sqlite {
    fn file(&self) -> PathBuf {
        self.0.path().join("queue.db")
    }

    fn settings(&self) -> SqliteQueueSettings {
        SqliteQueueSettings {
            file: self.file(),
            publish_timeout: PUBLISH_TIMEOUT,
            sole_user: false,
            postponement: POSTPONEMENT,
            installation: INSTALLATION,
        }
    }

    async fn connect(&self) -> Result<SqliteConnection> {
        let file = SqliteConnectOptions::new().filename(self.file());
        Ok(file.connect().await?)
    }
}

async fn open_sqlite(settings: SqliteQueueSettings) -> Result<Arc<dyn BatchQueue>> {
    Ok(Arc::new(SqliteQueue::open(settings).await?))
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
    async fn open_as(&self, installation: Uuid) -> Result<Arc<dyn BatchQueue>> {
        open_sqlite(SqliteQueueSettings {
            installation,
            ..self.settings()
        })
        .await
    }

    /// Deletes the record of the holder, as the queue does when a holder sends no heartbeat.
    async fn open_killable(&self) -> Result<Killable> {
        let queue = self.open().await?;
        let mut connection = self.connect().await?;
        let presume_dead = async move {
            let deleted = sqlx::query("DELETE FROM holders")
                .execute(&mut connection)
                .await?;
            ensure!(deleted.rows_affected() > 0, "{deleted:?}");
            Ok(sqlx::Connection::close(connection).await?)
        };
        Ok(Killable {
            queue,
            presume_dead: presume_dead.boxed(),
        })
    }

    /// Locks the file, as a long backup does.
    async fn open_silenceable(&self) -> Result<Silenceable> {
        let queue = open_sqlite(SqliteQueueSettings {
            publish_timeout: SHORT_TIMEOUT,
            ..self.settings()
        })
        .await?;
        let mut connection = self.connect().await?;
        let fall_silent = async move {
            connection.execute("BEGIN IMMEDIATE").await?;
            let silence: Silence = Box::new(connection);
            anyhow::Ok(silence)
        };
        Ok(Silenceable {
            queue,
            fall_silent: fall_silent.boxed(),
            settles_within: SQLITE_SETTLES_WITHIN,
        })
    }

    /// Deletes all messages: the queue holds its file open.
    async fn delete_the_queue(&self) -> Result<()> {
        let mut connection = self.connect().await?;
        connection
            .execute("DELETE FROM messages; DELETE FROM bodies")
            .await?;
        Ok(sqlx::Connection::close(connection).await?)
    }
}
