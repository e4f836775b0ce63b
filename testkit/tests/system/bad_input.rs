//! Every kind of bad input: what is answered, what the upload says, and that no row remains.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use carga_testkit::Scope;
use reqwest::multipart::{Form, Part};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::app::{App, csv};

/// Faults that are met before there is an upload.
#[tokio::test]
async fn a_request_that_cannot_begin_is_refused_by_name_and_leaves_no_upload() -> Result<()> {
    let app = App::start(
        Scope::new()
            .await?
            .with("CARGA_MAX_UPLOAD_BYTES", "2000000"),
        0,
    )
    .await?;
    for (file, status, code, column, message) in [
        ("", 422, "empty_file", None, "no header"),
        ("\n\r\n\n", 422, "empty_file", None, "no header"),
        (
            "a,b,a\n1,2,3\n",
            422,
            "duplicate_column_name",
            Some("a"),
            "column 3",
        ),
        ("a,,c\n1,2,3\n", 422, "empty_column_name", None, "column 2"),
        (
            "a,\" \",c\n1,2,3\n",
            422,
            "empty_column_name",
            None,
            "column 2",
        ),
        (
            "a,\"b\n1,2,3\n",
            422,
            "unclosed_quote",
            None,
            "never closed",
        ),
    ] {
        let id = Uuid::now_v7();
        let answer = app.put(id, file).await?;
        let problem = problem(answer, status, code).await?;
        ensure!(
            problem["detail"]
                .as_str()
                .context("no detail")?
                .contains(message),
            "{problem}"
        );
        ensure!(problem["column"] == serde_json::json!(column), "{problem}");
        ensure!(app.upload(id).await?.is_none(), "{file:?} left an upload");
    }
    // Not UTF-8, and a header of two mebibytes.
    let answer = app.put(Uuid::now_v7(), &b"a,b\xff\n1,2\n"[..]).await?;
    problem(answer, 422, "invalid_utf8").await?;
    let wide: String = (0..150_000)
        .map(|column| format!("column_{column},"))
        .collect();
    let wide = format!("{wide}end\n");
    let answer = app.put(Uuid::now_v7(), wide).await?;
    let refused = problem(answer, 422, "header_too_large").await?;
    ensure!(refused["limit"] == 1 << 20, "{refused}");

    let post = || app.client.post(format!("{}/uploads", app.url));
    let no_file = Form::new().text("filename", "x.csv");
    problem(post().multipart(no_file).send().await?, 400, "missing_file").await?;
    let unknown = Form::new()
        .text("delimiter", ";")
        .part("file", Part::text("a\n1\n"));
    let refused = problem(
        post().multipart(unknown).send().await?,
        400,
        "unknown_option",
    )
    .await?;
    ensure!(
        refused["detail"]
            .as_str()
            .context("no detail")?
            .contains("delimiter")
    );
    problem(
        app.client
            .post(format!("{}/uploads?on_error=reject", app.url))
            .body("a\n")
            .send()
            .await?,
        400,
        "unknown_option",
    )
    .await?;
    problem(
        post()
            .header("content-type", "application/json")
            .body("{}")
            .send()
            .await?,
        415,
        "unsupported_media_type",
    )
    .await?;
    problem(
        post()
            .header("content-type", "text/csv; charset=utf-16")
            .body("a")
            .send()
            .await?,
        415,
        "unsupported_charset",
    )
    .await?;
    problem(
        post()
            .header("content-type", "multipart/form-data")
            .body("a")
            .send()
            .await?,
        400,
        "malformed_form",
    )
    .await?;

    // The declared length is enough to refuse before a byte of the body is read.
    let large = post()
        .header("content-type", "text/csv")
        .body(vec![b'a'; 2_000_001])
        .send()
        .await?;
    let refused = problem(large, 413, "upload_too_large").await?;
    ensure!(
        refused["limit"] == 2_000_000 && refused["actual"] == 2_000_001,
        "{refused}"
    );

    let (_, list) = app.get("/uploads").await?;
    ensure!(list["uploads"] == serde_json::json!([]), "{list}");
    app.scope.close().await
}

/// A fault in the middle of the file: what it is called, and where it is. There are 2,500 good rows before it, so that
/// two batches are on their way already.
#[tokio::test]
async fn a_bad_row_fails_its_upload_with_code_row_and_line_and_leaves_no_row() -> Result<()> {
    let scope = Scope::new()
        .await?
        .with("CARGA_MAX_UPLOAD_BYTES", "20000000");
    let app = App::start(scope, 2).await?;
    let mebibyte = 1 << 20;
    let long_field = format!("1,{},3,4\n", "x".repeat(mebibyte + 1));
    let long_row = format!("{0},{0},{0},{0}{0}\n", "x".repeat(mebibyte - 1));
    let endless = format!("1,\"2,3,4\n{}", "5,6,7,8\n".repeat(600_000));
    let cases: Vec<(Bytes, u16, &str, Option<&str>)> = vec![
        ("1,2,3\n".into(), 422, "too_few_fields", None),
        ("1,2,3,4,5\n".into(), 422, "too_many_fields", None),
        ("1,\"2,3,4\n5,6,7,8\n".into(), 422, "unclosed_quote", None),
        ("1,2,3,\"4".into(), 422, "unclosed_quote", None),
        (endless.into(), 422, "row_too_large", None),
        (long_row.into(), 422, "row_too_large", None),
        (long_field.into(), 422, "field_too_large", Some("name")),
        (
            Bytes::from_static(b"1,2,\xe9t\xe9,4\n"),
            422,
            "invalid_utf8",
            Some("note"),
        ),
        // Two halves of one character are no text either.
        (
            Bytes::from_static(b"1,\xc3,\xa9,4\n"),
            422,
            "invalid_utf8",
            Some("name"),
        ),
        (
            Bytes::from_static(b"1,2,3,\0\n"),
            422,
            "nul_character",
            Some("empty"),
        ),
    ];
    for line_end in ["\n", "\r\n"] {
        // Two blank lines before the bad row: no rows, but lines.
        let good = format!("{}\n\n", csv(2500)).replace('\n', line_end);
        for (bad, status, code, column) in &cases {
            let id = Uuid::now_v7();
            let bad =
                String::from_utf8(bad.to_vec()).map(|bad| bad.replace('\n', line_end).into_bytes());
            let bad = bad.unwrap_or_else(|no_text| no_text.into_bytes());
            let file = [good.as_bytes(), &bad].concat();
            let answer = app.put(id, file).await?;
            let problem = problem(answer, *status, code).await?;
            let place = serde_json::json!([2501, 1 + 2500 * 2 + 2 + 1, column]);
            ensure!(
                serde_json::json!([problem["row"], problem["line"], problem["column"]]) == place,
                "{code}: {problem}"
            );
            ensure!(problem["upload"] == id.to_string(), "{problem}");
            if let "row_too_large" | "field_too_large" = *code {
                ensure!(
                    problem["limit"].is_u64()
                        && problem["actual"].as_u64() > problem["limit"].as_u64(),
                    "{problem}"
                );
            }
            let upload = app.failed(id, code).await?;
            let error = &upload["error"];
            ensure!(
                serde_json::json!([error["row"], error["line"], error["column"]]) == place,
                "{code}: {error}"
            );
            ensure!(
                upload["rows"]["discarded"] == upload["rows"]["read"],
                "{upload}"
            );
        }
    }
    app.scope.close().await
}

#[tokio::test]
async fn a_body_larger_than_the_limit_is_refused_with_limit_and_actual_also_when_its_length_was_not_told()
-> Result<()> {
    let app = App::start(
        Scope::new().await?.with("CARGA_MAX_UPLOAD_BYTES", "200000"),
        1,
    )
    .await?;
    let id = Uuid::now_v7();
    let chunked = crate::app::paced(csv(10_000), 50_000_000);
    let answer = app.put(id, chunked).await?;
    let problem = problem(answer, 413, "upload_too_large").await?;
    ensure!(
        problem["limit"] == 200_000 && problem["actual"].as_u64() > Some(200_000),
        "{problem}"
    );
    app.failed(id, "upload_too_large").await?;
    app.scope.close().await
}

#[tokio::test]
async fn a_part_after_the_file_and_a_wrong_digest_fail_the_upload() -> Result<()> {
    let app = App::start(Scope::new().await?, 1).await?;
    let form = Form::new()
        .part("file", Part::text(csv(3000)).file_name("a.csv"))
        .text("filename", "late.csv");
    let id = Uuid::now_v7();
    let put = || app.client.put(format!("{}/uploads/{id}", app.url));
    let refused = problem(put().multipart(form).send().await?, 422, "part_after_file").await?;
    ensure!(
        refused["detail"]
            .as_str()
            .context("no detail")?
            .contains("filename")
    );
    app.failed(id, "part_after_file").await?;

    let id = Uuid::now_v7();
    let put = app.client.put(format!(
        "{}/uploads/{id}?sha256={}",
        app.url,
        "ab".repeat(32)
    ));
    let answer = put
        .header("content-type", "text/csv")
        .body(csv(3000))
        .send()
        .await?;
    problem(answer, 422, "sha256_mismatch").await?;
    app.failed(id, "sha256_mismatch").await?;
    app.scope.close().await
}

/// A client that hangs up sees no answer; the upload says what happened.
#[tokio::test]
async fn a_body_that_ends_early_is_a_failure_wherever_it_ends() -> Result<()> {
    let app = App::start(Scope::new().await?, 2).await?;
    let file = csv(1500);
    let head = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.csv\"\r\n\r\n";
    let form = format!("{head}{file}\r\n--B--\r\n");
    // In a row, at the end of the last one, and at every byte of the closing boundary but the line break behind it.
    let begun = head.len() + 20_000;
    let boundary = head.len() + file.len();
    let cuts = [begun + 10_007, boundary - 1].into_iter();
    for cut in cuts.chain(boundary..form.len() - 2) {
        for chunked in [false, true] {
            let id = Uuid::now_v7();
            let mut stream = TcpStream::connect(app.url.trim_start_matches("http://")).await?;
            let length = match chunked {
                true => "transfer-encoding: chunked".to_owned(),
                false => format!("content-length: {}", form.len()),
            };
            let request = format!(
                "PUT /uploads/{id} HTTP/1.1\r\nhost: carga\r\ncontent-type: multipart/form-data; boundary=B\r\n{length}\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await?;
            stream.write_all(&piece(&form[..begun], chunked)).await?;
            // The header has been accepted; from now on there is an upload to tell what happened.
            app.begun(id)
                .await
                .with_context(|| format!("cut at {cut}"))?;
            stream.write_all(&piece(&form[begun..cut], chunked)).await?;
            stream.shutdown().await?;
            let mut answer = String::new();
            // Whether the answer still arrives is up to the connection; that it is no success is up to us.
            let _ = stream.read_to_string(&mut answer).await;
            ensure!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
                "cut at {cut}: {answer}"
            );
            let upload = app.failed(id, "incomplete_body").await;
            upload.with_context(|| format!("cut at {cut}, chunked: {chunked}"))?;
        }
    }
    app.scope.close().await
}

#[tokio::test]
async fn a_raw_body_that_ends_early_is_a_failure() -> Result<()> {
    let app = App::start(Scope::new().await?, 2).await?;
    let file = csv(1500);
    for chunked in [false, true] {
        let id = Uuid::now_v7();
        let mut stream = TcpStream::connect(app.url.trim_start_matches("http://")).await?;
        let length = match chunked {
            true => "transfer-encoding: chunked".to_owned(),
            false => format!("content-length: {}", file.len() + 1),
        };
        let request = format!(
            "PUT /uploads/{id} HTTP/1.1\r\nhost: carga\r\ncontent-type: text/csv\r\n{length}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        // All rows, to the end of the last line. One byte is missing, or the last chunk.
        stream.write_all(&piece(&file, chunked)).await?;
        app.begun(id).await?;
        stream.shutdown().await?;
        app.failed(id, "incomplete_body").await?;
    }
    app.scope.close().await
}

/// The parser of forms would keep the whole body in memory while it looks for a boundary.
#[tokio::test]
async fn a_form_without_its_boundary_is_refused_early_and_costs_no_memory() -> Result<()> {
    let app = App::start(Scope::new().await?, 0).await?;
    let endless_head = format!(
        "--B\r\nContent-Disposition: form-data; name=\"{}",
        "x".repeat(60_000_000)
    );
    for body in ["no boundary at all\n".repeat(3_000_000), endless_head] {
        let url = format!("{}/uploads", app.url);
        let request = app
            .client
            .post(url)
            .header("content-type", "multipart/form-data; boundary=B");
        let answer = request
            .body(crate::app::paced(body, 1_000_000_000))
            .send()
            .await;
        // The rest of 60 MB is not read, so the answer may be lost with the connection.
        if let Ok(answer) = answer {
            problem(answer, 400, "malformed_form").await?;
        }
    }
    let peak = app.api.peak_rss_bytes()?;
    ensure!(peak < 60 << 20, "the API took {peak} bytes");
    let empty = Form::new().part("file", Part::text("").file_name("empty.csv"));
    let answer = app
        .client
        .post(format!("{}/uploads", app.url))
        .multipart(empty)
        .send()
        .await?;
    problem(answer, 422, "empty_file").await?;
    let (_, list) = app.get("/uploads").await?;
    ensure!(list["uploads"] == serde_json::json!([]), "{list}");
    app.scope.close().await
}

fn piece(bytes: &str, chunked: bool) -> Vec<u8> {
    match chunked {
        true => format!("{:x}\r\n{bytes}\r\n", bytes.len()).into_bytes(),
        false => bytes.as_bytes().to_vec(),
    }
}

/// The answer as a problem document with this status and code.
pub(crate) async fn problem(answer: reqwest::Response, status: u16, code: &str) -> Result<Value> {
    let found = answer.status();
    let media_type = answer.headers().get("content-type").cloned();
    let request_id = answer
        .headers()
        .get("x-request-id")
        .cloned()
        .context("no request id")?;
    let problem: Value = answer.json().await?;
    ensure!(
        found == status && problem["code"] == code,
        "{status} {code} expected, {found}: {problem}"
    );
    ensure!(media_type.is_some_and(|found| found == "application/problem+json"));
    ensure!(
        problem["status"] == status && problem["request_id"] == request_id.to_str()?,
        "{problem}"
    );
    ensure!(
        problem["title"].is_string()
            && problem["type"].is_string()
            && problem["detail"].is_string(),
        "{problem}"
    );
    Ok(problem)
}
