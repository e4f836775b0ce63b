//! Limits of requests with several APIs, and without Redis.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use carga_testkit::{Binary, Redis, Running, eventually};

use super::redis::command;
use crate::access::{ADMIN, closed_harness, get, key_of};
use crate::answers::problem;
use crate::app::{App, TIMEOUT};
use crate::harness::Mode;
use crate::limits::{until_refused, wait_for_limits};

/// What the log says when a process begins to count alone.
const ALONE: &str = "this process counts requests for rate limits alone";

fn outages(api: &Running) -> usize {
    api.log().matches(ALONE).count()
}

/// Sends requests with one key to two APIs in turn, until both refuse one. Returns the number of
/// admitted requests.
async fn admitted_by_both(app: &App, urls: [&str; 2], key: &str) -> Result<u32> {
    let mut admitted = 0;
    for _ in 0..200 {
        let mut refused = 0;
        for url in urls {
            let list = app.client.get(format!("{url}/uploads"));
            match list.header("x-api-key", key).send().await?.status() {
                status if status == 200 => admitted += 1,
                status if status == 429 => refused += 1,
                status => bail!("{status}"),
            }
        }
        if refused == urls.len() {
            return Ok(admitted);
        }
    }
    bail!("{admitted} requests were admitted")
}

#[tokio::test]
async fn two_apis_share_the_limit_of_a_key() -> Result<()> {
    const LIMIT: u32 = 40;
    const COMES_BACK_EVERY: Duration = Duration::from_millis(1500);
    const ATTEMPTS: u32 = 10;
    let harness = closed_harness(Mode::Distributed).await?;
    let harness = harness.with("CARGA_LIMIT_KEY", &LIMIT.to_string());
    let app = App::start(harness, 0).await?;
    let mut second = Running::spawn(Binary::Api, &app.harness.env())?;
    let other_url = second.base_url(TIMEOUT).await?;
    for _ in 0..ATTEMPTS {
        let key = key_of(&app, "acme", &["read"]).await?;
        let before = outages(&app.api) + outages(&second);
        let began = Instant::now();
        let admitted = admitted_by_both(&app, [&app.url, &other_url], &key).await?;
        let back = began.elapsed().as_millis() / COMES_BACK_EVERY.as_millis();
        // On a busy machine, Redis may need more than its 50 ms. Then each API counts alone.
        if outages(&app.api) + outages(&second) == before {
            ensure!(admitted >= LIMIT, "only {admitted} were admitted");
            ensure!(u128::from(admitted - LIMIT) <= back, "{admitted}, {back}");
            return app.close().await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    bail!("Redis was too slow in each of {ATTEMPTS} attempts")
}

#[tokio::test]
async fn a_limit_holds_while_redis_is_away_and_the_log_says_so() -> Result<()> {
    let mut redis = Redis::start().await?;
    let harness = closed_harness(Mode::Distributed).await?;
    let harness = harness.with("REDIS_URL", &redis.url());
    // A request comes back every two seconds.
    let app = App::start(harness.with("CARGA_LIMIT_KEY", "30"), 0).await?;
    let key = key_of(&app, "acme", &["read"]).await?;
    wait_for_limits(&app, "ok").await?;
    for _ in 0..10 {
        ensure!(get(&app, "/uploads", Some(&key)).await?.status() == 200);
    }
    redis.kill()?;
    let before = outages(&app.api);
    let began = Instant::now();
    let (admitted, refused) = until_refused(&app, &key, 200).await?;
    // The requests from before count, because the process also counts what Redis counts.
    let back = began.elapsed().as_secs() / 2 + 10;
    ensure!(u64::from(admitted) <= 20 + back, "{admitted} were admitted");
    problem(refused, 429, "rate_limited").await?;
    ensure!(outages(&app.api) <= before + 1, "{}", app.api.log());
    ensure!(outages(&app.api) > 0, "{}", app.api.log());
    // Requests to `/readyz` share one check for a second.
    wait_for_limits(&app, "unavailable").await?;
    let (status, ready) = app.get("/readyz").await?;
    ensure!(status == 200 && ready["status"] == "degraded", "{ready}");

    redis.restart().await?;
    wait_for_limits(&app, "ok").await?;
    ensure!(app.api.log().contains("Redis answers again"));
    app.close().await
}

#[tokio::test]
async fn every_bucket_in_redis_expires() -> Result<()> {
    let redis = Redis::start().await?;
    let mut harness = closed_harness(Mode::Distributed).await?;
    harness = harness.with("REDIS_URL", &redis.url());
    for name in ["ADDRESS", "KEY"] {
        harness = harness.with(&format!("CARGA_LIMIT_{name}"), "1");
    }
    let app = App::start(harness, 0).await?;
    // Redis counts only requests that it answers in time.
    let counted = eventually(TIMEOUT, "Redis to count a request", async || {
        get(&app, "/uploads", Some(ADMIN)).await.ok()?;
        let keys = command(&redis, "KEYS *").await.ok()?;
        let keys = keys.lines().filter(|line| line.contains(":{limits}:"));
        let keys: Vec<String> = keys.map(str::to_owned).collect();
        (!keys.is_empty()).then_some(keys)
    })
    .await?;
    ensure!(counted.len() == 2, "{counted:?}");
    for key in counted {
        let left = command(&redis, &format!("PTTL {key}")).await?;
        let left_ms = left.trim().strip_prefix(':').context("no number")?;
        let left_ms: i64 = left_ms.parse()?;
        ensure!((1..=60_000).contains(&left_ms), "{key}: {left_ms}");
    }
    app.close().await
}
