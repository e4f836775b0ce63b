//! A repeated request gets the first answer, unless the file or its options differ.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::RequestBuilder;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use uuid::Uuid;

use super::{accepted, listed, post};
use crate::answers::{problem, sha256_hex};
use crate::app::{App, KNOWN_DIALECT};
use crate::files::{csv, paced};
use crate::harness::Mode;

in_both_modes! {
    a_form_that_is_sent_again_with_another_boundary_gets_the_first_answer,
    another_file_with_the_same_key_is_refused,
    other_options_with_the_same_key_are_refused,
    a_file_whose_digest_is_announced_is_compared_without_its_body,
    curl_gets_the_first_answer_without_sending_a_large_file,
    a_file_that_a_client_sends_without_waiting_is_read_and_compared,
    a_slow_client_gets_its_answer_at_the_end_of_its_file,
    the_key_of_a_refused_file_is_free,
    a_key_stays_with_its_upload_after_an_undo,
    a_malformed_key_is_refused,
    calls_that_take_no_key_ignore_it,
}

const FILE: &str = "a,b\n1,2\n3,4\n";

/// A form with one option and the file, as curl sends it.
fn form(app: &App, key: &str, boundary: &str, file: &str) -> RequestBuilder {
    let option = "content-disposition: form-data; name=\"trim\"\r\n\r\ntrue";
    let head = "content-disposition: form-data; name=\"file\"; filename=\"x.csv\"\r\ncontent-type: text/csv";
    let body = format!(
        "--{boundary}\r\n{option}\r\n--{boundary}\r\n{head}\r\n\r\n{file}\r\n--{boundary}--\r\n"
    );
    let media_type = format!("multipart/form-data; boundary={boundary}");
    let post = app.client.post(format!("{}/uploads", app.url));
    let post = post.header("idempotency-key", key);
    post.header("content-type", media_type).body(body)
}

async fn a_form_that_is_sent_again_with_another_boundary_gets_the_first_answer(
    mode: Mode,
) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let file = csv(1200);
    let send = async |key: &str, boundary: &str| {
        accepted(form(&app, key, boundary, &file).send().await?).await
    };
    let (id, is_repeated) = send("a-1", "B").await?;
    ensure!(!is_repeated);
    // At once, and after the rows are stored.
    ensure!(send("a-1", "------------------------c1").await? == (id, true));
    app.expect_completed(id, 1200).await?;
    ensure!(send("\"a-1\"", "c2").await? == (id, true));
    ensure!(send("a-1", "B").await? == (id, true));
    app.expect_completed(id, 1200).await?;
    ensure!(listed(&app).await?.len() == 1);
    let (other, is_repeated) = send("a-2", "B").await?;
    ensure!(other != id && !is_repeated);
    app.close().await
}

async fn another_file_with_the_same_key_is_refused(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let (id, _) = accepted(post(&app, "k", "", FILE).send().await?).await?;
    let long = format!("{FILE}{}", "5,6\n".repeat(100_000));
    for other in ["a,b\n1,2\n3,5\n", "a,b\n", "", &long] {
        let refused = post(&app, "k", "", other.to_owned()).send().await?;
        let refused = problem(refused, 422, "idempotency_key_reused").await?;
        ensure!(refused["upload"] == json!(id), "{refused}");
    }
    let refused = form(&app, "f", "B", FILE).send().await?;
    let (in_form, _) = accepted(refused).await?;
    let refused = form(&app, "f", "C", "a,b\n1,2\n").send().await?;
    let refused = problem(refused, 422, "idempotency_key_reused").await?;
    ensure!(refused["upload"] == json!(in_form), "{refused}");
    let ids: Vec<Uuid> = listed(&app).await?.into_iter().map(|(id, _)| id).collect();
    ensure!(ids == [in_form, id], "{ids:?}");
    app.expect_completed(id, 2).await?;
    app.close().await
}

async fn other_options_with_the_same_key_are_refused(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let (id, _) = accepted(post(&app, "k", "&trim=true", FILE).send().await?).await?;
    for options in ["", "&trim=false", "&trim=true&short_rows=pad"] {
        let refused = post(&app, "k", options, FILE).send().await?;
        let refused = problem(refused, 422, "idempotency_key_reused").await?;
        let detail = refused["detail"].as_str().context("no detail")?;
        ensure!(detail.contains("options"), "{refused}");
        ensure!(refused["upload"] == json!(id), "{refused}");
    }
    // An announced digest is no option about the file, and the order does not matter.
    let digest = sha256_hex(FILE);
    let url = format!(
        "{}/uploads?sha256={digest}&trim=true&{KNOWN_DIALECT}",
        app.url
    );
    let again = app.client.post(url).header("idempotency-key", "k");
    let again = again.header("content-type", "text/csv").body(FILE);
    ensure!(accepted(again.send().await?).await? == (id, true));
    app.close().await
}

/// A head that announces a digest and a body. `more` are further headers.
fn head(digest: &str, more: &str) -> String {
    format!(
        "POST /uploads?{KNOWN_DIALECT}&sha256={digest} HTTP/1.1\r\nhost: localhost\r\nidempotency-key: k\r\ncontent-type: text/csv\r\n{more}connection: close\r\ncontent-length: {}\r\n\r\n",
        FILE.len()
    )
}

/// Sends a head that announces a digest and a body, and no body. Returns the whole answer.
async fn announce(app: &App, digest: &str) -> Result<String> {
    let mut stream = app.connect().await?;
    let head = head(digest, "expect: 100-continue\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn a_file_whose_digest_is_announced_is_compared_without_its_body(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let (id, _) = accepted(post(&app, "k", "", FILE).send().await?).await?;
    let same = announce(&app, &sha256_hex(FILE)).await?;
    ensure!(same.starts_with("HTTP/1.1 202"), "{same}");
    ensure!(same.contains("idempotency-replayed: true"), "{same}");
    ensure!(same.contains(&id.to_string()), "{same}");
    let other = announce(&app, &sha256_hex("another file")).await?;
    ensure!(other.starts_with("HTTP/1.1 422"), "{other}");
    ensure!(other.contains("idempotency_key_reused"), "{other}");
    app.close().await
}

/// curl waits for the permission to send a file of more than 1 MiB, by default for a second.
async fn curl_gets_the_first_answer_without_sending_a_large_file(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let large = format!("a,b\n{}", "1,2\n".repeat(300_000));
    let (id, _) = accepted(post(&app, "k", "", large.clone()).send().await?).await?;
    let directory = TempDir::new()?;
    let file = directory.path().join("large.csv");
    std::fs::write(&file, &large)?;
    let digest = sha256_hex(&large);
    let url = format!("{}/uploads?{KNOWN_DIALECT}&sha256={digest}", app.url);
    let sent = tokio::task::spawn_blocking(move || {
        let mut curl = Command::new("curl");
        let curl = curl.args(["--silent", "--show-error", "--request", "POST"]);
        let curl = curl.args(["--header", "content-type: text/csv"]);
        let curl = curl.args(["--header", "idempotency-key: k"]);
        let curl = curl.args(["--header", "expect: 100-continue"]);
        let curl = curl.args(["--expect100-timeout", "60", "--upload-file"]);
        let curl = curl
            .arg(file)
            .args(["--write-out", "\n%{http_code} %{size_upload}", &url]);
        curl.output()
    });
    let sent = sent.await??;
    ensure!(sent.status.success(), "{sent:?}");
    let answer = String::from_utf8(sent.stdout)?;
    let (body, figures) = answer.rsplit_once('\n').context("no answer")?;
    ensure!(figures == "202 0", "{figures}: {body}");
    let upload: serde_json::Value = serde_json::from_str(body)?;
    ensure!(upload["id"] == json!(id), "{upload}");
    app.expect_completed(id, 300_000).await?;
    app.close().await
}

/// Such a client might not receive an early answer.
async fn a_file_that_a_client_sends_without_waiting_is_read_and_compared(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let (id, _) = accepted(post(&app, "k", "", FILE).send().await?).await?;
    let announced = format!("&sha256={}", sha256_hex(FILE));
    let send = |file: &'static str| post(&app, "k", &announced, paced(file, 1000)).send();
    ensure!(accepted(send(FILE).await?).await? == (id, true));
    let refused = send("a,b\n1,2\n3,5\n").await?;
    problem(refused, 422, "idempotency_key_reused").await?;
    app.close().await
}

async fn a_slow_client_gets_its_answer_at_the_end_of_its_file(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let (id, _) = accepted(post(&app, "k", "", FILE).send().await?).await?;
    let mut stream = app.connect().await?;
    let head = head(&sha256_hex(FILE), "");
    stream.write_all(head.as_bytes()).await?;
    let (first, rest) = FILE.split_at(5);
    stream.write_all(first.as_bytes()).await?;
    // An early answer would come after two seconds, in which the server reads on.
    let mut byte = [0; 1];
    let early = timeout(Duration::from_secs(4), stream.read(&mut byte)).await;
    ensure!(early.is_err(), "an answer before the end of the file");
    stream.write_all(rest.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    ensure!(answer.contains("idempotency-replayed: true"), "{answer}");
    ensure!(answer.contains(&id.to_string()), "{answer}");
    app.close().await
}

async fn the_key_of_a_refused_file_is_free(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    // Refused before an upload exists, and after that.
    let refused = post(&app, "k", "&names=strict", "a,a\n1,2\n")
        .send()
        .await?;
    problem(refused, 422, "duplicate_column_name").await?;
    let refused = post(&app, "k", "", "a,b\n1\n2\n").send().await?;
    problem(refused, 422, "no_row_fits").await?;
    let (id, is_repeated) = accepted(post(&app, "k", "", FILE).send().await?).await?;
    ensure!(!is_repeated);
    ensure!(accepted(post(&app, "k", "", FILE).send().await?).await? == (id, true));
    app.expect_completed(id, 2).await?;
    app.close().await
}

async fn a_key_stays_with_its_upload_after_an_undo(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let (id, _) = accepted(post(&app, "k", "", FILE).send().await?).await?;
    app.expect_completed(id, 2).await?;
    let undo = app.client.post(format!("{}/uploads/{id}/undo", app.url));
    ensure!(undo.send().await?.status() == 202);
    let again = post(&app, "k", "", FILE).send().await?;
    ensure!(accepted(again).await? == (id, true));
    app.wait_until_cleaned(id).await?;
    let (other, is_repeated) = accepted(post(&app, "l", "", FILE).send().await?).await?;
    ensure!(other != id && !is_repeated);
    app.expect_completed(other, 2).await?;
    app.close().await
}

async fn a_malformed_key_is_refused(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let long = "k".repeat(256);
    for key in ["", "\"\"", "a b", "\"a", &long] {
        let refused = post(&app, key, "", FILE).send().await?;
        problem(refused, 400, "malformed_idempotency_key").await?;
    }
    let twice = post(&app, "k", "", FILE).header("idempotency-key", "k");
    problem(twice.send().await?, 400, "malformed_idempotency_key").await?;
    ensure!(listed(&app).await?.is_empty());
    app.close().await
}

async fn calls_that_take_no_key_ignore_it(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    for _ in 0..2 {
        let id = Uuid::now_v7();
        let put = app.client.put(format!("{}/uploads/{id}", app.url));
        let put = put.header("content-type", "text/csv").body(FILE);
        let answer = put.header("idempotency-key", "a b").send().await?;
        ensure!(accepted(answer).await? == (id, false));
    }
    let preview = app.client.post(format!("{}/uploads/preview", app.url));
    let preview = preview.header("content-type", "text/csv").body(FILE);
    let answer = preview.header("idempotency-key", "a b").send().await?;
    ensure!(answer.status() == 200, "{}", answer.text().await?);
    app.close().await
}
