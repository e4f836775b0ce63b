//! The queues. Every argument is explicit, so that RabbitMQ 3.10 and 4.x behave the same.
//!
//! - `{name}.batches`: the batches for the workers. A message that is delivered too often
//!   without being settled becomes a dead letter.
//! - `{name}.retry.{1,4,16}s`: one queue per retry tier. Messages expire only at the head of a
//!   queue, so different delays in one queue would block each other. Expired messages return
//!   to the batches.
//! - `{name}.dead`: dead letters, until a worker moves them to the store.
//!
//! The batches dead-letter to `{name}.dead` and never to a tier: the broker silently drops a
//! message that moves in a circle by dead-lettering alone.

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ErrorKind as LapinErrorKind};

use super::super::RetryTier;
use crate::error::{ErrorKind, PortError, PortResult};

/// Deliveries without a settlement before the broker makes a message a dead letter. The limit
/// is generous, because a crashed worker adds one to every message that it held. A header
/// counts the attempts that failed.
const DELIVERY_LIMIT: i32 = 20;

/// The most bytes of bodies in a queue. A full queue refuses a publish, which is then retried,
/// so clients slow down.
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

    /// Declares the queues. Declaring is idempotent, and every process declares the same
    /// queues.
    pub(super) async fn declare(&self, channel: &Channel) -> PortResult<()> {
        let mut dead = quorum();
        dead.insert("x-overflow".into(), text("reject-publish"));
        // RabbitMQ 4 drops a message after 20 returns by default, and a dead letter has no
        // further queue.
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

/// Dead-lettering with confirms. Without `reject-publish` RabbitMQ silently uses at-most-once.
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
                "queue `{queue}` exists with other arguments, made by another version or by hand; drain and delete it, or \
                 set CARGA_QUEUE to a new name (RabbitMQ: {})",
                refusal.get_message()
            );
            Err(PortError::new(ErrorKind::Conflict, OPERATION, reason))
        }
        _ => Err(PortError::unavailable(OPERATION, error)),
    }
}
