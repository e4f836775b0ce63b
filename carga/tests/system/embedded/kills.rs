//! `kill -9`, repeated in one data directory, so that damage would accumulate.

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use carga_testkit::{DataDir, eventually};
use futures::stream;
use serde_json::Value;
use sqlx::Connection;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::app::{App, Sending, TIMEOUT};
use crate::files::{self, FLIGHTS_ROWS, concatenated, flights, paced, paced_pieces};

/// When to kill.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// More than this many batches are stored, and the file is still being sent.
    Sending(i64),
    /// The client has written its last byte.
    LastByte,
    /// The upload has just become `processing`; the client may or may not have its answer.
    Sealed,
    /// The client has its 202, and this many fifths of the remaining batches are stored.
    Answered(i64),
}

/// Small batches, few prefetched and one per transaction, so that a kill interrupts storing.
const SLOW_STORING: [(&str, &str); 4] = [
    ("CARGA_BATCH_ROWS", "250"),
    ("CARGA_GROUP_BATCHES", "1"),
    ("CARGA_STORE_SESSIONS", "1"),
    ("CARGA_PREFETCH", "2"),
];
/// Batches of the flights file with these settings; the last one is not full.
const BATCHES: i64 = FLIGHTS_ROWS / 250 + 1;

const MOMENTS: [Moment; 12] = [
    Moment::Answered(0),
    Moment::Sending(0),
    Moment::Answered(1),
    Moment::Sending(10),
    Moment::LastByte,
    Moment::Answered(2),
    Moment::Sending(30),
    Moment::Answered(3),
    Moment::Sealed,
    Moment::Sending(60),
    Moment::Answered(4),
    Moment::Sending(90),
];

#[tokio::test]
async fn a_kill_at_any_moment_loses_no_accepted_upload_and_duplicates_no_row() -> Result<()> {
    let mut app = App::start(DataDir::new()?, 0).await?;
    let file = flights().await?;
    let (mut completed, mut failed) = (Vec::new(), Vec::new());
    let mut redelivered = false;
    for moment in MOMENTS {
        // Kill an idle process too.
        app.api.kill9()?;
        app.restart_with(&SLOW_STORING).await?;
        let id = Uuid::now_v7();
        let answered = send_and_kill(&mut app, id, &file, moment).await?;
        app.restart().await?;
        let upload = app.wait_until_ended(id).await?;
        match (moment, upload["status"].as_str()) {
            (Moment::LastByte | Moment::Sending(_), Some("failed")) if !answered => {
                app.expect_failed(id, "interrupted").await?;
                failed.push(id);
            }
            (Moment::LastByte | Moment::Sealed | Moment::Answered(_), Some("completed")) => {
                app.expect_completed(id, FLIGHTS_ROWS).await?;
                completed.push(id);
            }
            _ => bail!("killed at {moment:?} (answered: {answered}), the upload ended as {upload}"),
        }
        redelivered |= app.api.log().contains("redelivered=true");
    }
    ensure!(
        redelivered,
        "no batch was redelivered, so the test proved nothing"
    );
    check_consistency(&app, &file, &completed, &failed).await?;
    app.close().await
}

/// Sends the file, kills Carga at the given moment, and returns whether the client has its 202.
async fn send_and_kill(app: &mut App, id: Uuid, file: &Bytes, moment: Moment) -> Result<bool> {
    match moment {
        Moment::Sending(batches) => {
            let sending = app.start_sending(id, paced(file.clone(), 3_000_000));
            app.wait_for_more_batches(id, batches).await?;
            ensure!(!sending.is_finished(), "{moment:?} was too late");
            app.api.kill9()?;
            was_accepted(sending).await
        }
        Moment::LastByte => {
            let (send_signal, signal) = oneshot::channel();
            let end = stream::once(async {
                let _ = send_signal.send(());
                Ok(Bytes::new())
            });
            let all = paced_pieces(file.clone(), 200_000_000);
            let sending = app.start_sending(id, concatenated(all, end));
            signal.await?;
            app.api.kill9()?;
            was_accepted(sending).await
        }
        Moment::Sealed => {
            let sending = app.start_sending(id, file.clone());
            tokio::time::timeout(TIMEOUT, wait_until_sealed(app.harness.directory()?, id))
                .await??;
            app.api.kill9()?;
            was_accepted(sending).await
        }
        Moment::Answered(fifths) => {
            ensure!(app.put(id, file.clone()).await?.status() == 202);
            let stored = app.harness.count_batches(id).await?;
            let left = BATCHES - stored;
            app.wait_for_more_batches(id, stored - 1 + left * fifths / 5)
                .await?;
            app.api.kill9()?;
            let log = app.api.log();
            let is_end =
                |line: &str| line.contains("upload completed") && line.contains(&id.to_string());
            ensure!(!log.lines().any(is_end), "{moment:?} was too late");
            Ok(true)
        }
    }
}

/// Polls without a pause, because the answer follows the seal immediately.
async fn wait_until_sealed(directory: &DataDir, id: Uuid) -> Result<()> {
    let mut carga = directory.open("carga.db").await?;
    let sealed = "SELECT 1 FROM uploads WHERE id = $1 AND status = 'processing'";
    while sqlx::query(sealed)
        .bind(id.to_string())
        .fetch_optional(&mut carga)
        .await?
        .is_none()
    {}
    Ok(carga.close().await?)
}

async fn was_accepted(sending: Sending) -> Result<bool> {
    Ok(sending.await?.is_ok_and(|answer| answer.status() == 202))
}

/// Fails unless list, view, table and archive agree on the uploads, each completed upload
/// equals the file, and the queue becomes empty.
async fn check_consistency(
    app: &App,
    file: &[u8],
    completed: &[Uuid],
    failed: &[Uuid],
) -> Result<()> {
    let (_, list) = app.get("/uploads?limit=100").await?;
    let mut listed: Vec<(String, String)> = Vec::new();
    for upload in list["uploads"].as_array().into_iter().flatten() {
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        listed.push((text(&upload["id"]), text(&upload["status"])));
    }
    listed.sort();
    let ended = |ids: &[Uuid], status: &str| -> Vec<(String, String)> {
        let one = |id: &Uuid| (id.to_string(), status.to_owned());
        ids.iter().map(one).collect()
    };
    let mut expected = [ended(completed, "completed"), ended(failed, "failed")].concat();
    expected.sort();
    ensure!(listed == expected, "{listed:?}");

    let directory = app.harness.directory()?;
    let mut carga = directory.open("carga.db").await?;
    let shown: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT upload_id, count(*) AS rows, count(DISTINCT row_number) AS different
         FROM upload_rows GROUP BY upload_id ORDER BY upload_id",
    )
    .fetch_all(&mut carga)
    .await?;
    let whole = shown
        .iter()
        .all(|(_, rows, different)| (*rows, *different) == (FLIGHTS_ROWS, FLIGHTS_ROWS));
    let ids = shown.iter().map(|(upload_id, ..)| upload_id.clone());
    ensure!(whole && ids.eq(completed.iter().map(Uuid::to_string)));
    // Compare the first upload with the file cell by cell, and the other uploads with the first.
    let first = completed[0];
    app.harness.check_rows(first, &files::read(file)?.1).await?;
    let (all, like_the_first): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(first.id)
         FROM rows LEFT JOIN rows first ON first.fields = rows.fields
           AND first.id = ((SELECT number FROM uploads WHERE id = $1) << 36) + rows.row_number",
    )
    .bind(first.to_string())
    .fetch_one(&mut carga)
    .await?;
    let total = FLIGHTS_ROWS * completed.len() as i64;
    ensure!(
        (all, like_the_first) == (total, total),
        "expected {total} correct rows, found {all} rows, {like_the_first} of them correct"
    );
    carga.close().await?;

    // The worker also discards the batches of failed uploads.
    eventually(TIMEOUT, "the queue to be empty", async || {
        messages(directory)
            .await
            .is_ok_and(|messages| messages == 0)
    })
    .await?;
    let objects = directory.objects()?;
    for id in completed {
        let of_upload = objects.iter().filter(|key| key.contains(&id.to_string()));
        ensure!(of_upload.count() as i64 == BATCHES + 1);
    }
    let manifests = objects.iter().filter(|key| key.ends_with("manifest.json"));
    ensure!(manifests.count() == completed.len());
    directory.check_integrity().await
}

async fn messages(directory: &DataDir) -> Result<i64> {
    let mut queue = directory.open("queue.db").await?;
    let counted =
        sqlx::query_as("SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM bodies)");
    let (messages,) = counted.fetch_one(&mut queue).await?;
    queue.close().await?;
    Ok(messages)
}
