//! Behaviour that only Redis has. The promises of every adapter are tested in
//! `common/tests/contract/`.

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::progress::{ProgressStore, RedisProgress, RedisSettings, Snapshot, StoredBatch};
use carga_common::settings::SecretUrl;
use carga_common::upload::{UploadId, UploadKey};
use carga_testkit::{Redis, eventually};

fn progress(redis: &Redis) -> Result<RedisProgress> {
    let settings = RedisSettings {
        url: SecretUrl::new(redis.url()),
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
    let batch = |seq| StoredBatch {
        seq,
        rows: 10,
        rejected: 0,
    };
    let snapshot = Snapshot {
        stored: [1, 2].map(batch).to_vec(),
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
