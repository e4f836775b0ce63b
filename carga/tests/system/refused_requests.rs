//! Requests that are refused before an upload begins; they leave no upload.

use anyhow::{Context, Result, ensure};
use reqwest::multipart::{Form, Part};
use uuid::Uuid;

use crate::answers::problem;
use crate::app::App;
use crate::files::paced;
use crate::harness::Mode;

in_both_modes! {
    an_invalid_request_is_refused_with_its_code_and_leaves_no_upload,
    a_form_without_its_boundary_is_refused_early_with_flat_memory,
}

async fn an_invalid_request_is_refused_with_its_code_and_leaves_no_upload(
    mode: Mode,
) -> Result<()> {
    let app = App::start(
        mode.harness()
            .await?
            .with("CARGA_MAX_UPLOAD_BYTES", "2000000"),
        0,
    )
    .await?;
    for (file, code, column, message) in [
        ("", "empty_file", None, "no header"),
        ("\n\r\n\n", "empty_file", None, "no header"),
        (
            "a,b,a\n1,2,3\n",
            "duplicate_column_name",
            Some("a"),
            "column 3",
        ),
        ("a,,c\n1,2,3\n", "empty_column_name", None, "column 2"),
        ("a,\" \",c\n1,2,3\n", "empty_column_name", None, "column 2"),
        ("a,\"b\n1,2,3\n", "unclosed_quote", None, "not closed"),
    ] {
        let id = Uuid::now_v7();
        let answer = app.put_with(id, "names=strict", file).await?;
        let problem = problem(answer, 422, code).await?;
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
    // A header that is not UTF-8, and one of two mebibytes.
    let no_text = &b"a,b\xff\n1,2\n"[..];
    let answer = app.put_with(Uuid::now_v7(), "encoding=utf-8", no_text);
    problem(answer.await?, 422, "undecodable").await?;
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
        .text("separator", ";")
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
            .contains("separator")
    );
    problem(
        app.client
            .post(format!("{}/uploads?on_eror=reject", app.url))
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
            .header("content-type", "text/csv; charset=klingon")
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

    // The declared length is enough to refuse the request before its body is read.
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
    app.close().await
}

/// Without a limit, the form parser would buffer the whole body while it looks for a boundary.
async fn a_form_without_its_boundary_is_refused_early_with_flat_memory(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
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
        let answer = request.body(paced(body, 1_000_000_000)).send().await;
        // Carga does not read the rest of the 60 MB, so the connection may break before the
        // answer arrives.
        if let Ok(answer) = answer {
            problem(answer, 400, "malformed_form").await?;
        }
    }
    let peak = app.api.peak_rss_bytes()?;
    ensure!(peak < 60 << 20, "the API's memory peaked at {peak} bytes");
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
    app.close().await
}
