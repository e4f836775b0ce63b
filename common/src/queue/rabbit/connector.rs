//! Connections to the broker.

use std::time::Duration;

use lapin::types::FrameSize;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::topology::Topology;
use crate::error::{PortError, PortResult};
use crate::settings::SecretUrl;

/// The time limit for an answer of the broker. lapin 4.12 never answers a request that is made
/// while its connection ends.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The time limit for the first connection of a program. A busy broker may take long to create the
/// queues. No publish waits for it, so the limit of a publish does not apply.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The bytes of messages that wait for the socket. lapin copies each message into frames, and a
/// slow broker would otherwise let it hold a copy of every unconfirmed message.
const SENDING_BYTES: u32 = 4 << 20;

/// The size of a frame, unless the URL names one. lapin keeps two buffers of 32 frames for each
/// connection, and with the broker's default of 128 KiB they take 8 MiB.
const FRAME_BYTES: FrameSize = 32 << 10;

/// AMQP's reply code for success.
pub(super) const REPLY_SUCCESS: u16 = 200;

/// Waits for the end of a request, but no longer than the limit.
async fn in_time<T>(
    operation: &'static str,
    limit: Duration,
    request: impl Future<Output = PortResult<T>>,
) -> PortResult<T> {
    tokio::time::timeout(limit, request)
        .await
        .unwrap_or_else(|_| {
            let reason = format!("no answer from RabbitMQ within {} ms", limit.as_millis());
            Err(PortError::unavailable(operation, reason))
        })
}

/// Waits for the broker's answer to a request, but no longer than [`ANSWER_TIMEOUT`].
pub(super) async fn answer<T>(
    operation: &'static str,
    request: impl Future<Output = lapin::Result<T>>,
) -> PortResult<T> {
    let request = async {
        let answer = request.await;
        answer.map_err(|error| PortError::unavailable(operation, error))
    };
    in_time(operation, ANSWER_TIMEOUT, request).await
}

/// One connection. It opens at first use, and again after a loss.
#[derive(Debug)]
pub(super) struct Connector {
    url: SecretUrl,
    /// The connection's name in the broker's list.
    name: String,
    topology: Topology,
    /// Shorter than the timeout of a publish, so that a publish can replace a connection that
    /// hangs.
    timeout: Duration,
    connection: Mutex<Option<Connection>>,
    /// One permit per byte of the messages that wait for the socket.
    sending: Semaphore,
    /// When the last declaration after a returned message began.
    declared_at: Mutex<Option<Instant>>,
}

impl Connector {
    /// Prepares the connection, without connecting.
    pub(super) fn new(url: SecretUrl, name: String, topology: Topology, timeout: Duration) -> Self {
        Self {
            url,
            name,
            topology,
            timeout: ANSWER_TIMEOUT.min(timeout),
            connection: Mutex::default(),
            sending: Semaphore::new(SENDING_BYTES as usize),
            declared_at: Mutex::default(),
        }
    }

    /// Opens a channel. A connection that cannot open one in time (lost, or blocked by an alarm) is
    /// dropped, so that the next call connects again.
    pub(super) async fn channel(&self) -> PortResult<Channel> {
        self.channel_within(self.timeout).await
    }

    /// Connects for the first time, which declares the queues.
    pub(super) async fn start(&self) -> PortResult<()> {
        close(self.channel_within(START_TIMEOUT).await?).await;
        Ok(())
    }

    async fn channel_within(&self, limit: Duration) -> PortResult<Channel> {
        const OPERATION: &str = "queue.connect";
        let mut slot = self.connection.lock().await;
        let opened = in_time(OPERATION, limit, async {
            if let Some(connection) = slot.as_ref().filter(|known| known.status().connected()) {
                let channel = connection.create_channel().await;
                return channel.map_err(|error| PortError::unavailable(OPERATION, error));
            }
            let properties =
                ConnectionProperties::default().with_connection_name(self.name.as_str().into());
            let mut uri: AMQPUri = self
                .url
                .expose()
                .parse()
                .map_err(|reason: String| PortError::invalid(OPERATION, reason))?;
            uri.query.frame_max.get_or_insert(FRAME_BYTES);
            let connection = Connection::connect_uri(uri, properties)
                .await
                .map_err(|error| PortError::unavailable(OPERATION, error))?;
            let channel = connection
                .create_channel()
                .await
                .map_err(|error| PortError::unavailable(OPERATION, error))?;
            self.topology.declare(&channel).await?;
            *slot = Some(connection);
            Ok(channel)
        })
        .await;
        if opened.is_err() {
            *slot = None;
        }
        opened
    }

    /// Opens a channel after the queues have been declared again. A queue may have been deleted
    /// while the connection lived.
    pub(super) async fn declared_channel(&self) -> PortResult<Channel> {
        let channel = self.channel().await?;
        let declared = self.topology.declare(&channel);
        in_time("queue.declare", self.timeout, declared).await?;
        Ok(channel)
    }

    /// Waits until a message of this size may be copied for the socket. A larger one than the
    /// limit waits for all of it. The semaphore is never closed.
    pub(super) async fn room_to_send(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let bytes = u32::try_from(bytes).unwrap_or(SENDING_BYTES);
        let room = self.sending.acquire_many(bytes.min(SENDING_BYTES));
        room.await.ok()
    }

    /// Declares the queues again.
    pub(super) async fn declare(&self) -> PortResult<()> {
        close(self.declared_channel().await?).await;
        Ok(())
    }

    /// Declares the queues again, unless that was done since `noticed`. Many publishes notice at
    /// once that a queue was deleted.
    pub(super) async fn declare_since(&self, noticed: Instant) -> PortResult<()> {
        let mut declared_at = self.declared_at.lock().await;
        if declared_at.is_none_or(|at| at < noticed) {
            let started = Instant::now();
            self.declare().await?;
            *declared_at = Some(started);
        }
        Ok(())
    }

    pub(super) async fn close(&self) {
        if let Some(connection) = self.connection.lock().await.take() {
            let closed = connection.close(REPLY_SUCCESS, "done".into());
            // After a timeout the broker detects the end of the connection by itself.
            let _ = answer("queue.close", closed).await;
        }
    }
}

/// Closes a channel. An error means that the channel was closed already.
pub(super) async fn close(channel: Channel) {
    let _ = answer("queue.close", channel.close(REPLY_SUCCESS, "done".into())).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// lapin never answers an acknowledgement that is sent while its connection ends.
    #[tokio::test(start_paused = true)]
    async fn a_request_without_an_answer_ends_as_unavailable_after_ten_seconds() {
        let started = Instant::now();
        let answered = answer("queue.ack", std::future::pending::<lapin::Result<()>>()).await;
        let error = answered.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(started.elapsed(), Duration::from_secs(10));
    }

    #[test]
    fn a_connector_never_shows_its_password() {
        let url = SecretUrl::new("amqp://carga:s3cret@mq/%2f".to_owned());
        let topology = Topology::new("carga", Duration::from_secs(1));
        let connector = Connector::new(url, "test".to_owned(), topology, ANSWER_TIMEOUT);
        let shown = format!("{connector:?}");
        assert!(shown.contains("amqp://carga:***@mq/%2f"), "{shown}");
    }
}
