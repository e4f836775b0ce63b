//! The queues on RabbitMQ: their arguments, and a start while the broker is slow.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ErrorKind};

use super::fixtures::{POSTPONEMENT, Rabbit};
use super::{QueueFixture, lone_batch};

type Argument = (&'static str, AMQPValue);

/// Declares each queue again. RabbitMQ refuses a declaration whose arguments differ from those of
/// the queue.
pub(super) async fn check_arguments(rabbit: &Rabbit) -> Result<()> {
    let handle = rabbit.open().await?;
    let connection = rabbit.connect().await?;
    for (end, arguments) in expected(rabbit)? {
        let queue = rabbit.queue(end);
        let declared = declare(&connection, &queue, &arguments).await;
        declared.with_context(|| format!("{queue} has other arguments"))?;
        // A version of RabbitMQ that ignored an argument would accept any value of it.
        for left_out in 0..arguments.len() {
            let mut others = arguments.clone();
            let (argument, _) = others.remove(left_out);
            let declared = declare(&connection, &queue, &others).await;
            ensure!(
                is_refused(&declared),
                "{queue} without {argument}: {declared:?}"
            );
        }
    }
    connection.close(200, "done".into()).await?;
    handle.close().await;
    Ok(())
}

/// Opens a queue on a broker that takes longer for its first answer than a publish may take.
pub(super) async fn check_start_with_a_slow_broker(rabbit: &Rabbit) -> Result<()> {
    let queue = rabbit.open_late(Duration::from_secs(5)).await?;
    queue.publisher().publish(&lone_batch()).await?;
    queue.close().await;
    Ok(())
}

/// The arguments of all queues, by the ends of their names.
fn expected(rabbit: &Rabbit) -> Result<[(&'static str, Vec<Argument>); 7]> {
    let limit = |deliveries| ("x-delivery-limit", AMQPValue::LongInt(deliveries));
    let max_bytes = ("x-max-length-bytes", AMQPValue::LongLongInt(8 << 30));
    let batches = [quorum(), dead_letter_to(&rabbit.queue("dead"))].concat();
    let suspects = batches.clone();
    let delayed = |ms| {
        let delay = vec![("x-message-ttl", AMQPValue::LongInt(ms))];
        [quorum(), dead_letter_to(&rabbit.queue("batches")), delay].concat()
    };
    let postponement = i32::try_from(POSTPONEMENT.as_millis())?;
    // Unless the queue sets a limit, RabbitMQ 4 drops a dead letter after 20 returns.
    let dead = vec![("x-overflow", text("reject-publish")), limit(i32::MAX)];
    Ok([
        ("batches", [batches, vec![limit(20), max_bytes]].concat()),
        // The broker acts when the limit is exceeded, so at the eighth delivery.
        ("suspects", [suspects, vec![limit(7)]].concat()),
        ("retry.1s", delayed(1_000)),
        ("retry.4s", delayed(4_000)),
        ("retry.16s", delayed(16_000)),
        ("wait", delayed(postponement)),
        ("dead", [quorum(), dead].concat()),
    ])
}

fn quorum() -> Vec<Argument> {
    vec![("x-queue-type", text("quorum"))]
}

fn dead_letter_to(queue: &str) -> Vec<Argument> {
    vec![
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text(queue)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ]
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// Declares a queue on a new channel, because a refusal closes the channel.
async fn declare(
    connection: &Connection,
    queue: &str,
    arguments: &[Argument],
) -> lapin::Result<()> {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    let channel = connection.create_channel().await?;
    channel
        .queue_declare(queue.into(), QueueDeclareOptions::durable(), table)
        .await
        .map(drop)
}

fn is_refused(declared: &lapin::Result<()>) -> bool {
    const PRECONDITION_FAILED: u16 = 406;
    declared.as_ref().is_err_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::ProtocolError(refusal) if refusal.get_id() == PRECONDITION_FAILED
        )
    })
}
