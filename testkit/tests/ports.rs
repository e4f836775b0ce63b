//! What RabbitMQ and Redis do by themselves, and what becomes of it. Promises that every adapter keeps are in
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

/// The next delivery of a new consumer, in time.
async fn next(queue: &RabbitQueue) -> Result<Delivery> {
    let mut deliveries = queue.consume(Prefetch::of_batches(1)).await?;
    let delivery = tokio::time::timeout(Duration::from_secs(30), deliveries.next()).await;
    Ok(delivery.context("nothing was delivered")??)
}

/// What the broker gives up by itself. A consumer that goes away counts on every version; from RabbitMQ 4.3 on, giving a
/// message back does not.
#[tokio::test]
async fn a_message_that_is_delivered_again_and_again_and_never_settled_ends_as_a_dead_letter()
-> Result<()> {
    let scope = Scope::new().await?;
    let queue = queue(&scope).await?;
    queue.publisher().publish(&batch()).await?;
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
    let lost = queue.publisher().publish(&batch()).await;
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

#[tokio::test]
async fn counters_of_a_server_s_earlier_life_are_absent() -> Result<()> {
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
    let found = eventually(Duration::from_secs(10), "Redis to answer", async || {
        progress.read(key).await.ok()
    });
    ensure!(found.await?.is_none(), "an old snapshot was believed");
    progress.restore(key, &snapshot).await?;
    ensure!(
        progress
            .read(key)
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
