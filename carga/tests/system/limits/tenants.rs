//! How much a tenant may upload.

use anyhow::{Context, Result, ensure};
use carga_testkit::eventually;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use super::{header, limited_app};
use crate::access::{get, key_of, request, send};
use crate::answers::problem;
use crate::app::{App, KNOWN_DIALECT, Sending, TIMEOUT};
use crate::files::{csv, paced};
use crate::harness::Mode;

in_both_modes! {
    a_tenant_sends_at_most_as_many_uploads_at_once_as_it_has_slots,
    a_file_without_a_slot_leaves_its_idempotency_key_free,
    a_file_without_a_slot_does_not_count_for_its_token,
    a_killed_process_keeps_no_slot,
    the_bytes_of_a_tenant_are_limited_per_day,
    the_rows_of_a_tenant_are_limited_per_day,
    rejected_rows_alone_use_up_the_quota_of_rows,
}

const SCOPES: [&str; 2] = ["read", "upload"];

/// Sends a file for some seconds in the background. Returns when its upload exists.
async fn start_sending(app: &App, key: &str, id: Uuid) -> Result<Sending> {
    let path = format!("/uploads/{id}?{KNOWN_DIALECT}");
    let put = request(app, Method::PUT, &path, Some(key)).header("content-type", "text/csv");
    let sending = tokio::spawn(put.body(paced(csv(3000), 20_000)).send());
    let path = format!("/uploads/{id}");
    eventually(TIMEOUT, "the upload to exist", async || {
        let answer = get(app, &path, Some(key)).await;
        answer.is_ok_and(|answer| answer.status() == 200)
    })
    .await?;
    Ok(sending)
}

async fn send_new(app: &App, key: &str, file: &str) -> Result<Response> {
    send(app, key, Uuid::now_v7(), "", file.to_owned()).await
}

/// Fails unless the answer is this refusal, which names the setting and when to retry.
async fn expect_refused(answer: Response, code: &str, setting: &str) -> Result<Value> {
    let retry_secs: u64 = header(&answer, "retry-after")?.parse()?;
    ensure!((1..=24 * 3600).contains(&retry_secs), "{retry_secs}");
    let refused = problem(answer, 429, code).await?;
    let detail = refused["detail"].as_str().context("no detail")?;
    ensure!(detail.contains(setting), "{refused}");
    Ok(refused)
}

async fn a_tenant_sends_at_most_as_many_uploads_at_once_as_it_has_slots(mode: Mode) -> Result<()> {
    const SETTING: &str = "CARGA_TENANT_MAX_UPLOADS";
    let app = limited_app(mode, 1, &[(SETTING, "1")]).await?;
    let one = key_of(&app, "acme", &SCOPES).await?;
    let other = key_of(&app, "globex", &SCOPES).await?;
    let sending = start_sending(&app, &one, Uuid::now_v7()).await?;
    let refused = send_new(&app, &one, &csv(10)).await?;
    let refused = expect_refused(refused, "too_many_uploads", SETTING).await?;
    ensure!(refused["limit"] == 1, "{refused}");
    ensure!(send_new(&app, &other, &csv(10)).await?.status() == 202);
    ensure!(sending.await??.status() == 202);
    ensure!(send_new(&app, &one, &csv(10)).await?.status() == 202);
    app.close().await
}

async fn a_file_without_a_slot_leaves_its_idempotency_key_free(mode: Mode) -> Result<()> {
    const SETTING: &str = "CARGA_TENANT_MAX_UPLOADS";
    let app = limited_app(mode, 1, &[(SETTING, "1")]).await?;
    let key = key_of(&app, "acme", &SCOPES).await?;
    let post = async || {
        let path = format!("/uploads?{KNOWN_DIALECT}");
        let post = request(&app, Method::POST, &path, Some(&key));
        let post = post.header("idempotency-key", "one");
        let post = post.header("content-type", "text/csv").body(csv(10));
        post.send().await
    };
    let sending = start_sending(&app, &key, Uuid::now_v7()).await?;
    expect_refused(post().await?, "too_many_uploads", SETTING).await?;
    ensure!(sending.await??.status() == 202);
    let first = post().await?;
    ensure!(first.status() == 202 && header(&first, "idempotency-replayed").is_err());
    let repeated = post().await?;
    ensure!(repeated.status() == 202 && header(&repeated, "idempotency-replayed")? == "true");
    app.close().await
}

async fn a_file_without_a_slot_does_not_count_for_its_token(mode: Mode) -> Result<()> {
    let app = limited_app(mode, 1, &[("CARGA_TENANT_MAX_UPLOADS", "1")]).await?;
    let key = key_of(&app, "acme", &SCOPES).await?;
    let post = request(&app, Method::POST, "/tokens", Some(&key));
    let post = post.json(&json!({ "scopes": ["upload"], "max_uploads": 1 }));
    let made: Value = post.send().await?.json().await?;
    let token = made["token"].as_str().context("no token")?;
    // The slot is free until the body of this request is read, and taken when its upload begins.
    let (id, file) = (Uuid::now_v7(), csv(10));
    let mut connection = app.connect().await?;
    let head = format!(
        "PUT /uploads/{id}?{KNOWN_DIALECT} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {token}\r\n\
         content-type: text/csv\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\
         connection: close\r\n\r\n",
        file.len()
    );
    connection.write_all(head.as_bytes()).await?;
    let mut proceed = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    tokio::time::timeout(TIMEOUT, connection.read_exact(&mut proceed)).await??;
    ensure!(proceed.starts_with(b"HTTP/1.1 100 "));
    let sending = start_sending(&app, &key, Uuid::now_v7()).await?;
    connection.write_all(file.as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(TIMEOUT, connection.read_to_string(&mut answer)).await??;
    ensure!(
        answer.starts_with("HTTP/1.1 429") && answer.contains("too_many_uploads"),
        "{answer}"
    );
    ensure!(sending.await??.status() == 202);
    ensure!(send_new(&app, token, &file).await?.status() == 202);
    let used_up = send_new(&app, token, &file).await?;
    problem(used_up, 403, "token_used_up").await?;
    app.close().await
}

async fn a_killed_process_keeps_no_slot(mode: Mode) -> Result<()> {
    let settings = [
        ("CARGA_TENANT_MAX_UPLOADS", "1"),
        ("CARGA_LEASE_SECS", "3"),
        ("CARGA_SWEEP_MS", "500"),
    ];
    let mut app = limited_app(mode, 0, &settings).await?;
    let key = key_of(&app, "acme", &SCOPES).await?;
    let sending = start_sending(&app, &key, Uuid::now_v7()).await?;
    app.api.kill9()?;
    ensure!(sending.await?.is_err());
    app.restart().await?;
    eventually(TIMEOUT, "the slot to be free", async || {
        let answer = send_new(&app, &key, &csv(10)).await;
        answer.is_ok_and(|answer| answer.status() == 202)
    })
    .await?;
    app.close().await
}

/// Sends a file without its length. Fails unless the upload fails with `quota_exceeded`.
async fn send_too_much(app: &App, key: &str, file: &str, setting: &str) -> Result<()> {
    let id = Uuid::now_v7();
    // In small pieces, so that the upload exists before the file exceeds the quota.
    let body = paced(file.to_owned(), 200_000);
    let answer = send(app, key, id, "", body).await?;
    expect_refused(answer, "quota_exceeded", setting).await?;
    let failed: Value = get(app, &format!("/uploads/{id}"), Some(key))
        .await?
        .json()
        .await?;
    ensure!(failed["status"] == "failed", "{failed}");
    ensure!(failed["error"]["code"] == "quota_exceeded", "{failed}");
    // What has arrived counts, so nothing is left.
    let next = send_new(app, key, &csv(1)).await?;
    let next = expect_refused(next, "quota_exceeded", setting).await?;
    ensure!(next["detail"].to_string().contains(" 0 of them"), "{next}");
    Ok(())
}

async fn the_bytes_of_a_tenant_are_limited_per_day(mode: Mode) -> Result<()> {
    const SETTING: &str = "CARGA_TENANT_MAX_BYTES_PER_DAY";
    const LIMIT: usize = 420_000;
    // Carga may receive this many bytes before the upload exists: 64 KiB to examine, and a piece of
    // up to 64 KiB that goes beyond them.
    const BEFORE_THE_UPLOAD: usize = 128 << 10;
    let app = limited_app(mode, 1, &[(SETTING, &LIMIT.to_string())]).await?;
    let one = key_of(&app, "acme", &SCOPES).await?;
    let other = key_of(&app, "globex", &SCOPES).await?;
    let file = csv(6000);
    let is_left = LIMIT.saturating_sub(file.len());
    ensure!(
        is_left > BEFORE_THE_UPLOAD && file.len() > is_left,
        "{}",
        file.len()
    );
    ensure!(send_new(&app, &one, &file).await?.status() == 202);
    // The declared length is enough to refuse the file, and nothing of it counts.
    let id = Uuid::now_v7();
    let refused = send(&app, &one, id, "", file.clone()).await?;
    let refused = expect_refused(refused, "quota_exceeded", SETTING).await?;
    let left = format!(" {is_left} of them");
    ensure!(refused["detail"].to_string().contains(&left), "{refused}");
    ensure!(refused["limit"] == LIMIT, "{refused}");
    let missing = get(&app, &format!("/uploads/{id}"), Some(&one)).await?;
    problem(missing, 404, "upload_not_found").await?;

    send_too_much(&app, &one, &file, SETTING).await?;
    ensure!(send_new(&app, &other, &file).await?.status() == 202);
    app.close().await
}

async fn the_rows_of_a_tenant_are_limited_per_day(mode: Mode) -> Result<()> {
    const SETTING: &str = "CARGA_TENANT_MAX_ROWS_PER_DAY";
    let app = limited_app(mode, 1, &[(SETTING, "2500")]).await?;
    let one = key_of(&app, "acme", &SCOPES).await?;
    let other = key_of(&app, "globex", &SCOPES).await?;
    ensure!(send_new(&app, &one, &csv(2000)).await?.status() == 202);
    send_too_much(&app, &one, &csv(2000), SETTING).await?;
    ensure!(send_new(&app, &other, &csv(2500)).await?.status() == 202);
    app.close().await
}

async fn rejected_rows_alone_use_up_the_quota_of_rows(mode: Mode) -> Result<()> {
    const SETTING: &str = "CARGA_TENANT_MAX_ROWS_PER_DAY";
    let app = limited_app(mode, 1, &[(SETTING, "650")]).await?;
    let key = key_of(&app, "acme", &SCOPES).await?;
    // The first rows show that the table has two columns. They do not fill a batch.
    let file = ["a,b\n", &"1,2\n".repeat(600), &"1,2,3,4\n".repeat(5000)].concat();
    let id = Uuid::now_v7();
    let answer = send(&app, &key, id, "", file).await?;
    let refused = problem(answer, 429, "quota_exceeded").await?;
    ensure!(refused["detail"].to_string().contains(SETTING), "{refused}");
    let path = format!("/uploads/{id}");
    let failed: Value = get(&app, &path, Some(&key)).await?.json().await?;
    ensure!(failed["status"] == "failed", "{failed}");
    // The file is refused at the first row that is one too many, and not at its end.
    ensure!(failed["rows"]["read"] == 651, "{failed}");
    ensure!(failed["rows"]["rejected"] == 51, "{failed}");
    app.close().await
}
