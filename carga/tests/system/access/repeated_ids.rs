//! The id of an upload that another key has sent.

use anyhow::{Result, ensure};
use reqwest::Response;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use super::{ADMIN, closed_app, key_of, key_with, send, send_accepted, wait_until_ended};
use crate::answers::{problem, sha256_hex};
use crate::app::{App, KNOWN_DIALECT};
use crate::harness::Mode;

in_both_modes! {
    a_used_id_is_answered_with_the_upload_only_to_a_key_that_may_read_it,
    an_id_that_another_key_uses_meanwhile_is_answered_without_a_status,
}

const FILE: &str = "a,b\n1,2\n";

/// Fails unless the answer says that the id is used, and nothing about the upload.
async fn expect_used(answer: Response) -> Result<()> {
    says_only_that_the_id_is_used(&problem(answer, 409, "id_used").await?)
}

fn says_only_that_the_id_is_used(refused: &Value) -> Result<()> {
    ensure!(refused["upload_status"].is_null(), "{refused}");
    let detail = refused["detail"].to_string();
    for status in ["receiving", "processing", "completed"] {
        ensure!(!detail.contains(status), "{refused}");
    }
    Ok(())
}

async fn a_used_id_is_answered_with_the_upload_only_to_a_key_that_may_read_it(
    mode: Mode,
) -> Result<()> {
    let app = closed_app(mode, 1).await?;
    let own = key_with(&app, "upload").await?;
    let reader = key_of(&app, "default", &["upload", "read"]).await?;
    let id = Uuid::now_v7();
    send_accepted(&app, &own, id, "", FILE).await?;
    wait_until_ended(&app, &own, id).await?;
    let with_digest = format!("&sha256={}", sha256_hex(FILE));
    for key in [own.as_str(), &reader, ADMIN] {
        let repeated = send(&app, key, id, &with_digest, FILE).await?;
        ensure!(repeated.status() == 200, "{}", repeated.text().await?);
        let upload: Value = repeated.json().await?;
        ensure!(upload["status"] == "completed", "{upload}");
        let refused = problem(send(&app, key, id, "", FILE).await?, 409, "id_used").await?;
        ensure!(refused["upload_status"] == "completed", "{refused}");
    }
    let other = key_with(&app, "upload").await?;
    let manager = key_of(&app, "default", &["upload", "manage"]).await?;
    for key in [&other, &manager] {
        expect_used(send(&app, key, id, &with_digest, FILE).await?).await?;
        expect_used(send(&app, key, id, "", FILE).await?).await?;
    }
    app.close().await
}

/// Sends the head of a `PUT` that has no body yet. Returns when Carga asks for the body, and has
/// therefore seen that the id is free.
async fn begin_put(app: &App, key: &str, id: Uuid) -> Result<tokio::net::TcpStream> {
    let mut stream = app.connect().await?;
    let head = format!(
        "PUT /uploads/{id}?{KNOWN_DIALECT} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\ncontent-type: text/csv\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        FILE.len()
    );
    stream.write_all(head.as_bytes()).await?;
    const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    let mut asked = vec![0; CONTINUE.len()];
    stream.read_exact(&mut asked).await?;
    ensure!(asked == CONTINUE.as_bytes(), "{asked:?}");
    Ok(stream)
}

async fn an_id_that_another_key_uses_meanwhile_is_answered_without_a_status(
    mode: Mode,
) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let own = key_with(&app, "upload").await?;
    let other = key_with(&app, "upload").await?;
    let reader = key_of(&app, "default", &["upload", "read"]).await?;
    let id = Uuid::now_v7();
    let mut late = begin_put(&app, &other, id).await?;
    let mut reading = begin_put(&app, &reader, id).await?;
    send_accepted(&app, &own, id, "", FILE).await?;
    for (stream, may_read) in [(&mut late, false), (&mut reading, true)] {
        stream.write_all(FILE.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(answer.starts_with("HTTP/1.1 409"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let refused: Value = serde_json::from_str(body)?;
        ensure!(refused["code"] == "id_used", "{refused}");
        match may_read {
            true => ensure!(refused["upload_status"].is_string(), "{refused}"),
            false => says_only_that_the_id_is_used(&refused)?,
        }
    }
    app.close().await
}
