//! Details of requests: names of parts, repeated options, codings, charsets and media types.

use anyhow::{Context, Result, ensure};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::multipart::{Form, Part};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answers::problem;
use crate::app::App;
use crate::harness::Mode;

in_both_modes! {
    a_file_in_a_part_with_another_name_is_refused_and_the_right_name_is_given,
    a_repeated_query_option_is_refused,
    a_body_with_an_unknown_coding_is_refused,
    a_part_with_a_transfer_encoding_is_refused,
    the_charset_of_a_part_decides_unless_an_option_does,
    the_header_parameter_of_a_content_type_decides_unless_an_option_does,
    the_options_of_a_query_and_a_form_are_checked_together,
    a_part_has_the_names_in_its_head,
    the_refusal_of_a_compressed_media_type_says_how_to_send_compressed_csv,
}

/// A valid cursor. It names no upload.
const CURSOR: &str = "MCAwMTlhYjJmNC0wMDAwLTcwMDAtODAwMC0wMDAwMDAwMDAwMDA";

async fn a_file_in_a_part_with_another_name_is_refused_and_the_right_name_is_given(
    mode: Mode,
) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    // `encoding` is an option, but a file cannot be its value.
    for (name, code) in [("data", "unknown_option"), ("encoding", "malformed_option")] {
        let file = Part::text("a,b\n1,2\n").file_name("small.csv");
        let form = Form::new().part(name, file);
        let answer = post(&app, "/uploads").multipart(form).send().await?;
        let refused = problem(answer, 400, code).await?;
        let detail = detail(&refused)?;
        ensure!(
            detail.contains(name) && detail.contains("a part named `file`"),
            "{refused}"
        );
    }
    // The name is checked before the value, which is longer than any option may be.
    let form = Form::new().text("data", "a,b\n".repeat(10_000));
    let answer = post(&app, "/uploads").multipart(form).send().await?;
    problem(answer, 400, "unknown_option").await?;
    expect_no_uploads(&app).await?;
    app.close().await
}

async fn a_repeated_query_option_is_refused(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let id = Uuid::now_v7();
    for path in [
        "/uploads?limit=1&limit=2".to_owned(),
        "/uploads?status=failed&limit=1&status=completed".to_owned(),
        format!("/uploads?cursor={CURSOR}&cursor={CURSOR}"),
        format!("/uploads/{id}/rows?format=csv&format=ndjson"),
        format!("/uploads/{id}/rejected?safe=spreadsheet&safe=spreadsheet"),
    ] {
        let answer = app.client.get(format!("{}{path}", app.url)).send().await?;
        let refused = problem(answer, 400, "repeated_option").await;
        refused.with_context(|| format!("GET {path}"))?;
    }
    let once = format!("/uploads?status=failed&limit=1&cursor={CURSOR}");
    let (status, list) = app.get(&once).await?;
    ensure!(status == 200, "{list}");
    app.close().await
}

async fn a_body_with_an_unknown_coding_is_refused(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let send = |path: &str, coding: &str| {
        post(&app, path)
            .header("content-type", "text/csv")
            .header("content-encoding", coding)
            .body("a,b\n1,2\n")
            .send()
    };
    for coding in ["deflate", "br", "x-unknown", "gzip, zstd"] {
        for path in ["/uploads", "/uploads/preview"] {
            expect_unsupported_coding(send(path, coding).await?, coding).await?;
        }
    }
    expect_no_uploads(&app).await?;
    for coding in ["identity", "GZIP", "zstd"] {
        let answer = send("/uploads", coding).await?;
        ensure!(answer.status() == 202, "{coding}: {}", answer.text().await?);
    }
    app.close().await
}

async fn a_part_with_a_transfer_encoding_is_refused(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let send = |coding: &'static str| {
        let name = HeaderName::from_static("content-transfer-encoding");
        let head = HeaderMap::from_iter([(name, HeaderValue::from_static(coding))]);
        let file = Part::text("YSxiCjEsMgo=").file_name("x.csv").headers(head);
        let form = Form::new().part("file", file);
        post(&app, "/uploads").multipart(form).send()
    };
    for coding in ["base64", "quoted-printable"] {
        expect_unsupported_coding(send(coding).await?, coding).await?;
    }
    expect_no_uploads(&app).await?;
    for coding in ["7bit", "8BIT", "binary"] {
        let answer = send(coding).await?;
        ensure!(answer.status() == 202, "{coding}: {}", answer.text().await?);
    }
    app.close().await
}

async fn the_charset_of_a_part_decides_unless_an_option_does(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let send = async |form: Form, media_type: &str| {
        let file = Part::bytes(&b"id,name\n1,\xb1\n"[..]).file_name("x.csv");
        let form = form.part("file", file.mime_str(media_type)?);
        let sending = post(&app, "/uploads/preview").multipart(form).send();
        anyhow::Ok(sending.await?)
    };
    // 0xb1 is `ą` in ISO 8859-2 and `±` in Windows-1252.
    let latin2 = "text/csv; charset=iso-8859-2";
    let given = Form::new().text("encoding", "windows-1252");
    for (form, media_type, cell) in [
        (Form::new(), latin2, "ą"),
        (given, latin2, "±"),
        (
            Form::new().text("encoding", "iso-8859-2"),
            "application/gzip; charset=binary",
            "ą",
        ),
    ] {
        let preview: Value = send(form, media_type).await?.json().await?;
        ensure!(preview["rows"] == json!([["1", cell]]), "{preview}");
    }
    let answer = send(Form::new(), "text/csv; charset=klingon").await?;
    problem(answer, 415, "unsupported_charset").await?;
    app.close().await
}

async fn the_header_parameter_of_a_content_type_decides_unless_an_option_does(
    mode: Mode,
) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let send = async |path: &str, media_type: &str, file: &'static str, in_form: bool| {
        let request = post(&app, path);
        let request = match in_form {
            false => request.header("content-type", media_type).body(file),
            true => {
                let part = Part::text(file).file_name("x.csv").mime_str(media_type)?;
                request.multipart(Form::new().part("file", part))
            }
        };
        anyhow::Ok(request.send().await?)
    };
    // Without the parameter, `1,2` is a row and `a,b` is the header.
    let (numbers, names) = ("1,2\n3,4\n", "a,b\n1,2\n");
    let numbered = ["column_1", "column_2"];
    let quoted = "text/csv; charset=utf-8; Header=\"ABSENT\"";
    for (query, media_type, file, columns) in [
        ("", "text/csv; header=present", numbers, ["1", "2"]),
        ("", "text/csv; header=absent", names, numbered),
        ("", quoted, names, numbered),
        ("?header=true", "text/csv; header=absent", names, ["a", "b"]),
    ] {
        for in_form in [false, true] {
            let path = format!("/uploads/preview{query}");
            let answer = send(&path, media_type, file, in_form).await?;
            let preview: Value = answer.json().await?;
            ensure!(
                preview["columns"] == json!(columns),
                "{media_type}: {preview}"
            );
        }
    }
    for in_form in [false, true] {
        let answer = send("/uploads", "text/csv; header=maybe", names, in_form).await?;
        let refused = problem(answer, 400, "malformed_option").await?;
        ensure!(detail(&refused)?.contains("header=maybe"), "{refused}");
    }
    expect_no_uploads(&app).await?;
    app.close().await
}

async fn the_options_of_a_query_and_a_form_are_checked_together(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let send = async |query: &str, form: Form| {
        let file = Part::text("a\"b\n1\"2\n").file_name("x.csv");
        let request = post(&app, &format!("/uploads/preview?{query}"));
        request.multipart(form.part("file", file)).send().await
    };
    let quote = |value: &'static str| Form::new().text("quote", value);
    let answer = send("delimiter=%22", quote("none")).await?;
    let preview: Value = answer.json().await?;
    ensure!(preview["columns"] == json!(["a", "b"]), "{preview}");
    for (query, form) in [
        ("delimiter=%27", quote("'")),
        ("quote=%27", Form::new().text("delimiter", "'")),
        ("", Form::new().text("delimiter", "\"")),
    ] {
        problem(send(query, form).await?, 400, "malformed_option").await?;
    }
    // %FF is not UTF-8.
    for query in ["delimiter=%22", "delimiter=%FF"] {
        let request = post(&app, &format!("/uploads?{query}"));
        let request = request.header("content-type", "text/csv");
        let answer = request.body("a\n1\n").send().await?;
        problem(answer, 400, "malformed_option").await?;
    }
    expect_no_uploads(&app).await?;
    app.close().await
}

async fn a_part_has_the_names_in_its_head(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let heads: [(&[u8], &str); 9] = [
        (b"name=\"file\"; filename=\"a; b\\\"c.csv\"", "a; b\"c.csv"),
        (b"filename=\"a name=b.csv\"; name=\"file\"", "a name=b.csv"),
        (b"NAME=file; FileName = my file.csv", "my file.csv"),
        (b"name=file; filename=\"Gr\xf6\xdfe.csv\"", "Größe.csv"),
        (
            b"name=file; filename=\"Gr\xc3\xb6\xc3\x9fe.csv\"",
            "Größe.csv",
        ),
        (
            b"name=file; filename*=UTF-8''pre%C3%A7os%20a.csv",
            "preços a.csv",
        ),
        (
            b"filename*=iso-8859-1'de'Gr%F6%DFe.csv; filename=x; name=file",
            "Größe.csv",
        ),
        // These cannot be decoded, so the plain file name is taken.
        (
            b"name=file; filename=a.csv; filename*=utf-8''%C3%.csv",
            "a.csv",
        ),
        (
            b"name=file; filename*=koi8-r''%C3.csv; filename=a.csv",
            "a.csv",
        ),
    ];
    for (parameters, filename) in heads {
        let body: [&[u8]; 3] = [
            b"--B\r\nContent-Disposition: form-data; ",
            parameters,
            b"\r\n\r\na,b\n1,2\n\r\n--B--\r\n",
        ];
        let request = post(&app, "/uploads").body(body.concat());
        let request = request.header("content-type", "multipart/form-data; boundary=B");
        let upload: Value = request.send().await?.json().await?;
        ensure!(upload["filename"] == filename, "{filename}: {upload}");
    }
    app.close().await
}

async fn the_refusal_of_a_compressed_media_type_says_how_to_send_compressed_csv(
    mode: Mode,
) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    for media_type in ["application/octet-stream", "application/gzip"] {
        let request = post(&app, "/uploads").header("content-type", media_type);
        let answer = request.body("a\n1\n").send().await?;
        let refused = problem(answer, 415, "unsupported_media_type").await?;
        let remedy = "may be sent as text/csv or as a form";
        ensure!(detail(&refused)?.contains(remedy), "{refused}");
    }
    app.close().await
}

fn post(app: &App, path: &str) -> RequestBuilder {
    app.client.post(format!("{}{path}", app.url))
}

fn detail(problem: &Value) -> Result<&str> {
    problem["detail"].as_str().context("no detail")
}

async fn expect_unsupported_coding(answer: Response, coding: &str) -> Result<()> {
    let accepted = answer.headers().get("accept-encoding").cloned();
    let refused = problem(answer, 415, "unsupported_encoding").await?;
    ensure!(detail(&refused)?.contains(coding), "{refused}");
    ensure!(
        accepted.is_some_and(|accepted| accepted == "gzip, zstd"),
        "{coding}: the answer does not name the accepted codings"
    );
    Ok(())
}

async fn expect_no_uploads(app: &App) -> Result<()> {
    let (_, list) = app.get("/uploads").await?;
    ensure!(list["uploads"] == json!([]), "{list}");
    Ok(())
}
