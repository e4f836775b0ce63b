//! Promises of the ports that the whole system shows only by chance, on the real servers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use carga_common::batch::{BatchId, EncodedBatch};
use carga_common::error::ErrorKind;
use carga_common::progress::{
    Counters, Presence, ProgressStore, RedisProgress, RedisSettings, Snapshot, StoredBatch,
};
use carga_common::queue::{BatchQueue, Delivery, RabbitQueue, RabbitSettings, RetryTier};
use carga_common::upload::UploadId;
use carga_testkit::{Redis, Scope, eventually};
use lapin::options::QueueDeleteOptions;
use lapin::{Connection, ConnectionProperties};

async fn queue(scope: &Scope) -> Result<RabbitQueue> {
    let settings = RabbitSettings {
        url: scope.amqp_url().to_owned(),
        queue: scope.env()["CARGA_QUEUE"].clone(),
        program: "test".to_owned(),
        publish_timeout: Duration::from_secs(10),
    };
    Ok(RabbitQueue::connect(settings).await?)
}

fn batch(upload: UploadId, seq: u32) -> EncodedBatch {
    EncodedBatch {
        id: BatchId {
            upload,
            epoch: 2,
            seq,
        },
        rows: 1,
        body: Bytes::from(format!("body {seq}")),
    }
}

/// The next delivery of a new consumer, in time.
async fn next(queue: &RabbitQueue) -> Result<Delivery> {
    let mut deliveries = queue.consume(1).await?;
    let delivery = tokio::time::timeout(Duration::from_secs(30), deliveries.next()).await;
    Ok(delivery.context("nothing was delivered")??)
}

#[tokio::test]
async fn a_dropped_delivery_comes_again_and_an_acknowledged_one_does_not() -> Result<()> {
    let scope = Scope::new().await?;
    let queue = queue(&scope).await?;
    let sent = batch(UploadId::generate(), 7);
    queue.publisher().publish(&sent).await?;
    let first = next(&queue).await?;
    ensure!(first.body == sent.body && first.id == Some(sent.id) && first.attempt == 1);
    ensure!(!first.redelivered);
    drop(first);
    let second = next(&queue).await?;
    ensure!(second.body == sent.body && second.redelivered && second.attempt == 1);
    second.ack().await?;
    queue.close().await;
    // Whatever was not settled would be back now.
    let queue = self::queue(&scope).await?;
    ensure!(queue.depth().await?.ready == 0);
    queue.close().await;
    scope.close().await
}

#[tokio::test]
async fn a_retried_delivery_waits_for_its_tier_and_comes_back_as_the_next_attempt() -> Result<()> {
    let scope = Scope::new().await?;
    let queue = queue(&scope).await?;
    let sent = batch(UploadId::generate(), 1);
    queue.publisher().publish(&sent).await?;
    next(&queue).await?.retry(RetryTier::First).await?;
    let retried = Instant::now();
    ensure!(queue.depth().await?.retrying == 1);
    let second = next(&queue).await?;
    ensure!(second.attempt == 2 && second.id == Some(sent.id) && second.body == sent.body);
    let waited = retried.elapsed();
    ensure!(waited > Duration::from_millis(800), "{waited:?}");
    second.retry(RetryTier::Second).await?;
    let retried = Instant::now();
    let third = next(&queue).await?;
    ensure!(third.attempt == 3 && retried.elapsed() > Duration::from_millis(3500));
    third.ack().await?;
    queue.close().await;
    scope.close().await
}

#[tokio::test]
async fn a_dead_letter_is_kept_with_its_reason() -> Result<()> {
    let scope = Scope::new().await?;
    let queue = queue(&scope).await?;
    let sent = batch(UploadId::generate(), 3);
    queue.publisher().publish(&sent).await?;
    next(&queue).await?.dead_letter("it does not fit").await?;
    let depth = queue.depth().await?;
    ensure!((depth.ready, depth.dead) == (0, 1), "{depth:?}");
    let mut dead = queue.consume_dead_letters().await?;
    let dead = tokio::time::timeout(Duration::from_secs(30), dead.next()).await??;
    ensure!(dead.reason.as_deref() == Some("it does not fit"));
    ensure!(dead.id == Some(sent.id) && dead.body == sent.body);
    dead.ack().await?;
    queue.close().await;
    scope.close().await
}

/// What the broker gives up by itself. A consumer that goes away counts on every version; from RabbitMQ 4.3 on, giving a
/// message back does not.
#[tokio::test]
async fn a_message_that_is_delivered_again_and_again_and_never_settled_ends_as_a_dead_letter()
-> Result<()> {
    let scope = Scope::new().await?;
    let queue = queue(&scope).await?;
    queue
        .publisher()
        .publish(&batch(UploadId::generate(), 1))
        .await?;
    let mut dead = queue.consume_dead_letters().await?;
    let gives_up = async {
        loop {
            drop(next(&queue).await);
        }
    };
    let dead = tokio::select! {
        dead = tokio::time::timeout(Duration::from_secs(60), dead.next()) => dead??,
        () = gives_up => unreachable!("it never ends"),
    };
    let reason = dead.reason.clone().context("no reason")?;
    ensure!(reason.contains("delivery_limit"), "{reason}");
    dead.ack().await?;
    queue.close().await;
    scope.close().await
}

#[tokio::test]
async fn a_message_that_no_queue_takes_is_an_error_and_not_a_success() -> Result<()> {
    let scope = Scope::new().await?;
    let queue = queue(&scope).await?;
    let by_hand = Connection::connect(scope.amqp_url(), ConnectionProperties::default()).await?;
    let channel = by_hand.create_channel().await?;
    let name = format!("{}.batches", scope.env()["CARGA_QUEUE"]);
    channel
        .queue_delete(name.as_str().into(), QueueDeleteOptions::default())
        .await?;
    let lost = queue
        .publisher()
        .publish(&batch(UploadId::generate(), 1))
        .await;
    ensure!(lost.is_err_and(|error| error.kind() == ErrorKind::Internal));
    by_hand.close(200, "done".into()).await?;
    queue.close().await;
    scope.close().await
}

fn progress(redis: &Redis) -> Result<RedisProgress> {
    let settings = RedisSettings {
        url: redis.url(),
        prefix: "test".to_owned(),
        ttl: Duration::from_secs(60),
    };
    Ok(RedisProgress::new(settings)?)
}

fn stored(seqs: impl IntoIterator<Item = u32>) -> Vec<StoredBatch> {
    seqs.into_iter()
        .map(|seq| StoredBatch { seq, rows: 10 })
        .collect()
}

#[tokio::test]
async fn counters_are_idempotent_exact_and_scoped_to_their_epoch() -> Result<()> {
    let redis = Redis::start().await?;
    let progress = progress(&redis)?;
    let id = UploadId::generate();
    // Absent is told, and nothing is added.
    ensure!(progress.read(id, 1).await?.is_none());
    ensure!(progress.stored(id, 1, &stored([1])).await? == Presence::Absent);
    ensure!(progress.received(id, 1, 5, 50).await? == Presence::Absent);
    ensure!(progress.read(id, 1).await?.is_none());

    let snapshot = Snapshot {
        rows_read: 100,
        bytes_received: 1000,
        stored: stored([1, 2]),
    };
    progress.restore(id, 1, &snapshot).await?;
    // The same batches from many sides at once, and the snapshot again.
    let reports = (0..8).map(|_| async {
        progress.stored(id, 1, &stored(1..=40)).await?;
        progress.restore(id, 1, &snapshot).await
    });
    futures::future::try_join_all(reports).await?;
    ensure!(progress.received(id, 1, 400, 4000).await? == Presence::Present);
    ensure!(progress.received(id, 1, 300, 3000).await? == Presence::Present);
    let counters = Counters {
        rows_read: 400,
        bytes_received: 4000,
        rows_stored: 400,
        batches_stored: 40,
    };
    ensure!(progress.read(id, 1).await? == Some(counters));

    // A newer epoch begins afresh, and the older one's late reports change nothing.
    ensure!(progress.read(id, 2).await?.is_none());
    progress.restore(id, 2, &Snapshot::default()).await?;
    ensure!(progress.stored(id, 1, &stored(1..=40)).await? == Presence::Present);
    progress.restore(id, 1, &snapshot).await?;
    ensure!(progress.read(id, 2).await? == Some(Counters::default()));
    Ok(())
}

#[tokio::test]
async fn counters_of_a_server_s_earlier_life_are_absent() -> Result<()> {
    let mut redis = Redis::start().await?;
    let progress = progress(&redis)?;
    let id = UploadId::generate();
    let snapshot = Snapshot {
        stored: stored([1, 2]),
        ..Snapshot::default()
    };
    progress.restore(id, 1, &snapshot).await?;
    save(&redis).await?;
    redis.kill()?;
    ensure!(
        progress
            .read(id, 1)
            .await
            .is_err_and(|error| error.is_unavailable())
    );
    redis.restart().await?;
    let found = eventually(Duration::from_secs(10), "Redis to answer", async || {
        progress.read(id, 1).await.ok()
    });
    ensure!(found.await?.is_none(), "an old snapshot was believed");
    progress.restore(id, 1, &snapshot).await?;
    ensure!(
        progress
            .read(id, 1)
            .await?
            .is_some_and(|counters| counters.rows_stored == 20)
    );
    Ok(())
}

/// Has Redis write a snapshot, which it loads when it starts again.
async fn save(redis: &Redis) -> Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", redis.port())).await?;
    stream.write_all(b"SAVE\r\nQUIT\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("+OK"), "{answer}");
    Ok(())
}
