//! Polling tells the truth at every moment.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_testkit::{Redis, Scope};
use serde_json::Value;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::app::{App, FLIGHTS_ROWS, check_accounts, flights, paced};

/// What must never go back while an upload succeeds.
const ALL_FIGURES: &[(&str, &str)] = &[
    ("rows", "read"),
    ("rows", "inserted"),
    ("bytes", "received"),
    ("batches", "stored"),
];

/// What a poller saw.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) statuses: Vec<String>,
    reads: BTreeSet<u64>,
    degraded: bool,
}

/// Polls until the upload has ended; a figure that goes back, or accounts that do not close, are an error.
pub(crate) fn poll(
    app: &App,
    id: Uuid,
    figures: &'static [(&str, &str)],
) -> JoinHandle<Result<Seen>> {
    let (client, url) = (app.client.clone(), format!("{}/uploads/{id}", app.url));
    tokio::spawn(async move {
        let mut seen = Seen::default();
        let mut last: Option<Value> = None;
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            let answer = client.get(&url).send().await?;
            if answer.status() == 404 {
                ensure!(last.is_none(), "the upload was there and is gone");
                continue;
            }
            let terminal = answer.headers().get("retry-after").is_none();
            let upload: Value = answer.error_for_status()?.json().await?;
            check_accounts(&upload)?;
            if let Some(last) = &last {
                for (group, figure) in figures {
                    let (before, now) =
                        (last[group][figure].as_u64(), upload[group][figure].as_u64());
                    ensure!(
                        before <= now,
                        "{group}.{figure} went from {before:?} back to {now:?}"
                    );
                }
            }
            let status = upload["status"].as_str().context("no status")?;
            if seen.statuses.last().is_none_or(|last| last != status) {
                seen.statuses.push(status.to_owned());
            }
            if status == "receiving" {
                seen.reads.extend(upload["rows"]["read"].as_u64());
                ensure!(
                    upload["percent"].is_null() && upload["batches"]["total"].is_null(),
                    "{upload}"
                );
            }
            seen.degraded |= upload["degraded"] == serde_json::json!(["progress"]);
            if !upload["finished_at"].is_null() {
                ensure!(terminal);
                return Ok(seen);
            }
            last = Some(upload);
        }
    })
}

#[tokio::test]
async fn polling_an_upload_sees_it_grow_and_never_shrink() -> Result<()> {
    let app = App::start(Scope::new().await?, 2).await?;
    let id = Uuid::now_v7();
    let poller = poll(&app, id, ALL_FIGURES);
    let answer = app.put(id, paced(flights().await?, 8_000_000)).await?;
    ensure!(answer.status() == 202);
    let seen = poller.await??;
    ensure!(
        seen.statuses == ["receiving", "processing", "completed"],
        "{:?}",
        seen.statuses
    );
    ensure!(seen.reads.len() >= 5, "only {:?}", seen.reads);
    ensure!(!seen.degraded);
    app.completed(id, FLIGHTS_ROWS).await?;
    app.scope.close().await
}

#[tokio::test]
async fn losing_redis_in_any_way_changes_nothing_and_no_figure_goes_back() -> Result<()> {
    let mut redis = Redis::start().await?;
    let app = App::start(Scope::new().await?.with_redis(&redis), 2).await?;
    let id = Uuid::now_v7();
    let poller = poll(&app, id, ALL_FIGURES);
    let sending = app.sending(id, paced(flights().await?, 4_000_000));
    app.stored_more_than(id, 20).await?;
    command(&redis, "FLUSHALL").await?;
    app.stored_more_than(id, 60).await?;
    // A snapshot that will be old when it is loaded.
    command(&redis, "SAVE").await?;
    app.stored_more_than(id, 100).await?;
    redis.kill()?;
    redis.restart().await?;
    app.stored_more_than(id, 140).await?;
    redis.kill()?;
    app.stored_more_than(id, 180).await?;
    redis.restart().await?;
    ensure!(sending.await??.status() == 202);
    let seen = poller.await??;
    ensure!(seen.degraded, "the outage was not told");
    ensure!(seen.reads.len() >= 5);
    app.completed(id, FLIGHTS_ROWS).await?;
    app.scope.close().await
}

#[tokio::test]
async fn every_key_in_redis_expires() -> Result<()> {
    let redis = Redis::start().await?;
    let app = App::start(Scope::new().await?.with_redis(&redis), 1).await?;
    let id = Uuid::now_v7();
    let answer = app
        .put(id, paced(crate::app::csv(20_000), 1_000_000))
        .await?;
    ensure!(answer.status() == 202);
    app.completed(id, 20_000).await?;
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
            "{key} lives for {seconds} s"
        );
    }
    app.scope.close().await
}

/// One inline command, and what comes back.
async fn command(redis: &Redis, command: &str) -> Result<String> {
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
