//! A dead letter is kept with its reason.

use anyhow::{Result, ensure};
use carga_common::queue::{QueueDepth, RetryTier};

use super::{QueueFixture, check, check_nothing_is_left, describe, lone_batch, take, take_dead};

pub(super) async fn a_dead_letter_keeps_its_reason_id_and_body<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    let sent = lone_batch();
    queue.publisher().publish(&sent).await?;
    take(queue.as_ref()).await?.retry(RetryTier::First).await?;
    let second = take(queue.as_ref()).await?;
    check(&second, &sent, 2)?;
    second.dead_letter("it does not fit").await?;

    queue.close().await;
    let queue = fixture.open().await?;
    let only_dead = QueueDepth {
        dead: 1,
        ..QueueDepth::default()
    };
    ensure!(queue.depth().await? == only_dead);
    let dead = take_dead(queue.as_ref()).await?;
    check(&dead, &sent, 2)?;
    ensure!(
        dead.reason.as_deref() == Some("it does not fit"),
        "{}",
        describe(&dead)
    );
    dead.ack().await?;
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn a_reason_is_delivered_unchanged<F: QueueFixture>(fixture: &F) -> Result<()> {
    let queue = fixture.open().await?;
    let long = "store.store refused invalid data: ".repeat(300);
    for reason in ["", "row 3: \"é🦀\"\n\tis no number \\", &long] {
        queue.publisher().publish(&lone_batch()).await?;
        take(queue.as_ref()).await?.dead_letter(reason).await?;
        let dead = take_dead(queue.as_ref()).await?;
        ensure!(
            dead.reason.as_deref() == Some(reason),
            "{}",
            describe(&dead)
        );
        dead.ack().await?;
    }
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn a_dropped_dead_letter_is_redelivered<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    let sent = lone_batch();
    queue.publisher().publish(&sent).await?;
    take(queue.as_ref()).await?.dead_letter("no").await?;
    for _ in 0..3 {
        drop(take_dead(queue.as_ref()).await?);
    }
    let dead = take_dead(queue.as_ref()).await?;
    check(&dead, &sent, 1)?;
    ensure!(dead.redelivered, "{}", describe(&dead));
    ensure!(dead.reason.as_deref() == Some("no"), "{}", describe(&dead));
    dead.ack().await?;
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn an_acknowledged_dead_letter_is_gone_for_good<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    queue.publisher().publish(&lone_batch()).await?;
    take(queue.as_ref()).await?.dead_letter("no").await?;
    take_dead(queue.as_ref()).await?.ack().await?;
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn only_a_dead_letter_has_a_reason<F: QueueFixture>(fixture: &F) -> Result<()> {
    let queue = fixture.open().await?;
    queue.publisher().publish(&lone_batch()).await?;
    let first = take(queue.as_ref()).await?;
    ensure!(first.reason.is_none(), "{}", describe(&first));
    first.retry(RetryTier::First).await?;
    let second = take(queue.as_ref()).await?;
    ensure!(second.reason.is_none(), "{}", describe(&second));
    second.ack().await?;
    check_nothing_is_left(fixture, queue).await
}
