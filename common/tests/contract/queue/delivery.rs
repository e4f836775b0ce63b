//! Who holds a batch, and what becomes of one that is not settled.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::batch::EncodedBatch;
use carga_common::queue::{BatchQueue, Deliveries, Delivery, Prefetch, QueueDepth};

use super::{
    Killable, PATIENCE, QueueFixture, check, check_nothing_is_left, lone_batch, next, publish,
    publish_with, seq_of, take, told, wait_for_depth,
};

/// How long nothing must come where nothing may come.
const A_WHILE: Duration = Duration::from_millis(500);

pub(super) async fn a_dropped_delivery_is_redelivered<F: QueueFixture>(fixture: &F) -> Result<()> {
    let queue = fixture.open().await?;
    let sent = lone_batch();
    queue.publisher().publish(&sent).await?;
    let first = take(queue.as_ref()).await?;
    check(&first, &sent, 1)?;
    ensure!(!first.redelivered, "{}", told(&first));
    drop(first);
    let second = take(queue.as_ref()).await?;
    check(&second, &sent, 1)?;
    ensure!(second.redelivered, "{}", told(&second));
    drop(second);
    // Nobody settled it, so it is there for the next process as well.
    queue.close().await;
    let queue = fixture.open().await?;
    let third = take(queue.as_ref()).await?;
    check(&third, &sent, 1)?;
    ensure!(third.redelivered, "{}", told(&third));
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
    ensure!(is_silent(&mut deliveries).await, "it came again");
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
        note(&seen, seq_of(&delivery)?);
        ensure!(!delivery.redelivered, "{}", told(&delivery));
        delivery.ack().await?;
    }
    ensure!(distinct(&seen) == u32::from(EACH) * 2, "{seen:?}");

    // And the rest as quickly as both can.
    let take_all = async |deliveries: &mut Box<dyn Deliveries>| -> Result<()> {
        loop {
            let delivery = next(deliveries).await?;
            let seq = seq_of(&delivery)?;
            ensure!(!delivery.redelivered, "{}", told(&delivery));
            delivery.ack().await?;
            if note(&seen, seq) == BATCHES {
                return Ok(());
            }
        }
    };
    // Whoever has the last one is done; the other waits in vain.
    tokio::select! {
        ended = take_all(&mut here) => ended?,
        ended = take_all(&mut there) => ended?,
    }
    ensure!(distinct(&seen) == BATCHES, "{seen:?}");
    other.close().await;
    check_nothing_is_left(fixture, one).await
}

/// Adds to what was seen, and says how much that is.
fn note(seen: &Mutex<Vec<u32>>, seq: u32) -> u32 {
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
    ensure!(is_silent(&mut deliveries).await, "a third came");
    // One for one.
    first.ack().await?;
    let third = next(&mut deliveries).await?;
    ensure!(is_silent(&mut deliveries).await, "a fourth came");
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
    // Whoever counts messages only learns from the first how large they are.
    next(&mut deliveries).await?.ack().await?;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(next(&mut deliveries).await?);
    }
    ensure!(is_silent(&mut deliveries).await, "a fourth came");
    for _ in 4..BATCHES {
        held.remove(0).ack().await?;
        held.push(next(&mut deliveries).await?);
        ensure!(held.len() == 3);
    }
    ensure!(is_silent(&mut deliveries).await, "one came again");
    for delivery in held {
        delivery.ack().await?;
    }
    check_nothing_is_left(fixture, queue).await
}

/// However often that changes how many may be unsettled.
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
            "twice: {}",
            told(&delivery)
        );
        held.push(delivery);
        // Settled late, and not in the order of their arrival.
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

/// A worker that stops takes nothing more and still finishes what it has.
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

/// It may live on, with a delivery that is somebody else's by now.
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

/// What the stale holder has is ours, and it cannot take it from us.
async fn check_fenced<F: QueueFixture>(
    fixture: &F,
    held: Delivery,
    sent: &EncodedBatch,
    queue: Arc<dyn BatchQueue>,
) -> Result<()> {
    let ours = take(queue.as_ref()).await?;
    check(&ours, sent, 1)?;
    ensure!(ours.redelivered, "{}", told(&ours));
    let late = held.ack().await;
    ensure!(late.is_err(), "the stale holder was told that it is done");
    // It is still ours to give back.
    drop(ours);
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
    let ended = tokio::time::timeout(PATIENCE, deliveries.next()).await?;
    ensure!(ended.is_err_and(|error| error.is_unavailable()));
    Ok(())
}

/// Nothing comes for a while.
async fn is_silent(deliveries: &mut Box<dyn Deliveries>) -> bool {
    tokio::time::timeout(A_WHILE, deliveries.next())
        .await
        .is_err()
}
