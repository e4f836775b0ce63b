//! A queue that does not answer delays its callers for a limited time, and no message is lost.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use carga_common::queue::{Prefetch, RetryTier};

use super::{
    QueueFixture, Silenceable, check_nothing_is_left, describe, lone_batch, next, publish, seq_of,
};

/// A publish times out after four seconds.
const LIMIT: Duration = Duration::from_secs(9);

pub(super) async fn a_publish_to_a_silent_queue_fails_in_time<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let Silenceable {
        queue, fall_silent, ..
    } = fixture.open_silenceable().await?;
    let publisher = queue.publisher();
    publisher.publish(&lone_batch()).await?;
    let silence = fall_silent.await?;
    let started = Instant::now();
    let published = publisher.publish(&lone_batch()).await;
    let waited = started.elapsed();
    ensure!(
        published.is_err_and(|error| error.is_unavailable()),
        "the publish did not fail"
    );
    ensure!(waited < LIMIT, "{waited:?}");
    drop(silence);
    queue.close().await;
    Ok(())
}

pub(super) async fn a_delivery_is_redelivered_if_the_copy_that_replaces_it_fails<
    F: QueueFixture,
>(
    fixture: &F,
) -> Result<()> {
    const BATCHES: u32 = 3;
    let Silenceable {
        queue,
        fall_silent,
        settles_within,
    } = fixture.open_silenceable().await?;
    publish(queue.as_ref(), BATCHES).await?;
    let mut deliveries = queue.consume(Prefetch::of_batches(BATCHES as u16)).await?;
    let (retried, postponed, dead) = (
        next(&mut deliveries).await?,
        next(&mut deliveries).await?,
        next(&mut deliveries).await?,
    );
    let silence = fall_silent.await?;
    let started = Instant::now();
    let (retried, postponed, dead) = tokio::join!(
        retried.retry(RetryTier::First),
        postponed.postpone(),
        dead.dead_letter("as a test"),
    );
    let waited = started.elapsed();
    ensure!(retried.is_err() && postponed.is_err() && dead.is_err());
    ensure!(waited < settles_within, "{waited:?}");
    drop(silence);
    let mut seqs = Vec::new();
    for _ in 0..BATCHES {
        let delivery = next(&mut deliveries).await?;
        ensure!(
            delivery.attempt == 1 && delivery.postponed == 0 && delivery.redelivered,
            "{}",
            describe(&delivery)
        );
        seqs.push(seq_of(&delivery)?);
        delivery.ack().await?;
    }
    seqs.sort_unstable();
    ensure!(seqs == [1, 2, 3], "{seqs:?}");
    check_nothing_is_left(fixture, queue).await
}
