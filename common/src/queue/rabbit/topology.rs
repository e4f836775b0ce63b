//! The queues, and the exchange of events. Every argument is explicit, so that RabbitMQ 3.10 and
//! 4.x behave the same.
//!
//! - `{name}.batches`: the batches for the workers. A worker moves a suspect to its own queue. As a
//!   backstop, the broker makes a dead letter of a message that is too often delivered without
//!   being settled.
//! - `{name}.suspects`: batches whose holders ended several times. A worker takes one at a time.
//! - `{name}.retry.{1,4,16}s`: one queue per retry tier. Messages expire only at the head of a
//!   queue, so different delays in one queue would block each other. Expired messages return
//!   to the batches.
//! - `{name}.wait`: postponed batches. Its messages expire as those of a retry tier do.
//! - `{name}.dead`: dead letters, until a worker moves them to the store.
//! - `{name}.events`: the topic exchange of events. Other programs bind their queues to it.
//!
//! `{name}.batches` and `{name}.suspects` dead-letter to `{name}.dead` and never to a tier. The
//! broker silently drops a message that moves in a circle by dead-lettering alone.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ErrorKind as LapinErrorKind, ExchangeKind};

use super::super::{MessageKind, RetryTier, SUSPECT_AFTER, SUSPECT_LIMIT, unsettled_reason};
use crate::error::{ErrorKind, PortError, PortResult};

/// The broker makes a dead letter of a batch that exceeds this number of unsettled deliveries. A
/// worker moves the batch to the suspects long before. A header counts the failed attempts.
const DELIVERY_LIMIT: i32 = 20;

/// The same limit for suspects. The broker acts when the number exceeds the limit, so the limit is
/// one less than the allowed deliveries.
const SUSPECT_DELIVERY_LIMIT: i32 = SUSPECT_LIMIT as i32 - 1;

/// The most bytes of bodies in a queue. A full queue refuses publishes. Their retries slow down the
/// clients. RabbitMQ does not change the arguments of a queue, so another value would need a new
/// queue. An operator can set a lower limit by a policy: the broker applies the lower of the two.
const MAX_LENGTH_BYTES: i64 = 8 << 30;

/// AMQP's reply code for a queue or an exchange that exists with other arguments.
const PRECONDITION_FAILED: u16 = 406;

/// The end of the name of the queue of suspects.
const SUSPECTS: &str = ".suspects";

/// The names of the queues.
#[derive(Debug, Clone)]
pub(super) struct Topology {
    pub(super) batches: String,
    pub(super) suspects: String,
    /// The queue of postponed messages.
    pub(super) wait: String,
    pub(super) dead: String,
    name: String,
    postponement: Duration,
}

impl Topology {
    pub(super) fn new(name: &str, postponement: Duration) -> Self {
        Self {
            batches: format!("{name}.batches"),
            suspects: format!("{name}{SUSPECTS}"),
            wait: format!("{name}.wait"),
            dead: format!("{name}.dead"),
            name: name.to_owned(),
            postponement,
        }
    }

    /// The queue of these messages.
    pub(super) fn queue(&self, kind: MessageKind) -> &str {
        match kind {
            MessageKind::Batch => &self.batches,
            MessageKind::Suspect => &self.suspects,
            MessageKind::DeadLetter => &self.dead,
        }
    }

    pub(super) fn retry(&self, tier: RetryTier) -> String {
        format!("{}.retry.{}s", self.name, tier.delay().as_secs())
    }

    /// The exchange of events.
    pub(super) fn events(&self) -> String {
        format!("{}.events", self.name)
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

        let mut suspects = quorum();
        dead_letter_to(&mut suspects, &self.dead);
        suspects.insert(
            "x-delivery-limit".into(),
            AMQPValue::LongInt(SUSPECT_DELIVERY_LIMIT),
        );
        declare(channel, &self.suspects, suspects).await?;

        for tier in RetryTier::ALL {
            self.declare_delay(channel, &self.retry(tier), tier.delay())
                .await?;
        }
        self.declare_delay(channel, &self.wait, self.postponement)
            .await
    }

    /// Declares a queue whose messages return to the batches after a delay.
    async fn declare_delay(
        &self,
        channel: &Channel,
        queue: &str,
        delay: Duration,
    ) -> PortResult<()> {
        let mut arguments = quorum();
        dead_letter_to(&mut arguments, &self.batches);
        let delay_ms = i32::try_from(delay.as_millis()).unwrap_or(i32::MAX);
        arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(delay_ms));
        declare(channel, queue, arguments).await
    }
}

/// The reason of a message that the broker itself made a dead letter, from its entry in `x-death`.
pub(super) fn broker_reason(queue: &str, why: &str) -> String {
    match why {
        "delivery_limit" if queue.ends_with(SUSPECTS) => {
            unsettled_reason(SUSPECT_AFTER + SUSPECT_LIMIT)
        }
        "delivery_limit" => unsettled_reason(DELIVERY_LIMIT.unsigned_abs() + 1),
        _ => format!("dead-lettered by RabbitMQ: {why}"),
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

/// Declares the exchange of events. Only workers need it, so a fault of the exchange keeps no API
/// from receiving.
pub(super) async fn declare_exchange(channel: &Channel, exchange: &str) -> PortResult<()> {
    const OPERATION: &str = "queue.declare";
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let arguments = FieldTable::default();
    let declared = channel
        .exchange_declare(exchange.into(), ExchangeKind::Topic, options, arguments)
        .await;
    declared.map_err(|error| match error.kind() {
        LapinErrorKind::ProtocolError(refusal) if refusal.get_id() == PRECONDITION_FAILED => {
            let reason = format!(
                "exchange `{exchange}` exists with another type or other arguments; delete the \
                 exchange, or set CARGA_QUEUE to a new name (RabbitMQ: {})",
                refusal.get_message()
            );
            PortError::new(ErrorKind::Conflict, OPERATION, reason)
        }
        _ => PortError::unavailable(OPERATION, error),
    })
}

async fn declare(channel: &Channel, queue: &str, arguments: FieldTable) -> PortResult<()> {
    const OPERATION: &str = "queue.declare";
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
