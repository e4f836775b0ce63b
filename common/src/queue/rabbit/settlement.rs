//! Settling a delivery, and returning one that is dropped.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::{Acker, Channel};

use super::super::{MessageKind, RetryTier, SUSPECT_AFTER, Settlement};
use super::connector::{Connector, REPLY_SUCCESS, answer};
use super::envelope::{Counts, Envelope};
use super::publisher::{Outgoing, SettlingPublishers};
use super::topology::Topology;
use crate::error::{PortError, PortResult};

/// The pause before another attempt to move a message to the suspects.
const MOVE_PAUSE: Duration = Duration::from_secs(1);

/// The parts that a consumer and its deliveries share.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) kind: MessageKind,
    /// A delivery is settled on its own channel, and lapin closes a channel with its last handle.
    /// This handle lets a worker that has stopped consuming settle its deliveries.
    pub(super) channel: Channel,
    /// The connection of the channel.
    pub(super) connector: Arc<Connector>,
    pub(super) topology: Topology,
    pub(super) settling: Arc<SettlingPublishers>,
    /// The id of this installation of Carga.
    pub(super) installation: String,
}

impl Origin {
    /// The same on another channel.
    pub(super) fn on(&self, channel: Channel) -> Self {
        Self {
            kind: self.kind,
            channel,
            connector: Arc::clone(&self.connector),
            topology: self.topology.clone(),
            settling: Arc::clone(&self.settling),
            installation: self.installation.clone(),
        }
    }

    /// The queue of the messages.
    pub(super) fn queue(&self) -> &str {
        self.topology.queue(self.kind)
    }

    /// Whether another installation published the message.
    fn is_foreign(&self, envelope: &Envelope) -> bool {
        let publisher = envelope.installation.as_ref();
        publisher.is_some_and(|publisher| *publisher != self.installation)
    }
}

#[derive(Debug)]
pub(super) struct RabbitSettlement {
    /// `None` once the delivery is settled.
    acker: Option<Acker>,
    origin: Arc<Origin>,
    envelope: Envelope,
    is_foreign: bool,
    /// The body of a message that is released by a copy, see [`needs_renewal`].
    renewal: Option<Bytes>,
}

/// How many returns of one release RabbitMQ may count: the return itself, and two more if it
/// delivers the message again to a consumer that is ending.
const RETURNS_PER_RELEASE: u32 = 3;

/// Whether a release must replace the message by a copy. RabbitMQ before 4.3 counts a return like
/// the end of a holder. Returns must not make a message a suspect, or a suspect a dead letter. The
/// counts of a copy begin at zero.
pub(super) fn needs_renewal(counts: Counts) -> bool {
    counts.all + RETURNS_PER_RELEASE >= SUSPECT_AFTER
}

impl RabbitSettlement {
    /// Takes over a message. If `renewal` has its body, a release replaces the message by a copy.
    pub(super) fn new(
        origin: &Arc<Origin>,
        acker: Acker,
        envelope: Envelope,
        renewal: Option<Bytes>,
    ) -> Self {
        Self {
            acker: Some(acker),
            is_foreign: origin.is_foreign(&envelope),
            origin: Arc::clone(origin),
            envelope,
            renewal,
        }
    }

    pub(super) fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// Publishes a copy, and acknowledges the original once the copy is durable. A crash in between
    /// leaves both messages, and the ledger makes one of them a no-op.
    async fn replace(
        mut self: Box<Self>,
        queue: &str,
        envelope: &Envelope,
        body: &Bytes,
    ) -> PortResult<()> {
        let copy = Outgoing {
            queue,
            envelope,
            body,
        };
        self.origin.settling.send_confirmed(copy).await?;
        self.acknowledge().await
    }

    /// Moves the message to the suspects. This holder keeps it until the copy is durable, because
    /// the broker would count a return. `close` waits for the move, because a connection that ends
    /// between the copy and the acknowledgement would leave both messages.
    pub(super) fn set_aside(self, body: Bytes) {
        let releases = self.origin.settling.releases.clone();
        releases.spawn(self.move_to_suspects(body));
    }

    async fn move_to_suspects(mut self, body: Bytes) {
        let origin = Arc::clone(&self.origin);
        let envelope = self.returned();
        let copy = Outgoing {
            queue: &origin.topology.suspects,
            envelope: &envelope,
            body: &body,
        };
        while let Err(error) = origin.settling.send_confirmed(copy).await {
            tracing::warn!(
                error = error.chain(),
                "could not move a batch to the suspects; trying again"
            );
            tokio::time::sleep(MOVE_PAUSE).await;
            // The broker redelivers the messages of a closed channel.
            if !origin.channel.status().connected() {
                return;
            }
        }
        if let Err(error) = self.acknowledge().await {
            tracing::warn!(
                error = error.chain(),
                "could not remove a batch that was moved to the suspects; it will be redelivered"
            );
        }
    }

    /// The envelope of a copy that replaces a returned message.
    fn returned(&self) -> Envelope {
        Envelope {
            is_returned: true,
            ..self.envelope.clone()
        }
    }

    async fn acknowledge(&mut self) -> PortResult<()> {
        let Some(acker) = self.acker.take() else {
            return Ok(());
        };
        match answer("queue.ack", acker.ack(BasicAckOptions::default())).await {
            Ok(true) => Ok(()),
            // The broker redelivers the message after its channel has closed.
            Ok(false) => Err(PortError::unavailable(
                "queue.ack",
                "the channel closed before the acknowledgement",
            )),
            Err(error) => {
                // The broker may still count the delivery as unsettled. It redelivers the message
                // when the channel closes, and the worker opens a new channel.
                let channel = self.origin.channel.clone();
                tokio::spawn(async move {
                    let closing = channel.close(REPLY_SUCCESS, "an acknowledgement failed".into());
                    let _ = answer("queue.close", closing).await;
                });
                Err(error)
            }
        }
    }
}

#[async_trait]
impl Settlement for RabbitSettlement {
    async fn ack(mut self: Box<Self>) -> PortResult<()> {
        self.acknowledge().await
    }

    async fn retry(self: Box<Self>, body: Bytes, tier: RetryTier) -> PortResult<()> {
        let queue = self.origin.topology.retry(tier);
        let envelope = Envelope {
            attempt: self.envelope.attempt + 1,
            is_returned: false,
            reason: None,
            ..self.envelope.clone()
        };
        self.replace(&queue, &envelope, &body).await
    }

    async fn postpone(self: Box<Self>, body: Bytes) -> PortResult<()> {
        let queue = self.origin.topology.wait.clone();
        let counted = u32::from(!self.is_foreign);
        let envelope = Envelope {
            postponed: self.envelope.postponed.saturating_add(counted),
            is_returned: false,
            reason: None,
            ..self.envelope.clone()
        };
        self.replace(&queue, &envelope, &body).await
    }

    async fn dead_letter(self: Box<Self>, body: Bytes, reason: &str) -> PortResult<()> {
        let queue = self.origin.topology.dead.clone();
        let envelope = Envelope {
            is_returned: false,
            reason: Some(reason.to_owned()),
            ..self.envelope.clone()
        };
        self.replace(&queue, &envelope, &body).await
    }
}

impl Drop for RabbitSettlement {
    fn drop(&mut self) {
        let Some(acker) = self.acker.take() else {
            return;
        };
        // Without a runtime the connection closes too, and then the broker redelivers the message.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let origin = Arc::clone(&self.origin);
        let releases = origin.settling.releases.clone();
        // The broker returns the messages of a closed channel by itself.
        let renewal = self.renewal.take();
        let renewal = renewal.filter(|_| origin.channel.status().connected());
        let copy = renewal.map(|body| (self.returned(), body));
        let release = releases.track_future(async move {
            if let Some((envelope, body)) = copy {
                let copy = Outgoing {
                    queue: origin.queue(),
                    envelope: &envelope,
                    body: &body,
                };
                if origin.settling.send_confirmed(copy).await.is_ok() {
                    let _ = answer("queue.ack", acker.ack(BasicAckOptions::default())).await;
                    return;
                }
            }
            let requeue = BasicNackOptions {
                requeue: true,
                ..BasicNackOptions::default()
            };
            let _ = answer("queue.nack", acker.nack(requeue)).await;
            // Until here, `origin` keeps the channel open.
            drop(origin);
        });
        runtime.spawn(release);
    }
}
