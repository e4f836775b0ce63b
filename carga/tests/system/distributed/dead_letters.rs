//! Dead letters: messages that are not batches, and batches that cannot be stored.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use carga_common::batch::{BatchId, EncodedBatch};
use carga_common::queue::{BatchQueue, POSTPONEMENT, RabbitQueue, RabbitSettings};
use carga_common::settings::SecretUrl;
use carga_common::upload::UploadKey;
use carga_testkit::{Scope, eventually};
use sqlx::PgPool;
use uuid::Uuid;

use crate::app::{App, TIMEOUT};
use crate::files::{csv, paced};
use crate::harness::Harness;

#[tokio::test]
async fn an_invalid_message_is_parked_with_its_reason_and_the_worker_continues() -> Result<()> {
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let app = App::start(scope, 1).await?;
    let queue = queue(&app).await?;
    let unknown = Uuid::now_v7();
    let body = "this is no JSON";
    queue
        .publisher()
        .publish(&message(unknown, 1, body))
        .await?;
    let (kept_body, kept_reason) = parked(&pool, unknown, 1).await?;
    ensure!(
        kept_body == body.as_bytes() && kept_reason.contains("malformed"),
        "{kept_reason}"
    );
    let id = Uuid::now_v7();
    ensure!(app.put(id, csv(3000)).await?.status() == 202);
    app.expect_completed(id, 3000).await?;
    queue.close().await;
    app.close().await
}

#[tokio::test]
async fn a_message_of_a_newer_version_waits_and_does_not_fail_its_upload() -> Result<()> {
    let mut app = App::start(Scope::new().await?, 1).await?;
    let queue = queue(&app).await?;
    let id = Uuid::now_v7();
    let sending = app.start_sending(id, paced(csv(3000), 50_000));
    app.wait_until_begun(id).await?;
    let body = r#"{"v":7,"rows":"in another shape"}"#;
    queue.publisher().publish(&message(id, 900, body)).await?;
    let worker = app.storing_process();
    worker.wait_for_log("message version 7", TIMEOUT).await?;
    ensure!(sending.await??.status() == 202);
    let upload = app.expect_completed(id, 3000).await?;
    ensure!(upload["batches"]["dead"] == 0, "{upload}");
    queue.close().await;
    app.close().await
}

#[tokio::test]
async fn a_dead_letter_that_is_no_batch_of_the_file_does_not_change_its_upload() -> Result<()> {
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let app = App::start(scope, 2).await?;
    let queue = queue(&app).await?;
    let id = Uuid::now_v7();
    let sending = app.start_sending(id, paced(csv(10_000), 200_000));
    app.wait_for_more_batches(id, 1).await?;
    // Postgres cannot store this cell; the API would never publish it.
    let body = format!(
        r#"{{"v":2,"upload":"{id}","epoch":1,"seq":900,"trace":"","columns":["a"],"rows":[["\u0000"]],"runs":[[1,1]]}}"#
    );
    queue.publisher().publish(&message(id, 900, &body)).await?;
    let (_, reason) = parked(&pool, id, 900).await?;
    ensure!(reason.contains("0x00"), "{reason}");
    ensure!(sending.await??.status() == 202);
    let upload = app.expect_completed(id, 10_000).await?;
    ensure!(upload["batches"]["dead"] == 0, "{upload}");
    queue.close().await;
    app.close().await
}

#[tokio::test]
async fn a_batch_published_many_times_is_stored_once() -> Result<()> {
    let mut app = App::start(Scope::new().await?, 2).await?;
    let queue = queue(&app).await?;
    let id = Uuid::now_v7();
    let sending = app.start_sending(id, paced("a\n1\n2\n3\n4\n5\n6\n7\n8\n", 20));
    app.wait_until_begun(id).await?;
    // Publish batch 1 many times before the API publishes the same batch.
    let rows: Vec<String> = (1..=8).map(|row| format!(r#"["{row}"]"#)).collect();
    let body = format!(
        r#"{{"v":2,"upload":"{id}","epoch":1,"seq":1,"trace":"","columns":["a"],"rows":[{}],"runs":[[1,8]]}}"#,
        rows.join(",")
    );
    let batch = message(id, 1, &body);
    for _ in 0..20 {
        queue.publisher().publish(&batch).await?;
    }
    ensure!(sending.await??.status() == 202);
    app.expect_completed(id, 8).await?;
    for _ in 0..20 {
        queue.publisher().publish(&batch).await?;
    }
    let drained = async || queue.depth().await.is_ok_and(|depth| depth.ready == 0);
    // A worker that stops returns the deliveries that it has not begun, and the next worker takes
    // them. A delivery that is never settled is still there after the last worker.
    for _ in 0..5 {
        eventually(Duration::from_secs(30), "the queue to be empty", drained).await?;
        for mut worker in std::mem::take(&mut app.workers) {
            worker.terminate()?;
            worker.wait(Duration::from_secs(30)).await?;
        }
        if queue.depth().await?.ready == 0 {
            break;
        }
        app.add_worker().await?;
    }
    ensure!(queue.depth().await?.ready == 0);
    app.expect_completed(id, 8).await?;
    queue.close().await;
    app.close().await
}

/// The queue of the app's installation.
pub(super) async fn queue(app: &App) -> Result<RabbitQueue> {
    let Harness::Distributed(scope) = &app.harness else {
        bail!("only distributed mode has a broker");
    };
    let installed = sqlx::query_scalar("SELECT id FROM installation");
    let installation: Uuid = installed.fetch_one(&scope.pool()).await?;
    let env = app.harness.env();
    let settings = RabbitSettings {
        url: SecretUrl::new(env["AMQP_URL"].clone()),
        queue: env["CARGA_QUEUE"].clone(),
        program: "test".to_owned(),
        publish_timeout: Duration::from_secs(10),
        postponement: POSTPONEMENT,
        installation,
    };
    Ok(RabbitQueue::connect(settings).await?)
}

fn message(upload: Uuid, seq: u32, body: &str) -> EncodedBatch {
    EncodedBatch {
        id: BatchId {
            upload: UploadKey::first(upload.into()),
            seq,
        },
        rows: 1,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

async fn parked(pool: &PgPool, upload: Uuid, seq: i32) -> Result<(Vec<u8>, String)> {
    eventually(TIMEOUT, "the dead letter to be parked", async || {
        sqlx::query_as("SELECT body, reason FROM parked_batches WHERE upload_id = $1 AND seq = $2")
            .bind(upload)
            .bind(seq)
            .fetch_optional(pool)
            .await
            .ok()
            .flatten()
    })
    .await
}
