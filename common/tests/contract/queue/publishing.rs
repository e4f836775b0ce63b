//! A published batch is durable, and is delivered once and unchanged.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use carga_common::batch::{Batch, BatchId, DecodeError};
use carga_common::queue::{Prefetch, QueueDepth, RetryTier};
use carga_common::upload::UploadId;
use futures::future::{try_join, try_join_all};
use futures::stream::{self, StreamExt, TryStreamExt};
use uuid::Uuid;

use super::{
    QueueFixture, TIMEOUT, batch, check, check_nothing_is_left, describe, lone_batch, next,
    publish, take, take_dead, wait_for_depth,
};
use crate::sample::in_epoch;

pub(super) async fn a_published_batch_survives_reopening<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    let sent = lone_batch();
    queue.publisher().publish(&sent).await?;
    queue.close().await;
    let queue = fixture.open().await?;
    let delivery = take(queue.as_ref()).await?;
    check(&delivery, &sent, 1)?;
    ensure!(!delivery.redelivered, "{}", describe(&delivery));
    delivery.ack().await?;
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn concurrent_publishes_are_each_durable_once<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    const UPLOADS: u32 = 4;
    const BATCHES: u32 = 50;
    let (one, other) = (fixture.open().await?, fixture.open().await?);
    let mut publishes = Vec::new();
    let mut sent = BTreeSet::new();
    for number in 0..UPLOADS {
        let queue = if number % 2 == 0 { &one } else { &other };
        let (publisher, upload) = (queue.publisher(), UploadId::generate());
        for seq in 1..=BATCHES {
            let batch = batch(upload, seq, format!("{upload} {seq}"));
            sent.insert((batch.id, batch.body.clone()));
            let publisher = publisher.clone();
            publishes.push(tokio::spawn(async move { publisher.publish(&batch).await }));
        }
    }
    for published in try_join_all(publishes).await? {
        published?;
    }
    one.close().await;
    other.close().await;

    let queue = fixture.open().await?;
    let mut deliveries = queue.consume(Prefetch::of_batches(16)).await?;
    let mut found = BTreeSet::new();
    for _ in 0..UPLOADS * BATCHES {
        let delivery = next(&mut deliveries).await?;
        let new = delivery.id.map(|id| (id, delivery.body.clone()));
        ensure!(
            new.is_some_and(|new| found.insert(new)),
            "{}",
            describe(&delivery)
        );
        delivery.ack().await?;
    }
    ensure!(found == sent);
    check_nothing_is_left(fixture, queue).await
}

/// The queue may slow its publishers down, but it must not fail them.
pub(super) async fn a_queue_without_a_consumer_accepts_every_publish<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    const BATCHES: u32 = 400;
    let queue = fixture.open().await?;
    let (publisher, upload) = (queue.publisher(), UploadId::generate());
    let batches: Vec<_> = (1..=BATCHES)
        .map(|seq| batch(upload, seq, "body"))
        .collect();
    let published = stream::iter(&batches)
        .map(|batch| publisher.publish(batch))
        .buffer_unordered(32)
        .try_collect::<()>();
    tokio::time::timeout(TIMEOUT, published).await??;
    let all_ready = QueueDepth {
        ready: u64::from(BATCHES),
        ..QueueDepth::default()
    };
    wait_for_depth(queue.as_ref(), all_ready).await?;
    let mut deliveries = queue.consume(Prefetch::of_batches(32)).await?;
    for _ in 0..BATCHES {
        next(&mut deliveries).await?.ack().await?;
    }
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn a_waiting_consumer_receives_a_batch_from_another_handle<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let (here, there) = (fixture.open().await?, fixture.open().await?);
    let sent = lone_batch();
    let mut deliveries = here.consume(Prefetch::of_batches(1)).await?;
    let published = async {
        // `try_join` polls the consumer first, so the consumer is already waiting.
        Ok(there.publisher().publish(&sent).await?)
    };
    let (delivery, ()) = try_join(next(&mut deliveries), published).await?;
    check(&delivery, &sent, 1)?;
    delivery.ack().await?;
    there.close().await;
    check_nothing_is_left(fixture, here).await
}

pub(super) async fn a_body_of_any_bytes_is_delivered_unchanged<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    let every_byte: Vec<u8> = (0..=u8::MAX).cycle().take(1000).collect();
    let bodies = [
        Bytes::new(),
        Bytes::from(every_byte),
        Bytes::from("🦀 \"quoted\" \\ \0 \r\n"),
    ];
    let (publisher, upload) = (queue.publisher(), UploadId::generate());
    for (seq, body) in (1..).zip(&bodies) {
        publisher.publish(&batch(upload, seq, body.clone())).await?;
    }
    let mut deliveries = queue.consume(Prefetch::of_batches(1)).await?;
    let mut found = BTreeSet::new();
    for _ in &bodies {
        let delivery = next(&mut deliveries).await?;
        found.insert(delivery.body.clone());
        delivery.ack().await?;
    }
    ensure!(found == BTreeSet::from(bodies));
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn a_body_of_5_mib_is_delivered_whole<F: QueueFixture>(fixture: &F) -> Result<()> {
    let queue = fixture.open().await?;
    let body: Vec<u8> = (0..5 << 20).map(|index: u32| (index % 251) as u8).collect();
    let sent = batch(UploadId::generate(), 1, body);
    queue.publisher().publish(&sent).await?;
    let delivery = take(queue.as_ref()).await?;
    check(&delivery, &sent, 1)?;
    // The body is delivered whole in a dead letter, too.
    delivery.dead_letter("too large").await?;
    let dead = take_dead(queue.as_ref()).await?;
    check(&dead, &sent, 1)?;
    dead.ack().await?;
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn a_delivery_carries_its_batch_id_and_epoch<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    let mut sent = lone_batch();
    // An id that a client chose, the largest epoch and the largest batch number.
    sent.id = BatchId {
        upload: in_epoch(Uuid::new_v4().into(), i32::MAX),
        seq: u32::MAX,
    };
    queue.publisher().publish(&sent).await?;
    let delivery = take(queue.as_ref()).await?;
    check(&delivery, &sent, 1)?;
    delivery.ack().await?;
    check_nothing_is_left(fixture, queue).await
}

/// A worker of an older build cannot decode such a message, and must pass it on unchanged.
pub(super) async fn a_message_of_an_unknown_version_is_delivered_unchanged<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    let sent = batch(UploadId::generate(), 3, r#"{"v":7,"anything":{"é":[]}}"#);
    queue.publisher().publish(&sent).await?;
    let delivery = take(queue.as_ref()).await?;
    check(&delivery, &sent, 1)?;
    let Err(unknown) = Batch::decode(delivery.body.clone()) else {
        anyhow::bail!("version 7 was decoded");
    };
    ensure!(
        matches!(unknown, DecodeError::UnknownVersion(7)),
        "{unknown}"
    );
    delivery.dead_letter(&unknown.to_string()).await?;
    let dead = take_dead(queue.as_ref()).await?;
    check(&dead, &sent, 1)?;
    ensure!(
        dead.reason == Some(unknown.to_string()),
        "{}",
        describe(&dead)
    );
    dead.ack().await?;
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn depth_counts_ready_retrying_and_dead_messages<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    let depth = |ready, retrying, dead| QueueDepth {
        ready,
        retrying,
        dead,
    };
    ensure!(queue.depth().await? == depth(0, 0, 0));
    publish(queue.as_ref(), 5).await?;
    wait_for_depth(queue.as_ref(), depth(5, 0, 0)).await?;

    let mut deliveries = queue.consume(Prefetch::of_batches(3)).await?;
    let (retried, dead, held) = (
        next(&mut deliveries).await?,
        next(&mut deliveries).await?,
        next(&mut deliveries).await?,
    );
    // A delivery that a worker holds is not counted as ready.
    wait_for_depth(queue.as_ref(), depth(2, 0, 0)).await?;
    // The consumer is dropped before the deliveries are settled, or it would take more.
    drop(deliveries);
    // The longest tier, so that the batch still waits when the depth is read.
    retried.retry(RetryTier::Third).await?;
    dead.dead_letter("as a test").await?;
    held.ack().await?;
    wait_for_depth(queue.as_ref(), depth(2, 1, 1)).await?;
    queue.close().await;
    let queue = fixture.open().await?;
    wait_for_depth(queue.as_ref(), depth(2, 1, 1)).await?;
    queue.close().await;
    Ok(())
}

pub(super) async fn a_reachable_queue_answers_a_ping<F: QueueFixture>(fixture: &F) -> Result<()> {
    let queue = fixture.open().await?;
    queue.ping().await?;
    queue.close().await;
    Ok(())
}

pub(super) async fn a_publish_after_the_deletion_of_the_queue_is_kept<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    const PUBLISHES: u32 = 16;
    let queue = fixture.open().await?;
    let publisher = queue.publisher();
    publisher.publish(&lone_batch()).await?;
    fixture.delete_the_queue().await?;
    // The broker reports a return with any confirm of the channel, so one publish may send the
    // batch of another one again.
    let upload = UploadId::generate();
    let batches: Vec<_> = (1..=PUBLISHES)
        .map(|seq| batch(upload, seq, format!("body {seq}")))
        .collect();
    try_join_all(batches.iter().map(|batch| publisher.publish(batch))).await?;
    let mut deliveries = queue.consume(Prefetch::of_batches(16)).await?;
    let mut found = BTreeSet::new();
    while found.len() < batches.len() {
        let delivery = next(&mut deliveries).await?;
        found.insert(delivery.body.clone());
        delivery.ack().await?;
    }
    let sent: BTreeSet<Bytes> = batches.into_iter().map(|batch| batch.body).collect();
    ensure!(found == sent);
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn a_batch_reaches_a_consumer_whose_queue_was_deleted<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    let mut deliveries = queue.consume(Prefetch::of_batches(1)).await?;
    fixture.delete_the_queue().await?;
    let sent = lone_batch();
    queue.publisher().publish(&sent).await?;
    let received = async {
        loop {
            if let Ok(delivery) = deliveries.next().await {
                break anyhow::Ok(delivery);
            }
            // An error ends the stream, and a worker then starts a new consumer.
            deliveries = queue.consume(Prefetch::of_batches(1)).await?;
        }
    };
    let received = tokio::time::timeout(TIMEOUT, received).await;
    let delivery = received.context("the consumer neither ended nor received the batch")??;
    check(&delivery, &sent, 1)?;
    delivery.ack().await?;
    check_nothing_is_left(fixture, queue).await
}

pub(super) async fn a_ping_after_the_deletion_of_the_queue_makes_it_again<F: QueueFixture>(
    fixture: &F,
) -> Result<()> {
    let queue = fixture.open().await?;
    fixture.delete_the_queue().await?;
    queue.ping().await?;
    ensure!(queue.depth().await? == QueueDepth::default());
    // A consumer makes it again, too.
    fixture.delete_the_queue().await?;
    let mut deliveries = queue.consume(Prefetch::of_batches(1)).await?;
    queue.publisher().publish(&lone_batch()).await?;
    next(&mut deliveries).await?.ack().await?;
    check_nothing_is_left(fixture, queue).await
}
