//! Postgres does not answer, is away for long, or its answer is lost.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carga_testkit::{Binary, Cut, Postgres, Relay, Scope, eventually};
use futures::future::join_all;
use uuid::Uuid;

use crate::app::App;
use crate::files::{FLIGHTS_ROWS, flights, paced};

/// How soon the API must serve again, although its old connections stay open.
const SERVES_AGAIN: Duration = Duration::from_secs(10);

/// A failover without a word: connections stay open but are silent, and the new primary answers
/// on the same address.
#[tokio::test]
async fn the_api_serves_again_soon_after_a_silent_failover() -> Result<()> {
    let scope = Scope::new().await?;
    let url = scope.database_url().to_owned();
    let relay = Relay::start(&url).await?;
    let app = App::start(scope.with("DATABASE_URL", relay.url(&url)?), 0).await?;
    // All connections of the pool are open.
    let polls = (0..50).map(|_| app.get("/uploads"));
    for poll in join_all(polls).await {
        ensure!(poll?.0 == 200);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    relay.silence();
    let failover = Instant::now();
    eventually(SERVES_AGAIN, "the API to answer", async || {
        app.get("/uploads")
            .await
            .is_ok_and(|(status, _)| status == 200)
    })
    .await?;
    let polls = (0..50).map(|_| app.get("/uploads"));
    for poll in join_all(polls).await {
        ensure!(poll?.0 == 200);
    }
    ensure!(
        failover.elapsed() < SERVES_AGAIN,
        "{:?}",
        failover.elapsed()
    );
    app.close().await
}

/// The same while a file is received and stored.
#[tokio::test]
async fn an_upload_outlives_a_silent_failover() -> Result<()> {
    let scope = Scope::new().await?;
    let url = scope.database_url().to_owned();
    let relay = Relay::start(&url).await?;
    let scope = scope
        .with("DATABASE_URL", relay.url(&url)?)
        .with("CARGA_GROUP_BATCHES", "1");
    let app = App::start(scope, 2).await?;
    let id = Uuid::now_v7();
    let sending = app.start_sending(id, paced(flights().await?, 10_000_000));
    app.wait_for_more_batches(id, 40).await?;
    relay.silence();
    ensure!(sending.await??.status() == 202);
    app.expect_completed(id, FLIGHTS_ROWS).await?;
    for worker in &app.workers {
        ensure!(!worker.log().contains("a batch failed"));
    }
    app.close().await
}

/// The commit of a seal arrives, but its answer does not.
#[tokio::test]
async fn a_seal_whose_answer_is_lost_is_accepted() -> Result<()> {
    let scope = Scope::new().await?;
    let url = scope.database_url().to_owned();
    let cut = Cut {
        first: "SET status = 'processing'",
        last: "COMMIT",
    };
    let relay = Relay::cutting(&url, cut).await?;
    let app = App::start(scope.with("DATABASE_URL", relay.url(&url)?), 0).await?;
    let id = Uuid::now_v7();
    let answer = app.put(id, "id,name\n1,Ada\n2,Grace\n").await?;
    ensure!(answer.status() == 202, "{}", answer.text().await?);
    ensure!(
        app.api.log().contains("retrying after a pause"),
        "no answer was lost"
    );
    let mut app = app;
    app.add_worker().await?;
    app.expect_completed(id, 2).await?;
    app.close().await
}

/// A host that vanishes in the middle of a COPY holds its locks until the server notices. So the
/// server probes each of our connections after 20 seconds of silence, and not after two hours.
#[tokio::test]
async fn the_server_soon_probes_connections_that_are_silent() -> Result<()> {
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let app = App::start(scope, 1).await?;
    let mut ports = Vec::new();
    for program in [Binary::Api.name(), Binary::Worker.name()] {
        let found: Vec<i32> = sqlx::query_scalar(
            "SELECT client_port FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = $1",
        )
        .bind(program)
        .fetch_all(&pool)
        .await?;
        ensure!(!found.is_empty(), "{program} has no connection");
        ports.extend(found);
    }
    eventually(Duration::from_secs(10), "short keepalives", async || {
        let connections = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        let mut probes = ports.iter().map(|port| next_probe(&connections, *port));
        probes.all(|probe| probe.is_some_and(|seconds| seconds <= 20))
    })
    .await?;
    app.close().await
}

/// In how many seconds the kernel probes the server's end of the connection from this port, if
/// nothing is in flight. The format is that of `/proc/net/tcp`: `02` is the timer of keepalives,
/// and a second has 100 ticks.
fn next_probe(connections: &str, client_port: i32) -> Option<u32> {
    let remote = format!(":{client_port:04X}");
    let mut connections = connections.lines().map(str::split_whitespace);
    let mut found = connections.find(|fields| {
        fields
            .clone()
            .nth(2)
            .is_some_and(|it| it.ends_with(&remote))
    })?;
    let ticks = found.nth(5)?.strip_prefix("02:")?;
    Some(u32::from_str_radix(ticks, 16).ok()? / 100)
}

/// No API can renew a lease while Postgres is away. When Postgres is back, a worker's sweeper may
/// be the first to reach it.
#[tokio::test]
async fn uploads_outlive_an_outage_of_postgres_that_is_longer_than_their_lease() -> Result<()> {
    const OUTAGE: Duration = Duration::from_secs(12);
    let mut postgres = Postgres::start().await?;
    let scope = Scope::new().await?.with_postgres(&postgres).await?;
    let scope = scope
        .with("CARGA_LEASE_SECS", "5")
        .with("CARGA_HEARTBEAT_MS", "500")
        .with("CARGA_SWEEP_MS", "1000");
    let app = App::start(scope, 3).await?;
    let ids: Vec<Uuid> = (0..6).map(|_| Uuid::now_v7()).collect();
    let file = flights().await?;
    // Long enough to be received during the whole outage.
    let rate = file.len() / 30;
    let sending: Vec<_> = ids
        .iter()
        .map(|id| app.start_sending(*id, paced(file.clone(), rate)))
        .collect();
    for id in &ids {
        app.wait_for_more_batches(*id, 1).await?;
    }
    postgres.kill()?;
    tokio::time::sleep(OUTAGE).await;
    postgres.restart().await?;
    for sent in sending {
        let answer = sent.await??;
        ensure!(answer.status() == 202, "{}", answer.text().await?);
    }
    for id in ids {
        let upload = app.expect_completed(id, FLIGHTS_ROWS).await;
        upload.with_context(|| format!("{id} did not survive"))?;
    }
    app.close().await
}
