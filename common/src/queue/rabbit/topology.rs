//! The queues. Every argument is explicit, so that RabbitMQ 3.10 and 4.x behave the same.
//!
//! - `{name}.batches`: the batches for the workers. A message that is too often delivered without
//!   being settled becomes a dead letter.
//! - `{name}.retry.{1,4,16}s`: one queue per retry tier. Messages expire only at the head of a
//!   queue, so different delays in one queue would block each other. Expired messages return
//!   to the batches.
//! - `{name}.dead`: dead letters, until a worker moves them to the store.
//!
//! `{name}.batches` dead-letters to `{name}.dead` and never to a tier. The broker silently drops a
//! message that moves in a circle by dead-lettering alone.

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ErrorKind as LapinErrorKind};

use super::super::RetryTier;
use crate::error::{ErrorKind, PortError, PortResult};

/// After this many deliveries without a settlement the broker makes a message a dead letter. The
/// limit is high, because a crashed worker adds one to every message that it held. A header counts
/// the failed attempts.
const DELIVERY_LIMIT: i32 = 20;

/// The most bytes of bodies in a queue. A full queue refuses publishes. Their retries slow down the
/// clients.
const MAX_LENGTH_BYTES: i64 = 8 << 30;

/// The names of the queues.
#[derive(Debug, Clone)]
pub(super) struct Topology {
    pub(super) batches: String,
    pub(super) dead: String,
    name: String,
}

impl Topology {
    pub(super) fn new(name: &str) -> Self {
        Self {
            batches: format!("{name}.batches"),
            dead: format!("{name}.dead"),
            name: name.to_owned(),
        }
    }

    pub(super) fn retry(&self, tier: RetryTier) -> String {
        format!("{}.retry.{}s", self.name, tier.delay().as_secs())
    }

    /// Declares the queues. This is idempotent, and every process declares the same queues.
    pub(super) async fn declare(&self, channel: &Channel) -> PortResult<()> {
        let mut dead = quorum();
        dead.insert("x-overflow".into(), text("reject-publish"));
        // By default RabbitMQ 4 drops a message after 20 returns, and `{name}.dead` dead-letters to
        // no other queue.
        dead.insert("x-delivery-limit".into(), AMQPValue::LongInt(i32::MAX));
        declare(channel, &self.dead, dead).await?;

        let mut batches = quorum();
        dead_letter_to(&mut batches, &self.dead);
        batches.insert(
            "x-delivery-limit".into(),
            AMQPValue::LongInt(DELIVERY_LIMIT),
        );
        batches.insert(
            "x-max-length-bytes".into(),
            AMQPValue::LongLongInt(MAX_LENGTH_BYTES),
        );
        declare(channel, &self.batches, batches).await?;

        for tier in RetryTier::ALL {
            let mut retry = quorum();
            dead_letter_to(&mut retry, &self.batches);
            let delay_ms = i32::try_from(tier.delay().as_millis()).unwrap_or(i32::MAX);
            retry.insert("x-message-ttl".into(), AMQPValue::LongInt(delay_ms));
            declare(channel, &self.retry(tier), retry).await?;
        }
        Ok(())
    }
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments
}

/// Sets at-least-once dead-lettering. Without `reject-publish` RabbitMQ silently uses
/// at-most-once.
fn dead_letter_to(arguments: &mut FieldTable, queue: &str) {
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text(queue));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

async fn declare(channel: &Channel, queue: &str, arguments: FieldTable) -> PortResult<()> {
    const OPERATION: &str = "queue.declare";
    const PRECONDITION_FAILED: u16 = 406;
    let declared = channel
        .queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments)
        .await;
    let Err(error) = declared else {
        return Ok(());
    };
    match error.kind() {
        LapinErrorKind::ProtocolError(refusal) if refusal.get_id() == PRECONDITION_FAILED => {
            let reason = format!(
                "queue `{queue}` exists with other arguments; drain and delete the queue, or set \
                 CARGA_QUEUE to a new name (RabbitMQ: {})",
                refusal.get_message()
            );
            Err(PortError::new(ErrorKind::Conflict, OPERATION, reason))
        }
        _ => Err(PortError::unavailable(OPERATION, error)),
    }
}
