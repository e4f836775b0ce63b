//! Redis goes away, is emptied or restores old data: the figures stay correct.

use anyhow::{Result, ensure};
use carga_testkit::{Redis, Scope};
use uuid::Uuid;

use crate::app::App;
use crate::files::{FLIGHTS_ROWS, csv, flights, paced};
use crate::progress::{ALL_FIGURES, poll};

#[tokio::test]
async fn no_figure_decreases_when_redis_is_emptied_killed_or_outdated() -> Result<()> {
    let mut redis = Redis::start().await?;
    let app = App::start(Scope::new().await?.with_redis(&redis), 2).await?;
    let id = Uuid::now_v7();
    let poller = poll(&app, id, ALL_FIGURES);
    let sending = app.start_sending(id, paced(flights().await?, 4_000_000));
    app.wait_for_more_batches(id, 20).await?;
    command(&redis, "FLUSHALL").await?;
    app.wait_for_more_batches(id, 60).await?;
    // Save a snapshot that will be outdated when Redis loads it.
    command(&redis, "SAVE").await?;
    app.wait_for_more_batches(id, 100).await?;
    redis.kill()?;
    redis.restart().await?;
    app.wait_for_more_batches(id, 140).await?;
    redis.kill()?;
    app.wait_for_more_batches(id, 180).await?;
    redis.restart().await?;
    ensure!(sending.await??.status() == 202);
    let seen = poller.await??;
    ensure!(seen.degraded, "the outage was not reported as `degraded`");
    ensure!(seen.reads.len() >= 5);
    app.expect_completed(id, FLIGHTS_ROWS).await?;
    app.close().await
}

#[tokio::test]
async fn every_key_in_redis_expires() -> Result<()> {
    let redis = Redis::start().await?;
    let app = App::start(Scope::new().await?.with_redis(&redis), 1).await?;
    let id = Uuid::now_v7();
    let answer = app.put(id, paced(csv(20_000), 1_000_000)).await?;
    ensure!(answer.status() == 202);
    app.expect_completed(id, 20_000).await?;
    let keys = command(&redis, "KEYS *").await?;
    let keys: Vec<&str> = keys
        .lines()
        .filter(|line| line.starts_with("test-") || line.contains(&id.to_string()))
        .collect();
    ensure!(keys.len() == 2, "{keys:?}");
    for key in keys {
        let ttl = command(&redis, &format!("TTL {}", key.trim())).await?;
        let seconds: i64 = ttl.trim().trim_start_matches(':').parse()?;
        ensure!(
            (80_000..=86_400).contains(&seconds),
            "{key} expires in {seconds} s"
        );
    }
    app.close().await
}

/// Sends one inline command and returns the reply.
pub(super) async fn command(redis: &Redis, command: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", redis.port())).await?;
    stream
        .write_all(format!("{command}\r\nQUIT\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let answer = answer.strip_suffix("+OK\r\n").unwrap_or(&answer).to_owned();
    ensure!(!answer.starts_with('-'), "{command}: {answer}");
    Ok(answer)
}
