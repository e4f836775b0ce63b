//! Behaviour that only RabbitMQ or Redis has. The promises of every adapter are tested in
//! `common/tests/contract/`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use carga_common::batch::{BatchId, EncodedBatch};
use carga_common::error::ErrorKind;
use carga_common::progress::{ProgressStore, RedisProgress, RedisSettings, Snapshot, StoredBatch};
use carga_common::queue::{BatchQueue, Delivery, Prefetch, RabbitQueue, RabbitSettings};
use carga_common::upload::{UploadId, UploadKey};
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

fn batch() -> EncodedBatch {
    EncodedBatch {
        id: BatchId {
            upload: UploadKey {
                id: UploadId::generate(),
                epoch: 2.into(),
            },
            seq: 1,
        },
        rows: 1,
        body: Bytes::from_static(b"body"),
    }
}

/// Returns the first delivery of a new consumer, or fails after 30 s.
async fn next(queue: &RabbitQueue) -> Result<Delivery> {
    let mut deliveries = queue.consume(Prefetch::of_batches(1)).await?;
    let delivery = tokio::time::timeout(Duration::from_secs(30), deliveries.next()).await;
    Ok(delivery.context("nothing was delivered")??)
}

/// The broker counts a delivery against its limit when the consumer disconnects. From RabbitMQ 4.3
/// on it does not count a message that the consumer returns.
#[tokio::test]
async fn a_message_that_is_never_settled_becomes_a_dead_letter() -> Result<()> {
    let scope = Scope::new().await?;
    let queue = queue(&scope).await?;
    queue.publisher().publish(&batch()).await?;
    let mut dead = queue.consume_dead_letters().await?;
    let redeliver = async {
        loop {
            drop(next(&queue).await);
        }
    };
    let dead = tokio::select! {
        dead = tokio::time::timeout(Duration::from_secs(60), dead.next()) => dead??,
        () = redeliver => unreachable!("the loop never ends"),
    };
    let reason = dead
        .reason
        .clone()
        .context("the dead letter has no reason")?;
    ensure!(reason.contains("delivery_limit"), "{reason}");
    dead.ack().await?;
    queue.close().await;
    scope.close().await
}

#[tokio::test]
async fn publishing_fails_when_no_queue_accepts_the_message() -> Result<()> {
    let scope = Scope::new().await?;
    let queue = queue(&scope).await?;
    let connection = Connection::connect(scope.amqp_url(), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let name = format!("{}.batches", scope.env()["CARGA_QUEUE"]);
    channel
        .queue_delete(name.as_str().into(), QueueDeleteOptions::default())
        .await?;
    let published = queue.publisher().publish(&batch()).await;
    ensure!(published.is_err_and(|error| error.kind() == ErrorKind::Internal));
    connection.close(200, "done".into()).await?;
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

#[tokio::test]
async fn counters_restored_from_a_redis_snapshot_are_ignored() -> Result<()> {
    let mut redis = Redis::start().await?;
    let progress = progress(&redis)?;
    let key = UploadKey::first(UploadId::generate());
    let snapshot = Snapshot {
        stored: [1, 2].map(|seq| StoredBatch { seq, rows: 10 }).to_vec(),
        ..Snapshot::default()
    };
    progress.restore(key, &snapshot).await?;
    save(&redis).await?;
    redis.kill()?;
    ensure!(
        progress
            .read(key)
            .await
            .is_err_and(|error| error.is_unavailable())
    );
    redis.restart().await?;
    let counters = eventually(Duration::from_secs(10), "Redis to answer", async || {
        progress.read(key).await.ok()
    });
    ensure!(
        counters.await?.is_none(),
        "counters of an old snapshot were returned"
    );
    progress.restore(key, &snapshot).await?;
    ensure!(
        progress
            .read(key)
            .await?
            .is_some_and(|counters| counters.rows_stored == 20)
    );
    Ok(())
}

/// Makes Redis write a snapshot, which it loads when it restarts.
async fn save(redis: &Redis) -> Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", redis.port())).await?;
    stream.write_all(b"SAVE\r\nQUIT\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("+OK"), "{answer}");
    Ok(())
}
