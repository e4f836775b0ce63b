//! A retried delivery returns after a delay, as the next attempt.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use carga_common::queue::{Prefetch, QueueDepth, RetryTier};

use super::{
    QueueFixture, check, check_nothing_is_left, describe, lone_batch, next, publish, seq_of, take,
    wait_for_depth,
};

/// Almost the delay of the first tier, since rounding may shorten the delay.
const NEARLY_A_SECOND: Duration = Duration::from_millis(800);

pub(super) async fn a_retried_delivery_waits_for_its_tier_and_is_the_next_attempt<
    F: QueueFixture,
>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    let sent = lone_batch();
    queue.publisher().publish(&sent).await?;
    let first = take(queue.as_ref()).await?;
    let retried = Instant::now();
    first.retry(RetryTier::First).await?;
    let second = take(queue.as_ref()).await?;
    let waited = retried.elapsed();
    ensure!(waited > NEARLY_A_SECOND, "{waited:?}");
    check(&second, &sent, 2)?;
    // A retry is a new attempt and not a redelivery.
    ensure!(!second.redelivered, "{}", describe(&second));
    second.ack().await?;
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn a_retry_delay_survives_reopening<F: QueueFixture>(fixture: &F) -> Result<()> {
    let queue = fixture.open().await?;
    let sent = lone_batch();
    queue.publisher().publish(&sent).await?;
    let first = take(queue.as_ref()).await?;
    let retried = Instant::now();
    first.retry(RetryTier::First).await?;
    queue.close().await;
    let queue = fixture.open().await?;
    let second = take(queue.as_ref()).await?;
    let waited = retried.elapsed();
    ensure!(waited > NEARLY_A_SECOND, "{waited:?}");
    check(&second, &sent, 2)?;
    second.ack().await?;
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn every_retry_adds_one_attempt<F: QueueFixture>(fixture: &F) -> Result<()> {
    let queue = fixture.open().await?;
    let sent = lone_batch();
    queue.publisher().publish(&sent).await?;
    let mut deliveries = queue.consume(Prefetch::of_batches(1)).await?;
    for attempt in 1..=3 {
        let delivery = next(&mut deliveries).await?;
        check(&delivery, &sent, attempt)?;
        delivery.retry(RetryTier::First).await?;
    }
    let last = next(&mut deliveries).await?;
    check(&last, &sent, 4)?;
    last.ack().await?;
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn a_redelivery_does_not_count_as_an_attempt<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    let sent = lone_batch();
    queue.publisher().publish(&sent).await?;
    take(queue.as_ref()).await?.retry(RetryTier::First).await?;
    for _ in 0..3 {
        let second = take(queue.as_ref()).await?;
        check(&second, &sent, 2)?;
        drop(second);
    }
    let second = take(queue.as_ref()).await?;
    check(&second, &sent, 2)?;
    ensure!(second.redelivered, "{}", describe(&second));
    second.ack().await?;
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn a_long_retry_delay_does_not_hold_back_a_short_one<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    publish(queue.as_ref(), 2).await?;
    let mut deliveries = queue.consume(Prefetch::of_batches(2)).await?;
    let (long, short) = (next(&mut deliveries).await?, next(&mut deliveries).await?);
    let seq = seq_of(&short)?;
    long.retry(RetryTier::Third).await?;
    let retried = Instant::now();
    short.retry(RetryTier::First).await?;
    let back = next(&mut deliveries).await?;
    ensure!(
        seq_of(&back)? == seq && back.attempt == 2,
        "{}",
        describe(&back)
    );
    let waited = retried.elapsed();
    ensure!(waited < RetryTier::Third.delay() / 2, "{waited:?}");
    back.ack().await?;
    let one_waits = QueueDepth {
        retrying: 1,
        ..QueueDepth::default()
    };
    wait_for_depth(queue.as_ref(), one_waits).await?;
    queue.close().await;
    Ok(())
}

pub(super) async fn a_postponed_message_returns_as_the_same_attempt<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    let sent = lone_batch();
    queue.publisher().publish(&sent).await?;
    take(queue.as_ref()).await?.retry(RetryTier::First).await?;
    for times in 0..2 {
        let delivery = take(queue.as_ref()).await?;
        check(&delivery, &sent, 2)?;
        ensure!(delivery.postponed == times, "{}", describe(&delivery));
        let postponed = Instant::now();
        delivery.postpone().await?;
        let again = take(queue.as_ref()).await?;
        let waited = postponed.elapsed();
        ensure!(waited > NEARLY_A_SECOND, "{waited:?}");
        ensure!(!again.redelivered, "{}", describe(&again));
        drop(again);
    }
    let last = take(queue.as_ref()).await?;
    check(&last, &sent, 2)?;
    ensure!(last.postponed == 2, "{}", describe(&last));
    last.ack().await?;
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn a_postponement_survives_reopening<F: QueueFixture>(fixture: &F) -> Result<()> {
    let queue = fixture.open().await?;
    let sent = lone_batch();
    queue.publisher().publish(&sent).await?;
    take(queue.as_ref()).await?.postpone().await?;
    let one_waits = QueueDepth {
        retrying: 1,
        ..QueueDepth::default()
    };
    wait_for_depth(queue.as_ref(), one_waits).await?;
    queue.close().await;
    let queue = fixture.open().await?;
    let again = take(queue.as_ref()).await?;
    check(&again, &sent, 1)?;
    ensure!(again.postponed == 1, "{}", describe(&again));
    again.ack().await?;
    check_nothing_is_left(fixture, queue).await
}
