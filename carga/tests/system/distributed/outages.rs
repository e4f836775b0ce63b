//! Postgres and S3 go away while batches are stored: workers wait for them, and no batch is
//! charged an attempt.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_testkit::{Postgres, S3, Scope};
use uuid::Uuid;

use crate::answers::problem;
use crate::app::App;
use crate::files::{FLIGHTS_ROWS, flights, paced};

/// How long a password or a key is invalid. It is longer than the pauses between all attempts of a
/// batch, 21 s in all.
const REVOKED: Duration = Duration::from_secs(40);

/// How long a killed archive is away: longer than the tries of one call.
const KILLED: Duration = Duration::from_secs(3);

fn one_batch_at_a_time(scope: Scope) -> Scope {
    scope
        .with("CARGA_GROUP_BATCHES", "1")
        .with("CARGA_STORE_SESSIONS", "1")
}

#[tokio::test]
async fn workers_wait_for_a_killed_postgres() -> Result<()> {
    let mut postgres = Postgres::start().await?;
    let scope = one_batch_at_a_time(Scope::new().await?.with_postgres(&postgres).await?);
    let mut app = App::start(scope, 0).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, flights().await?).await?.status() == 202);
    // Workers start only now, so that they are not done before Postgres is killed.
    app.add_worker().await?;
    app.add_worker().await?;
    app.wait_for_more_batches(id, 40).await?;
    postgres.kill()?;
    let (status, _) = app.get("/readyz").await?;
    ensure!(status == 503);
    let answer = app
        .client
        .get(format!("{}/uploads/{id}", app.url))
        .send()
        .await?;
    problem(answer, 503, "dependency_unavailable").await?;
    postgres.restart().await?;
    app.expect_completed(id, FLIGHTS_ROWS).await?;
    assert_no_batch_failed(&app);
    app.close().await
}

/// A password that has expired is not the fault of a batch.
#[tokio::test]
async fn workers_wait_until_their_database_role_may_log_in_again() -> Result<()> {
    let scope = one_batch_at_a_time(Scope::new().await?);
    let pool = scope.pool();
    let role = format!("role_{}", Uuid::new_v4().simple());
    let execute = async |sql: String| sqlx::query(&sql).execute(&pool).await;
    execute(format!(
        "CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'carga'"
    ))
    .await?;
    let url = scope.env()["DATABASE_URL"].clone();
    let (_, server) = url.split_once('@').context("the URL has no user")?;
    let scope = scope.with("DATABASE_URL", format!("postgres://{role}:carga@{server}"));
    let mut app = App::start(scope, 0).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, flights().await?).await?.status() == 202);
    app.add_worker().await?;
    app.wait_for_more_batches(id, 40).await?;
    execute(format!("ALTER ROLE {role} NOLOGIN")).await?;
    execute(format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
    ))
    .await?;
    tokio::time::sleep(REVOKED).await;
    execute(format!("ALTER ROLE {role} LOGIN")).await?;
    app.expect_completed(id, FLIGHTS_ROWS).await?;
    assert_no_batch_failed(&app);
    let is_for_the_operator =
        |line: &str| line.contains(" ERROR ") && line.contains("correct the credentials");
    let log = app.storing_process().log();
    ensure!(log.lines().any(is_for_the_operator), "{log}");
    app.close().await
}

#[tokio::test]
async fn workers_wait_for_a_killed_archive() -> Result<()> {
    let mut s3 = S3::start().await?;
    let restart = async |s3: &mut S3| s3.restart().await;
    wait_for_an_archive(&mut s3, S3::kill, KILLED, restart).await
}

/// A key that was revoked is not the fault of a batch either.
#[tokio::test]
async fn workers_wait_until_their_key_for_the_archive_is_valid_again() -> Result<()> {
    let revoke = |s3: &mut S3| {
        s3.revoke_key();
        Ok(())
    };
    let restore = async |s3: &mut S3| {
        s3.restore_key();
        Ok(())
    };
    wait_for_an_archive(&mut S3::start().await?, revoke, REVOKED, restore).await
}

/// Takes the archive away while a file is received, and gives it back some time after the file was
/// accepted.
async fn wait_for_an_archive(
    s3: &mut S3,
    take_away: impl FnOnce(&mut S3) -> Result<()>,
    away: Duration,
    give_back: impl AsyncFnOnce(&mut S3) -> Result<()>,
) -> Result<()> {
    let app = App::start(one_batch_at_a_time(Scope::new().await?.with_s3(s3)?), 2).await?;
    let id = Uuid::now_v7();
    let sending = app.start_sending(id, paced(flights().await?, 10_000_000));
    app.wait_for_more_batches(id, 40).await?;
    take_away(s3)?;
    // Receiving does not need the archive.
    ensure!(sending.await??.status() == 202);
    tokio::time::sleep(away).await;
    let upload = app.upload(id).await?.unwrap_or_default();
    ensure!(upload["status"] == "processing", "{upload}");
    give_back(s3).await?;
    app.expect_completed(id, FLIGHTS_ROWS).await?;
    assert_no_batch_failed(&app);
    app.close().await
}

fn assert_no_batch_failed(app: &App) {
    // One worker that met the outage is enough: the others may not have needed the server then.
    let logs: Vec<String> = app.workers.iter().map(|worker| worker.log()).collect();
    let met = logs
        .iter()
        .any(|log| log.contains("retrying after a pause"));
    assert!(met, "no worker met the outage:\n{logs:?}");
    for log in logs {
        assert!(
            !log.contains("a batch failed"),
            "an outage was charged to a batch:\n{log}"
        );
    }
}
