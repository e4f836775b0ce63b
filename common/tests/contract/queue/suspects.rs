//! A message whose holders ended several times is delivered alone, and finally becomes a dead
//! letter.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use carga_common::queue::{BatchQueue, Delivery, Prefetch, SUSPECT_AFTER, SUSPECT_LIMIT};

use super::delivery::{is_quiet, next_unless_quiet};
use super::{
    Killable, QueueFixture, check, check_nothing_is_left, describe, lone_batch, next, publish,
    seq_of, take,
};

/// A process that the queue presumes dead, with its deliveries. A case keeps it, because a dropped
/// delivery is released.
type Deceased = (Arc<dyn BatchQueue>, Vec<Delivery>);

/// A new process takes `count` batches, and the queue presumes it dead.
async fn die_holding<F: QueueFixture>(fixture: &F, count: u16) -> Result<Deceased> {
    let Killable {
        queue,
        presume_dead,
    } = fixture.open_killable().await?;
    let mut deliveries = queue.consume(Prefetch::of_batches(count)).await?;
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(next(&mut deliveries).await?);
    }
    presume_dead.await?;
    Ok((queue, held))
}

/// One process after another takes `count` batches and dies, until the batches are suspects.
async fn make_suspects<F: QueueFixture>(fixture: &F, count: u16) -> Result<Vec<Deceased>> {
    let mut deceased = Vec::new();
    for _ in 0..SUSPECT_AFTER {
        deceased.push(die_holding(fixture, count).await?);
    }
    Ok(deceased)
}

/// The next suspect, while a consumer of batches runs as in a worker. The pause lets this consumer
/// remove the original of a message that it has moved to the suspects.
async fn take_suspect(queue: &dyn BatchQueue) -> Result<Delivery> {
    let mut batches = queue.consume(Prefetch::of_batches(10)).await?;
    let mut suspects = queue.consume_suspects().await?;
    let suspect = tokio::select! {
        delivery = next(&mut batches) => bail!("not a suspect: {}", describe(&delivery?)),
        suspect = next(&mut suspects) => suspect?,
    };
    ensure!(is_quiet(&mut batches).await, "a suspect came as a batch");
    Ok(suspect)
}

pub(super) async fn a_message_whose_holders_keep_dying_is_delivered_only_as_a_suspect<
    F: QueueFixture,
>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    let sent = lone_batch();
    queue.publisher().publish(&sent).await?;
    let deceased = make_suspects(fixture, 1).await?;
    let suspect = take_suspect(queue.as_ref()).await?;
    check(&suspect, &sent, 1)?;
    ensure!(suspect.redelivered, "{}", describe(&suspect));
    ensure!(!suspect.is_foreign, "{}", describe(&suspect));
    suspect.ack().await?;
    check_nothing_is_left(fixture, queue).await?;
    drop(deceased);
    Ok(())
}

pub(super) async fn suspects_come_one_at_a_time<F: QueueFixture>(fixture: &F) -> Result<()> {
    const BATCHES: u32 = 3;
    let queue = fixture.open().await?;
    publish(queue.as_ref(), BATCHES).await?;
    let deceased = make_suspects(fixture, BATCHES as u16).await?;
    let mut batches = queue.consume(Prefetch::of_batches(10)).await?;
    let mut suspects = queue.consume_suspects().await?;
    let mut seqs = BTreeSet::new();
    for _ in 0..BATCHES {
        let suspect = tokio::select! {
            delivery = next(&mut batches) => bail!("not a suspect: {}", describe(&delivery?)),
            suspect = next(&mut suspects) => suspect?,
        };
        ensure!(is_quiet(&mut suspects).await, "another suspect came");
        ensure!(is_quiet(&mut batches).await, "a suspect came as a batch");
        seqs.insert(seq_of(&suspect)?);
        suspect.ack().await?;
    }
    ensure!(seqs.len() == BATCHES as usize, "{seqs:?}");
    check_nothing_is_left(fixture, queue).await?;
    drop(deceased);
    Ok(())
}

/// The first batch ends every holder, and the others were held beside it.
pub(super) async fn the_neighbours_of_a_suspect_settle<F: QueueFixture>(fixture: &F) -> Result<()> {
    const BATCHES: u32 = 3;
    const DEADLY: u32 = 1;
    let publishing = fixture.open().await?;
    publish(publishing.as_ref(), BATCHES).await?;
    let mut deceased = make_suspects(fixture, BATCHES as u16).await?;
    let mut settled = BTreeSet::new();
    while settled.len() + 1 < BATCHES as usize {
        let Killable {
            queue,
            presume_dead,
        } = fixture.open_killable().await?;
        let suspect = take_suspect(queue.as_ref()).await?;
        let seq = seq_of(&suspect)?;
        if seq == DEADLY {
            presume_dead.await?;
            deceased.push((queue, vec![suspect]));
        } else {
            suspect.ack().await?;
            queue.close().await;
            settled.insert(seq);
        }
    }
    ensure!(settled == BTreeSet::from([2, 3]), "{settled:?}");
    publishing.close().await;
    Ok(())
}

pub(super) async fn a_suspect_whose_holders_keep_dying_becomes_a_dead_letter<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    let sent = lone_batch();
    queue.publisher().publish(&sent).await?;
    let mut deceased = make_suspects(fixture, 1).await?;
    for _ in 0..SUSPECT_LIMIT {
        let Killable {
            queue,
            presume_dead,
        } = fixture.open_killable().await?;
        let suspect = take_suspect(queue.as_ref()).await?;
        presume_dead.await?;
        deceased.push((queue, vec![suspect]));
    }
    let mut suspects = queue.consume_suspects().await?;
    let mut dead_letters = queue.consume_dead_letters().await?;
    let dead = tokio::select! {
        delivery = next(&mut suspects) => bail!("not given up: {}", describe(&delivery?)),
        dead = next(&mut dead_letters) => dead?,
    };
    check(&dead, &sent, 1)?;
    let deliveries = SUSPECT_AFTER + SUSPECT_LIMIT;
    let reason = format!("delivered {deliveries} times without being settled");
    ensure!(dead.reason == Some(reason), "{}", describe(&dead));
    dead.ack().await?;
    check_nothing_is_left(fixture, queue).await?;
    drop(deceased);
    Ok(())
}

/// A worker that stops in order returns its batches.
pub(super) async fn a_returned_message_is_never_a_suspect<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    let sent = lone_batch();
    queue.publisher().publish(&sent).await?;
    for _ in 0..=SUSPECT_AFTER {
        drop(take(queue.as_ref()).await?);
    }
    let delivery = take(queue.as_ref()).await?;
    check(&delivery, &sent, 1)?;
    ensure!(delivery.redelivered, "{}", describe(&delivery));
    delivery.ack().await?;
    check_nothing_is_left(fixture, queue).await
}

/// A worker that stops in order drops its consumer. Batches that the worker has not taken may have
/// arrived by then.
pub(super) async fn batches_prefetched_before_an_orderly_stop_are_never_suspects<
    F: QueueFixture,
>(
    fixture: &F,
) -> Result<()> {
    const BATCHES: u32 = 5;
    let queue = fixture.open().await?;
    publish(queue.as_ref(), BATCHES).await?;
    queue.close().await;
    for _ in 0..=SUSPECT_AFTER {
        let stopping = fixture.open().await?;
        let mut deliveries = stopping.consume(Prefetch::of_batches(10)).await?;
        let held = next(&mut deliveries).await?;
        // The other batches arrive meanwhile.
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(deliveries);
        drop(held);
        stopping.close().await;
    }
    let queue = fixture.open().await?;
    let mut deliveries = queue.consume(Prefetch::of_batches(10)).await?;
    let mut seqs = BTreeSet::new();
    // On a busy machine, a stop may cut a release, and then a batch comes twice.
    while seqs.len() < BATCHES as usize {
        let delivery = next(&mut deliveries).await?;
        ensure!(delivery.redelivered, "{}", describe(&delivery));
        seqs.insert(seq_of(&delivery)?);
        delivery.ack().await?;
    }
    while let Some(copy) = next_unless_quiet(&mut deliveries).await {
        copy?.ack().await?;
    }
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn a_returned_suspect_is_delivered_again<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    let sent = lone_batch();
    queue.publisher().publish(&sent).await?;
    let deceased = make_suspects(fixture, 1).await?;
    for _ in 0..=SUSPECT_LIMIT {
        drop(take_suspect(queue.as_ref()).await?);
    }
    let suspect = take_suspect(queue.as_ref()).await?;
    check(&suspect, &sent, 1)?;
    suspect.ack().await?;
    check_nothing_is_left(fixture, queue).await?;
    drop(deceased);
    Ok(())
}
