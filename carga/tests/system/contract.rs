//! The HTTP contract apart from file contents: ids, lists, limits, timeouts and health.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use crate::answers::{problem, sha256_hex};
use crate::app::{App, KNOWN_DIALECT};
use crate::files::{csv, paced};
use crate::harness::Mode;

in_both_modes! {
    a_used_id_is_accepted_again_only_for_the_same_file,
    uploads_are_listed_newest_first_in_pages_and_by_status,
    an_upload_over_the_concurrency_limit_is_refused_before_its_body_is_read,
    a_client_that_hardly_sends_does_not_keep_others_out,
    a_client_that_stalls_in_its_head_or_body_is_disconnected,
    health_names_every_dependency,
}

async fn a_used_id_is_accepted_again_only_for_the_same_file(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let (id, file) = (Uuid::new_v4(), csv(2000));
    let digest = sha256_hex(&file);
    let url = format!("{}/uploads/{id}", app.url);
    let put = |query: String| {
        app.client
            .put(format!("{url}{query}"))
            .header("content-type", "text/csv")
    };

    let sending = tokio::spawn(put(String::new()).body(paced(file.clone(), 60_000)).send());
    app.wait_until_begun(id).await?;
    let refused = problem(
        put(format!("?sha256={digest}"))
            .body(file.clone())
            .send()
            .await?,
        409,
        "id_used",
    )
    .await?;
    ensure!(refused["upload_status"] == "receiving", "{refused}");
    ensure!(sending.await??.status() == 202);
    app.expect_completed(id, 2000).await?;

    let again = put(format!("?sha256={digest}"))
        .body(file.clone())
        .send()
        .await?;
    ensure!(again.status() == 200);
    let again: Value = again.json().await?;
    ensure!(
        again["id"] == id.to_string() && again["status"] == "completed",
        "{again}"
    );
    let refused = problem(
        put(String::new()).body(file.clone()).send().await?,
        409,
        "id_used",
    )
    .await?;
    ensure!(refused["upload_status"] == "completed", "{refused}");
    let other = put(format!("?sha256={}", "00".repeat(32)))
        .body(file)
        .send()
        .await?;
    problem(other, 409, "id_used").await?;
    ensure!(app.harness.count_rows(id).await?.0 == 2000);
    app.close().await
}

async fn uploads_are_listed_newest_first_in_pages_and_by_status(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let mut ids = Vec::new();
    for number in 0..7 {
        let id = Uuid::now_v7();
        let file = if number % 3 == 2 {
            "a,b\n1\n1,2\n"
        } else {
            "a,b\n1,2\n"
        };
        app.put(id, file).await?;
        app.wait_until_ended(id).await?;
        ids.insert(0, id.to_string());
    }
    let mut listed: Vec<String> = Vec::new();
    let mut path = "/uploads?limit=3".to_owned();
    loop {
        let (status, page) = app.get(&path).await?;
        ensure!(status == 200, "{page}");
        let uploads = page["uploads"].as_array().context("no uploads")?;
        listed.extend(
            uploads
                .iter()
                .filter_map(|upload| Some(upload["id"].as_str()?.to_owned())),
        );
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        ensure!(uploads.len() == 3);
        path = format!("/uploads?limit=3&cursor={cursor}");
    }
    ensure!(listed == ids, "{listed:?} instead of {ids:?}");
    let (_, partial) = app.get("/uploads?status=partial").await?;
    ensure!(
        partial["uploads"]
            .as_array()
            .is_some_and(|uploads| uploads.len() == 2),
        "{partial}"
    );

    for (path, code) in [
        ("/uploads?order=asc", "unknown_option"),
        ("/uploads?limit=0", "malformed_option"),
        ("/uploads?limit=101", "malformed_option"),
        ("/uploads?status=done", "malformed_option"),
        ("/uploads?cursor=nonsense", "malformed_option"),
        ("/uploads/nonsense", "malformed_id"),
    ] {
        let answer = app.client.get(format!("{}{path}", app.url)).send().await?;
        problem(answer, 400, code).await?;
    }
    let answer = app
        .client
        .get(format!("{}/uploads/{}", app.url, Uuid::now_v7()))
        .send()
        .await?;
    problem(answer, 404, "upload_not_found").await?;
    let answer = app
        .client
        .delete(format!("{}/uploads", app.url))
        .send()
        .await?;
    problem(answer, 405, "method_not_allowed").await?;
    app.close().await
}

async fn an_upload_over_the_concurrency_limit_is_refused_before_its_body_is_read(
    mode: Mode,
) -> Result<()> {
    let app = App::start(mode.harness().await?.with("CARGA_MAX_UPLOADS", "1"), 1).await?;
    let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
    // The second upload waits for three seconds. The first one takes longer.
    let sending = app.start_sending(first, paced(csv(3000), 20_000));
    app.wait_until_begun(first).await?;
    let answer = app.put(second, csv(10)).await?;
    ensure!(answer.headers().contains_key("retry-after"));
    let refused = problem(answer, 429, "too_many_uploads").await?;
    ensure!(refused["limit"] == 1, "{refused}");
    ensure!(app.upload(second).await?.is_none());
    ensure!(sending.await??.status() == 202);
    ensure!(
        app.put(second, csv(10)).await?.status() == 202,
        "the first upload still counts against the limit"
    );
    app.expect_completed(second, 10).await?;
    app.close().await
}

async fn a_client_that_hardly_sends_does_not_keep_others_out(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?.with("CARGA_MAX_UPLOADS", "1"), 1).await?;
    let (slow, other) = (Uuid::now_v7(), Uuid::now_v7());
    let sending = app.start_sending(slow, paced(csv(3000), 50));
    app.wait_until_begun(slow).await?;
    let answer = app.put(other, csv(10)).await?;
    ensure!(answer.status() == 202, "{}", answer.text().await?);
    app.expect_completed(other, 10).await?;
    let refused = problem(sending.await??, 422, "body_timeout").await?;
    ensure!(
        refused["detail"].to_string().contains("CARGA_MAX_UPLOADS"),
        "{refused}"
    );
    app.expect_failed(slow, "body_timeout").await?;
    app.close().await
}

async fn a_client_that_stalls_in_its_head_or_body_is_disconnected(mode: Mode) -> Result<()> {
    let harness = mode
        .harness()
        .await?
        .with("CARGA_HEADER_TIMEOUT_SECS", "1")
        .with("CARGA_BODY_IDLE_SECS", "1");
    let app = App::start(harness, 1).await?;
    let mut slow = app.connect().await?;
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n")
        .await?;
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(10), slow.read_to_end(&mut answer)).await;
    ensure!(
        closed.is_ok(),
        "the connection of an unfinished head stays open"
    );

    let id = Uuid::now_v7();
    let mut silent = app.connect().await?;
    let head = format!(
        "PUT /uploads/{id}?{KNOWN_DIALECT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/csv\r\ncontent-length: 99\r\n\r\n{}",
        "a,b\n".repeat(20)
    );
    silent.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    let read =
        tokio::time::timeout(Duration::from_secs(10), silent.read_to_string(&mut answer)).await;
    ensure!(
        read.is_ok() && answer.starts_with("HTTP/1.1 422"),
        "{answer}"
    );
    app.expect_failed(id, "body_timeout").await?;
    app.close().await
}

async fn health_names_every_dependency(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let (status, ready) = app.get("/readyz").await?;
    let all = serde_json::json!({"store": "ok", "queue": "ok", "archive": "ok", "progress": "ok"});
    ensure!(
        status == 200 && ready["status"] == "ready" && ready["dependencies"] == all,
        "{ready}"
    );
    let live = app
        .client
        .get(format!("{}/livez", app.url))
        .header("x-request-id", "mine")
        .send()
        .await?;
    ensure!(live.status() == 200 && live.headers()["x-request-id"] == "mine");
    app.close().await
}
