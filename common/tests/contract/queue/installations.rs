//! A message names the installation of Carga that published it.

use anyhow::{Result, ensure};
use carga_common::queue::RetryTier;
use uuid::Uuid;

use super::{QueueFixture, check, check_nothing_is_left, describe, lone_batch, take, take_dead};

const OTHER: Uuid = Uuid::from_u128(2);

pub(super) async fn a_message_of_another_installation_is_foreign<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let (ours, theirs) = (fixture.open().await?, fixture.open_as(OTHER).await?);
    let sent = lone_batch();
    theirs.publisher().publish(&sent).await?;
    let foreign = take(ours.as_ref()).await?;
    check(&foreign, &sent, 1)?;
    ensure!(foreign.is_foreign, "{}", describe(&foreign));
    drop(foreign);
    let own = take(theirs.as_ref()).await?;
    check(&own, &sent, 1)?;
    ensure!(!own.is_foreign, "{}", describe(&own));
    own.ack().await?;
    theirs.close().await;
    check_nothing_is_left(fixture, ours).await
}

pub(super) async fn a_foreign_message_stays_foreign<F: QueueFixture>(fixture: &F) -> Result<()> {
    let (ours, theirs) = (fixture.open().await?, fixture.open_as(OTHER).await?);
    let sent = lone_batch();
    theirs.publisher().publish(&sent).await?;
    take(ours.as_ref()).await?.postpone().await?;
    let postponed = take(ours.as_ref()).await?;
    check(&postponed, &sent, 1)?;
    ensure!(postponed.is_foreign, "{}", describe(&postponed));
    postponed.retry(RetryTier::First).await?;
    let retried = take(ours.as_ref()).await?;
    check(&retried, &sent, 2)?;
    ensure!(retried.is_foreign, "{}", describe(&retried));
    retried.dead_letter("as a test").await?;
    let dead = take_dead(ours.as_ref()).await?;
    ensure!(dead.is_foreign, "{}", describe(&dead));
    drop(dead);
    let dead = take_dead(theirs.as_ref()).await?;
    check(&dead, &sent, 2)?;
    ensure!(!dead.is_foreign, "{}", describe(&dead));
    dead.ack().await?;
    theirs.close().await;
    check_nothing_is_left(fixture, ours).await
}

/// A message waits for a limited number of postponements. Postponements by another installation
/// must not use them up.
pub(super) async fn a_postponement_by_another_installation_is_not_counted<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let (ours, theirs) = (fixture.open().await?, fixture.open_as(OTHER).await?);
    let sent = lone_batch();
    theirs.publisher().publish(&sent).await?;
    take(theirs.as_ref()).await?.postpone().await?;
    for _ in 0..2 {
        let foreign = take(ours.as_ref()).await?;
        ensure!(foreign.is_foreign, "{}", describe(&foreign));
        foreign.postpone().await?;
    }
    let own = take(theirs.as_ref()).await?;
    check(&own, &sent, 1)?;
    let postponed = own.postponed;
    ensure!(postponed == 1, "postponed {postponed} times");
    own.ack().await?;
    theirs.close().await;
    check_nothing_is_left(fixture, ours).await
}
