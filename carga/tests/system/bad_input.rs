//! Faults in the middle of a file: the answer and the upload name them, and no row remains.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use reqwest::multipart::{Form, Part};
use uuid::Uuid;

use crate::answers::problem;
use crate::app::App;
use crate::files::{csv, paced};
use crate::harness::Mode;

in_both_modes! {
    a_bad_row_fails_its_upload_with_code_and_position_and_leaves_no_row,
    a_chunked_body_over_the_limit_is_refused_with_limit_and_actual_size,
    a_form_part_after_the_file_or_a_wrong_digest_fails_the_upload,
}

/// The bad row follows 2,500 good rows, so that two batches have been published before it.
async fn a_bad_row_fails_its_upload_with_code_and_position_and_leaves_no_row(
    mode: Mode,
) -> Result<()> {
    let harness = mode
        .harness()
        .await?
        .with("CARGA_MAX_UPLOAD_BYTES", "20000000");
    let app = App::start(harness, 2).await?;
    let mebibyte = 1 << 20;
    let long_field = format!("1,{},3,4\n", "x".repeat(mebibyte + 1));
    let long_row = format!("{0},{0},{0},{0}{0}\n", "x".repeat(mebibyte - 1));
    let endless = format!("1,\"2,3,4\n{}", "5,6,7,8\n".repeat(600_000));
    let cases: Vec<(Bytes, u16, &str, Option<&str>)> = vec![
        ("1,2,3\n".into(), 422, "too_few_fields", None),
        ("1,2,3,4,5\n".into(), 422, "too_many_fields", None),
        ("1,\"2,3,4\n5,6,7,8\n".into(), 422, "unclosed_quote", None),
        ("1,2,3,\"4".into(), 422, "unclosed_quote", None),
        (endless.into(), 422, "unclosed_quote", None),
        (long_row.into(), 422, "row_too_large", None),
        (long_field.into(), 422, "field_too_large", Some("name")),
        (
            Bytes::from_static(b"1,2,\xe9t\xe9,4\n"),
            422,
            "undecodable",
            Some("note"),
        ),
        // A character whose two bytes are in different cells is invalid in both.
        (
            Bytes::from_static(b"1,\xc3,\xa9,4\n"),
            422,
            "undecodable",
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
        // Two blank lines before the bad row count as lines but not as rows.
        let good = format!("{}\n\n", csv(2500)).replace('\n', line_end);
        for (bad, status, code, column) in &cases {
            let id = Uuid::now_v7();
            let bad =
                String::from_utf8(bad.to_vec()).map(|bad| bad.replace('\n', line_end).into_bytes());
            let bad = bad.unwrap_or_else(|no_text| no_text.into_bytes());
            let file = [good.as_bytes(), &bad].concat();
            let answer = app.put_with(id, "on_error=abort", file).await?;
            let problem = problem(answer, *status, code).await?;
            let position = serde_json::json!([2501, 1 + 2500 * 2 + 2 + 1, column]);
            ensure!(
                serde_json::json!([problem["row"], problem["line"], problem["column"]]) == position,
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
            let upload = app.expect_failed(id, code).await?;
            let error = &upload["error"];
            ensure!(
                serde_json::json!([error["row"], error["line"], error["column"]]) == position,
                "{code}: {error}"
            );
            ensure!(
                upload["rows"]["rejected"] == 1 && upload["rows"]["discarded"] == 2500,
                "{upload}"
            );
        }
    }
    app.close().await
}

async fn a_chunked_body_over_the_limit_is_refused_with_limit_and_actual_size(
    mode: Mode,
) -> Result<()> {
    let app = App::start(
        mode.harness()
            .await?
            .with("CARGA_MAX_UPLOAD_BYTES", "200000"),
        1,
    )
    .await?;
    let id = Uuid::now_v7();
    let chunked = paced(csv(10_000), 50_000_000);
    let answer = app.put(id, chunked).await?;
    let problem = problem(answer, 413, "upload_too_large").await?;
    ensure!(
        problem["limit"] == 200_000 && problem["actual"].as_u64() > Some(200_000),
        "{problem}"
    );
    app.expect_failed(id, "upload_too_large").await?;
    app.close().await
}

async fn a_form_part_after_the_file_or_a_wrong_digest_fails_the_upload(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
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
    app.expect_failed(id, "part_after_file").await?;

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
    app.expect_failed(id, "sha256_mismatch").await?;
    app.close().await
}
