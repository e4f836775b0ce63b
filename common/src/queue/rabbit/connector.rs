//! Connections to the broker.

use std::time::Duration;

use lapin::{Channel, Connection, ConnectionProperties};
use tokio::sync::Mutex;

use super::topology::Topology;
use crate::error::{PortError, PortResult};

/// The time limit for opening a connection or a channel.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// AMQP's reply code for success.
pub(super) const REPLY_SUCCESS: u16 = 200;

/// One connection. It opens at first use, and again after a loss.
#[derive(Debug)]
pub(super) struct Connector {
    url: String,
    /// The connection's name in the broker's list.
    name: String,
    topology: Topology,
    /// Shorter than the timeout of a publish, so that a publish can replace a connection that
    /// hangs.
    timeout: Duration,
    connection: Mutex<Option<Connection>>,
}

impl Connector {
    /// Prepares the connection, without connecting.
    pub(super) fn new(url: String, name: String, topology: Topology, timeout: Duration) -> Self {
        Self {
            url,
            name,
            topology,
            timeout: CONNECT_TIMEOUT.min(timeout),
            connection: Mutex::default(),
        }
    }

    /// Opens a channel. A connection that cannot open one in time (lost, or blocked by an alarm) is
    /// dropped, so that the next call connects again.
    pub(super) async fn channel(&self) -> PortResult<Channel> {
        const OPERATION: &str = "queue.connect";
        let mut slot = self.connection.lock().await;
        let opened = tokio::time::timeout(self.timeout, async {
            if let Some(connection) = slot.as_ref().filter(|known| known.status().connected()) {
                let channel = connection.create_channel().await;
                return channel.map_err(|error| PortError::unavailable(OPERATION, error));
            }
            let properties =
                ConnectionProperties::default().with_connection_name(self.name.as_str().into());
            let connection = Connection::connect(&self.url, properties)
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
        .await
        .unwrap_or_else(|_| {
            let reason = format!(
                "no answer from RabbitMQ within {} ms",
                self.timeout.as_millis()
            );
            Err(PortError::unavailable(OPERATION, reason))
        });
        if opened.is_err() {
            *slot = None;
        }
        opened
    }

    pub(super) async fn close(&self) {
        if let Some(connection) = self.connection.lock().await.take() {
            let closed = connection.close(REPLY_SUCCESS, "done".into());
            // After a timeout the broker detects the end of the connection by itself.
            let _ = tokio::time::timeout(CONNECT_TIMEOUT, closed).await;
        }
    }
}

/// Closes a channel. An error means that the channel was closed already.
pub(super) async fn close(channel: Channel) {
    let _ =
        tokio::time::timeout(CONNECT_TIMEOUT, channel.close(REPLY_SUCCESS, "done".into())).await;
}
