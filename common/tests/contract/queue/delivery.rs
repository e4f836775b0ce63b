//! A delivery has one holder at a time, and returns to the queue if it is not settled.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carga_common::batch::EncodedBatch;
use carga_common::error::PortResult;
use carga_common::queue::{BatchQueue, Deliveries, Delivery, Prefetch, QueueDepth};

use super::{
    Killable, QueueFixture, TIMEOUT, check, check_nothing_is_left, describe, lone_batch, next,
    publish, publish_with, seq_of, take, wait_for_depth,
};

/// How long a case waits to see that nothing is delivered.
const QUIET_PERIOD: Duration = Duration::from_millis(500);

pub(super) async fn a_dropped_delivery_is_redelivered<F: QueueFixture>(fixture: &F) -> Result<()> {
    let queue = fixture.open().await?;
    let sent = lone_batch();
    queue.publisher().publish(&sent).await?;
    let first = take(queue.as_ref()).await?;
    check(&first, &sent, 1)?;
    ensure!(!first.redelivered, "{}", describe(&first));
    drop(first);
    let second = take(queue.as_ref()).await?;
    check(&second, &sent, 1)?;
    ensure!(second.redelivered, "{}", describe(&second));
    drop(second);
    // The delivery is still not settled, so the next process gets it as well.
    queue.close().await;
    let queue = fixture.open().await?;
    let third = take(queue.as_ref()).await?;
    check(&third, &sent, 1)?;
    ensure!(third.redelivered, "{}", describe(&third));
    third.ack().await?;
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn an_acknowledged_delivery_is_gone_for_good<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    queue.publisher().publish(&lone_batch()).await?;
    let mut deliveries = queue.consume(Prefetch::of_batches(1)).await?;
    next(&mut deliveries).await?.ack().await?;
    ensure!(is_quiet(&mut deliveries).await, "the delivery came again");
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn a_delivery_has_one_holder_at_a_time<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    const BATCHES: u32 = 60;
    const EACH: u16 = 5;
    let (one, other) = (fixture.open().await?, fixture.open().await?);
    publish(one.as_ref(), BATCHES).await?;
    let mut here = one.consume(Prefetch::of_batches(EACH)).await?;
    let mut there = other.consume(Prefetch::of_batches(EACH)).await?;
    let mut held = Vec::new();
    for _ in 0..EACH {
        held.push(next(&mut here).await?);
        held.push(next(&mut there).await?);
    }
    let seen: Mutex<Vec<u32>> = Mutex::default();
    for delivery in held {
        record(&seen, seq_of(&delivery)?);
        ensure!(!delivery.redelivered, "{}", describe(&delivery));
        delivery.ack().await?;
    }
    ensure!(distinct(&seen) == u32::from(EACH) * 2, "{seen:?}");

    // Both handles take the remaining batches as fast as they can.
    let take_all = async |deliveries: &mut Box<dyn Deliveries>| -> Result<()> {
        loop {
            let delivery = next(deliveries).await?;
            let seq = seq_of(&delivery)?;
            ensure!(!delivery.redelivered, "{}", describe(&delivery));
            delivery.ack().await?;
            if record(&seen, seq) == BATCHES {
                return Ok(());
            }
        }
    };
    // The handle that takes the last batch ends the race; the other handle is still waiting.
    tokio::select! {
        ended = take_all(&mut here) => ended?,
        ended = take_all(&mut there) => ended?,
    }
    ensure!(distinct(&seen) == BATCHES, "{seen:?}");
    other.close().await;
    check_nothing_is_left(fixture, one).await
}

/// Records a batch number and returns how many are recorded.
fn record(seen: &Mutex<Vec<u32>>, seq: u32) -> u32 {
    let mut seen = seen
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    seen.push(seq);
    seen.len() as u32
}

fn distinct(seen: &Mutex<Vec<u32>>) -> u32 {
    let seen = seen
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    seen.iter().collect::<BTreeSet<_>>().len() as u32
}

pub(super) async fn unsettled_deliveries_never_exceed_the_prefetch<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    publish(queue.as_ref(), 5).await?;
    let mut deliveries = queue.consume(Prefetch::of_batches(2)).await?;
    let (first, second) = (next(&mut deliveries).await?, next(&mut deliveries).await?);
    ensure!(is_quiet(&mut deliveries).await, "a third delivery came");
    // Each settled delivery makes room for one more.
    first.ack().await?;
    let third = next(&mut deliveries).await?;
    ensure!(is_quiet(&mut deliveries).await, "a fourth delivery came");
    for delivery in [second, third] {
        delivery.ack().await?;
    }
    for _ in 4..=5 {
        next(&mut deliveries).await?.ack().await?;
    }
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn prefetch_limits_the_bytes_of_unsettled_deliveries<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    const MIB: usize = 1 << 20;
    const BATCHES: u32 = 12;
    let queue = fixture.open().await?;
    publish_with(queue.as_ref(), BATCHES, |_| vec![b'x'; MIB]).await?;
    let prefetch = Prefetch {
        batches: 10,
        bytes: 3 * MIB + MIB / 2,
    };
    let mut deliveries = queue.consume(prefetch).await?;
    // RabbitMQ limits the number of messages, so its adapter learns their size from the first one.
    next(&mut deliveries).await?.ack().await?;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(next(&mut deliveries).await?);
    }
    ensure!(is_quiet(&mut deliveries).await, "a fourth delivery came");
    for _ in 4..BATCHES {
        held.remove(0).ack().await?;
        held.push(next(&mut deliveries).await?);
        ensure!(held.len() == 3);
    }
    ensure!(is_quiet(&mut deliveries).await, "a delivery came again");
    for delivery in held {
        delivery.ack().await?;
    }
    check_nothing_is_left(fixture, queue).await
}

/// The sizes change how many deliveries may be unsettled.
pub(super) async fn batches_of_mixed_sizes_are_delivered_once_each<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    const KIB: usize = 1 << 10;
    const BATCHES: u32 = 240;
    let queue = fixture.open().await?;
    let size = |seq| if seq % 60 < 5 { 700 * KIB } else { KIB };
    publish_with(queue.as_ref(), BATCHES, |seq| vec![b'x'; size(seq)]).await?;
    let prefetch = Prefetch {
        batches: 32,
        bytes: 2048 * KIB,
    };
    let mut deliveries = queue.consume(prefetch).await?;
    let mut seen = BTreeSet::new();
    let mut held = Vec::new();
    for _ in 0..BATCHES {
        let delivery = next(&mut deliveries).await?;
        ensure!(
            seen.insert(seq_of(&delivery)?),
            "delivered twice: {}",
            describe(&delivery)
        );
        held.push(delivery);
        // Each delivery is settled after the next one has arrived.
        if held.len() > 1 {
            held.remove(0).ack().await?;
        }
    }
    for delivery in held {
        delivery.ack().await?;
    }
    ensure!(seen.len() == BATCHES as usize, "{seen:?}");
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn batches_prefetched_by_a_dropped_consumer_go_to_another<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let (one, other) = (fixture.open().await?, fixture.open().await?);
    publish(one.as_ref(), 3).await?;
    let mut deliveries = one.consume(Prefetch::of_batches(10)).await?;
    next(&mut deliveries).await?.ack().await?;
    drop(deliveries);
    let mut deliveries = other.consume(Prefetch::of_batches(10)).await?;
    let (second, third) = (next(&mut deliveries).await?, next(&mut deliveries).await?);
    let seqs = BTreeSet::from([seq_of(&second)?, seq_of(&third)?]);
    ensure!(seqs == BTreeSet::from([2, 3]), "{seqs:?}");
    second.ack().await?;
    third.ack().await?;
    other.close().await;
    check_nothing_is_left(fixture, one).await
}

/// A worker that stops drops its consumer first and then settles its deliveries.
pub(super) async fn a_delivery_can_be_settled_after_its_consumer_is_dropped<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    publish(queue.as_ref(), 2).await?;
    let mut deliveries = queue.consume(Prefetch::of_batches(2)).await?;
    let (first, second) = (next(&mut deliveries).await?, next(&mut deliveries).await?);
    drop(deliveries);
    first.ack().await?;
    second.dead_letter("its consumer is gone").await?;
    let only_dead = QueueDepth {
        dead: 1,
        ..QueueDepth::default()
    };
    wait_for_depth(queue.as_ref(), only_dead).await?;
    super::take_dead(queue.as_ref()).await?.ack().await?;
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn a_closed_holder_is_fenced<F: QueueFixture>(fixture: &F) -> Result<()> {
    let (stale, queue) = (fixture.open().await?, fixture.open().await?);
    let sent = lone_batch();
    queue.publisher().publish(&sent).await?;
    let held = take(stale.as_ref()).await?;
    check(&held, &sent, 1)?;
    stale.close().await;
    check_fenced(fixture, held, &sent, queue).await
}

/// The holder may still be alive, with a delivery that now has another holder.
pub(super) async fn a_holder_presumed_dead_is_fenced<F: QueueFixture>(fixture: &F) -> Result<()> {
    let Killable {
        queue: stale,
        presume_dead,
    } = fixture.open_killable().await?;
    let sent = lone_batch();
    stale.publisher().publish(&sent).await?;
    let held = take(stale.as_ref()).await?;
    check(&held, &sent, 1)?;
    presume_dead.await?;
    let queue = fixture.open().await?;
    check_fenced(fixture, held, &sent, queue).await
}

/// Checks that the delivery has moved from the stale holder to `queue`, and that the stale holder
/// cannot settle it.
async fn check_fenced<F: QueueFixture>(
    fixture: &F,
    held: Delivery,
    sent: &EncodedBatch,
    queue: Arc<dyn BatchQueue>,
) -> Result<()> {
    let redelivery = take(queue.as_ref()).await?;
    check(&redelivery, sent, 1)?;
    ensure!(redelivery.redelivered, "{}", describe(&redelivery));
    let late = held.ack().await;
    ensure!(late.is_err(), "the stale holder settled the delivery");
    // The redelivery is still unsettled, so dropping it returns the batch to the queue.
    drop(redelivery);
    let again = take(queue.as_ref()).await?;
    check(&again, sent, 1)?;
    again.ack().await?;
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn a_closed_handle_ends_its_deliveries_with_an_error<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    let mut deliveries = queue.consume(Prefetch::of_batches(1)).await?;
    queue.close().await;
    let ended = tokio::time::timeout(TIMEOUT, deliveries.next()).await?;
    ensure!(ended.is_err_and(|error| error.is_unavailable()));
    Ok(())
}

/// A worker that waits for an answer for ever stores nothing more. The tasks compute between two
/// acknowledgements, as a busy worker does.
pub(super) async fn every_acknowledgement_ends_although_its_holder_is_presumed_dead<
    F: QueueFixture,
>(
    fixture: &F,
) -> Result<()> {
    // Fewer than the messages at which the queue in SQLite slows its publishers down.
    const MESSAGES: u32 = 240;
    const COMPUTING: Duration = Duration::from_millis(3);
    let Killable {
        queue,
        presume_dead,
    } = fixture.open_killable().await?;
    publish(queue.as_ref(), MESSAGES).await?;
    let mut deliveries = queue.consume(Prefetch::of_batches(MESSAGES as u16)).await?;
    let mut held = Vec::new();
    for _ in 0..MESSAGES {
        held.push(next(&mut deliveries).await?);
    }
    let mut tasks = Vec::new();
    while !held.is_empty() {
        let share = held.split_off(held.len().saturating_sub(15));
        tasks.push(tokio::spawn(async move {
            for delivery in share {
                let started = Instant::now();
                while started.elapsed() < COMPUTING {}
                // An error is an answer, too.
                let _ = tokio::time::timeout(TIMEOUT, delivery.ack()).await?;
                tokio::task::yield_now().await;
            }
            anyhow::Ok(())
        }));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    presume_dead.await?;
    for task in tasks {
        task.await?.context("an acknowledgement had no answer")?;
    }
    Ok(())
}

/// Whether nothing is delivered for `QUIET_PERIOD`.
pub(super) async fn is_quiet(deliveries: &mut Box<dyn Deliveries>) -> bool {
    next_unless_quiet(deliveries).await.is_none()
}

/// The next delivery; `None` if nothing is delivered for `QUIET_PERIOD`.
pub(super) async fn next_unless_quiet(
    deliveries: &mut Box<dyn Deliveries>,
) -> Option<PortResult<Delivery>> {
    let next = tokio::time::timeout(QUIET_PERIOD, deliveries.next());
    next.await.ok()
}
