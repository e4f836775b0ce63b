//! A full disk: new uploads are refused with 507, accepted ones wait for room, and no data is
//! damaged.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use carga_testkit::{Binary, DataDir, SmallDisk, command, eventually, fixtures};
use futures::stream;
use serde_json::Value;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::answers::problem;
use crate::app::{App, TIMEOUT};
use crate::files::{self, concatenated, csv};

/// Disk space that a test occupies and frees again, in mebibytes.
const BALLAST: usize = 24;

#[tokio::test]
async fn a_full_disk_is_answered_with_507_and_uploads_work_once_there_is_room() -> Result<()> {
    let disk = SmallDisk::mount(72)?;
    let directory = DataDir::on(&disk)
        .with("CARGA_LEASE_SECS", "3")
        .with("CARGA_SWEEP_MS", "500")
        .with("CARGA_ARCHIVE_GRACE_SECS", "1");
    let app = App::start(directory, 0).await?;
    let before = Uuid::now_v7();
    ensure!(app.put(before, csv(2000)).await?.status() == 202);
    app.expect_completed(before, 2000).await?;

    disk.occupy(BALLAST)?;
    let refused = Uuid::now_v7();
    let flights = fixtures::flights()?;
    let sent = app.curl(refused, move |mut input| {
        std::io::copy(&mut std::fs::File::open(flights)?, &mut input).map(drop)
    });
    let (status, problem) = sent.await?;
    ensure!(status == 507, "{status}: {problem}");
    ensure!(problem["code"] == "storage_full", "{problem}");
    ensure!(problem["upload"] == refused.to_string(), "{problem}");
    let alive = app.client.get(format!("{}/livez", app.url)).send().await?;
    ensure!(alive.status() == 200);

    disk.make_room()?;
    let upload = app.wait_until_ended(refused).await?;
    ensure!(upload["status"] == "failed", "{upload}");
    // If the disk had no room to record the failure, the upload ended when its lease expired.
    let code = upload["error"]["code"].as_str().context("no code")?;
    ensure!(matches!(code, "storage_full" | "interrupted"), "{upload}");
    app.wait_until_cleaned(refused).await?;
    eventually(TIMEOUT, "its archive to be deleted", async || {
        let objects = app.harness.objects().await.unwrap_or_default();
        let of_it = |key: &String| key.contains(&refused.to_string());
        !objects.is_empty() && !objects.iter().any(of_it)
    })
    .await?;

    let after = Uuid::now_v7();
    ensure!(app.put(after, csv(3000)).await?.status() == 202);
    app.expect_completed(after, 3000).await?;
    app.harness
        .check_rows(before, &files::read(csv(2000).as_bytes())?.1)
        .await?;
    check_intact(&app).await?;
    app.close().await
}

#[tokio::test]
async fn an_accepted_upload_waits_for_room_and_is_then_stored_exactly() -> Result<()> {
    const ROWS: i64 = 60_000;
    let disk = SmallDisk::mount(64)?;
    // Many batches, stored one at a time, so that the disk is full before the last one.
    let directory = DataDir::on(&disk)
        .with("CARGA_BATCH_ROWS", "250")
        .with("CARGA_GROUP_BATCHES", "1")
        .with("CARGA_STORE_SESSIONS", "1")
        .with("CARGA_PREFETCH", "1")
        .with("CARGA_LEASE_SECS", "3")
        .with("CARGA_SWEEP_MS", "500");
    let mut app = App::start(directory, 0).await?;
    let file = csv(ROWS as usize);
    let id = Uuid::now_v7();
    ensure!(app.put(id, file.clone()).await?.status() == 202);
    disk.fill()?;
    app.api
        .wait_for_log("failed: no room left", TIMEOUT)
        .await?;
    let upload = app.upload(id).await?.context("no upload")?;
    ensure!(
        upload["status"] == "processing",
        "the disk was filled too late: {upload}"
    );
    // A new upload is refused meanwhile. Its record may still have fitted into the write-ahead log.
    let other = Uuid::now_v7();
    problem(app.put(other, csv(10)).await?, 507, "storage_full").await?;

    disk.make_room()?;
    let upload = app.expect_completed(id, ROWS).await?;
    ensure!(upload["batches"]["dead"] == 0, "{upload}");
    if app.upload(other).await?.is_some() {
        ensure!(app.wait_until_ended(other).await?["status"] == "failed");
        app.wait_until_cleaned(other).await?;
    }
    app.harness
        .check_rows(id, &files::read(file.as_bytes())?.1)
        .await?;
    check_intact(&app).await?;
    app.close().await
}

/// The upload's heartbeat cannot be written, so its lease expires and its batches are fenced. Even
/// if the client then sends the rest, the upload must fail, because it would wait for those batches
/// forever.
#[tokio::test]
async fn an_upload_whose_lease_expires_on_a_full_disk_fails_even_if_it_continues() -> Result<()> {
    let disk = SmallDisk::mount(48)?;
    let directory = DataDir::on(&disk)
        .with("CARGA_LEASE_SECS", "2")
        .with("CARGA_SWEEP_MS", "250");
    let mut app = App::start(directory, 0).await?;
    let file = Bytes::from(csv(5000));
    let (part, rest) = (file.slice(..file.len() / 2), file.slice(file.len() / 2..));
    let (resume, resumed) = oneshot::channel::<()>();
    let rest = async move {
        let _ = resumed.await;
        Ok(rest)
    };
    let id = Uuid::now_v7();
    let body = concatenated(stream::iter([Ok(part)]), stream::once(rest));
    let sending = app.start_sending(id, body);
    app.wait_for_more_batches(id, 1).await?;

    disk.fill()?;
    let log_line = "ending an interrupted upload";
    app.api.wait_for_log(log_line, TIMEOUT).await?;
    let upload = app.upload(id).await?.context("no upload")?;
    ensure!(
        upload["status"] == "receiving",
        "the failure was recorded although the disk is full: {upload}"
    );
    disk.make_room()?;
    // The upload may end before or after its last byte, but it must end.
    let _ = resume.send(());
    problem(sending.await??, 422, "interrupted").await?;
    app.expect_failed(id, "interrupted").await?;

    let after = Uuid::now_v7();
    ensure!(app.put(after, file).await?.status() == 202);
    app.expect_completed(after, 5000).await?;
    check_intact(&app).await?;
    app.close().await
}

#[test]
fn an_import_without_room_exits_with_1_and_works_once_there_is_room() -> Result<()> {
    let disk = SmallDisk::mount(48)?;
    let directory = DataDir::on(&disk);
    let carga = |arguments: &[&str]| -> Result<_> {
        let mut command = command(Binary::Carga)?;
        Ok(command.args(arguments).envs(directory.env()).output()?)
    };
    disk.occupy(BALLAST)?;
    let file = fixtures::flights()?;
    let file = file.to_str().context("no text")?;
    let output = carga(&["import", file])?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let stderr = String::from_utf8(output.stderr)?;
    ensure!(
        stderr.contains("storage_full") && stderr.contains("make room"),
        "{stderr}"
    );

    disk.make_room()?;
    let small = disk.path().join("small.csv");
    std::fs::write(&small, csv(2000))?;
    let output = carga(&["import", small.to_str().context("no text")?])?;
    ensure!(output.status.success(), "{output:?}");
    let upload: Value = serde_json::from_slice(&carga(&["status", "last"])?.stdout)?;
    ensure!(
        upload["status"] == "completed" && upload["rows"]["inserted"] == 2000,
        "{upload}"
    );
    let listed = String::from_utf8(carga(&["status"])?.stdout)?;
    let of_flights = listed.lines().find(|line| line.ends_with("flights.csv"));
    ensure!(
        of_flights.is_some_and(|line| line.contains("failed")),
        "{listed}"
    );
    Ok(())
}

/// Fails unless there are no dead letters, the queue becomes empty and every database is intact.
async fn check_intact(app: &App) -> Result<()> {
    let directory = app.harness.directory()?;
    let count = async |database: &str, sql: &'static str| -> Result<i64> {
        use sqlx::Connection;
        let mut connection = directory.open(database).await?;
        let counted = sqlx::query_as(sql).fetch_one(&mut connection).await;
        connection.close().await?;
        let (count,) = counted?;
        Ok(count)
    };
    ensure!(count("carga.db", "SELECT count(*) FROM parked_batches").await? == 0);
    eventually(
        Duration::from_secs(60),
        "the queue to be empty",
        async || {
            count("queue.db", "SELECT count(*) FROM messages")
                .await
                .is_ok_and(|left| left == 0)
        },
    )
    .await?;
    directory.check_integrity().await
}
