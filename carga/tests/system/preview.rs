//! Previews of a file before it is imported.

use anyhow::{Result, ensure};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::App;
use crate::files::flights;
use crate::harness::Mode;

in_both_modes! {
    a_preview_agrees_with_the_import_and_stores_nothing,
    a_preview_reads_only_the_first_mebibyte,
    a_preview_reports_a_quote_that_is_open_where_it_ends,
    a_preview_of_exactly_one_mebibyte_covers_the_whole_file,
    a_preview_without_a_header_in_the_first_mebibyte_says_so,
    a_preview_warns_of_a_cell_with_lines_that_look_like_rows,
    a_preview_of_a_refused_file_shows_its_lines_and_what_would_read_it,
}

/// How many bytes a preview reads.
const MEBIBYTE: usize = 1 << 20;

/// Sends a file to the preview.
async fn send(app: &App, file: impl Into<reqwest::Body>) -> Result<reqwest::Response> {
    let post = app.client.post(format!("{}/uploads/preview", app.url));
    let post = post.header("content-type", "text/csv").body(file);
    Ok(post.send().await?)
}

/// The preview of a file that is not refused.
async fn preview_of(app: &App, file: impl Into<reqwest::Body>) -> Result<Value> {
    let answer = send(app, file).await?;
    ensure!(answer.status() == 200, "{}", answer.text().await?);
    Ok(answer.json().await?)
}

async fn a_preview_agrees_with_the_import_and_stores_nothing(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let rows: String = (1..=30)
        .map(|row| format!("{row};caf\u{e9} {row}\n"))
        .collect();
    let text = format!("id;name\n{rows}31\n32;x;y\n");
    // In Windows-1252 each of these characters is one byte, equal to its code point.
    let file: Vec<u8> = text.chars().map(|c| c as u8).collect();
    let preview = async |body: reqwest::RequestBuilder| {
        let answer = body.send().await?;
        ensure!(answer.status() == 200, "{}", answer.text().await?);
        Ok(answer.json::<Value>().await?)
    };
    let address = format!("{}/uploads/preview", app.url);
    let raw = app.client.post(&address).header("content-type", "text/csv");
    let raw = preview(raw.body(file.clone())).await?;
    let part = Part::bytes(file.clone()).file_name("x.csv");
    let form = app
        .client
        .post(&address)
        .multipart(Form::new().part("file", part));
    ensure!(preview(form).await? == raw);

    let id = Uuid::now_v7();
    ensure!(app.put(id, file).await?.status() == 202);
    let upload = app.wait_until_ended(id).await?;
    ensure!(raw["dialect"] == upload["dialect"], "{raw}");
    ensure!(raw["columns"] == upload["columns"] && raw["columns"] == json!(["id", "name"]));
    let shown = raw["rows"].as_array().map(Vec::len);
    ensure!(
        shown == Some(20) && raw["rows"][4] == json!(["5", "café 5"]),
        "{raw}"
    );
    ensure!(raw["rejected"][1]["code"] == "too_many_fields", "{raw}");
    ensure!(
        raw["looked_at"]["rows"] == upload["rows"]["read"]
            && raw["looked_at"]["rejected"] == upload["rows"]["rejected"]
            && raw["looked_at"]["whole"] == true,
        "{raw}"
    );
    // Only the import created an upload.
    let (_, listed) = app.get("/uploads").await?;
    ensure!(
        listed["uploads"].as_array().map(Vec::len) == Some(1),
        "{listed}"
    );

    let empty = preview_of(&app, "").await?;
    ensure!(empty["problem"]["code"] == "empty_file", "{empty}");
    app.close().await
}

async fn a_preview_reads_only_the_first_mebibyte(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let post = app.client.post(format!("{}/uploads/preview", app.url));
    let post = post
        .header("content-type", "text/csv")
        .body(flights().await?);
    let preview: Value = post.send().await?.json().await?;
    ensure!(
        preview["looked_at"]["bytes"] == 1 << 20,
        "{}",
        preview["looked_at"]
    );
    ensure!(
        preview["looked_at"]["whole"] == false,
        "{}",
        preview["looked_at"]
    );
    // The row that the limit cuts off is not reported as rejected.
    ensure!(preview["rejected"] == json!([]), "{}", preview["rejected"]);
    ensure!(preview["columns"].as_array().map(Vec::len) == Some(19));
    app.close().await
}

/// Without the report, the preview would show one good row and no fault.
async fn a_preview_reports_a_quote_that_is_open_where_it_ends(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let rows = "3,b\n".repeat(300_000);
    let preview = preview_of(&app, format!("id,name\n1,a\n2,\"oops\n{rows}")).await?;
    let rejected = &preview["rejected"];
    ensure!(rejected.as_array().map(Vec::len) == Some(1), "{rejected}");
    let found = json!([
        rejected[0]["row"],
        rejected[0]["line"],
        rejected[0]["code"],
        rejected[0]["raw"]
    ]);
    ensure!(
        found == json!([2, 3, "unclosed_quote", "2,\"oops"]),
        "{rejected}"
    );
    let looked_at = json!({"bytes": MEBIBYTE, "rows": 2, "rejected": 1, "whole": false});
    ensure!(preview["looked_at"] == looked_at, "{preview}");

    // Text of several lines may go on after the cut, so it is not a rejected row.
    let start = format!("id,name\n{}", "3,b\n".repeat(MEBIBYTE / 4 - 10));
    let text = "4,\"Dear Sir,\nthank you very much for your letter\"\n";
    let preview = preview_of(&app, start + text).await?;
    ensure!(preview["rejected"] == json!([]), "{}", preview["rejected"]);
    ensure!(
        preview["warnings"][0]["code"] == "unclosed_quote",
        "{}",
        preview["warnings"]
    );
    app.close().await
}

async fn a_preview_of_exactly_one_mebibyte_covers_the_whole_file(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let mut file = "a,b\n1,2\n".repeat(MEBIBYTE / 8);
    ensure!(file.len() == MEBIBYTE);
    let preview = preview_of(&app, file.clone()).await?;
    ensure!(preview["looked_at"]["whole"] == true, "{preview}");
    file.push('x');
    let preview = preview_of(&app, file).await?;
    ensure!(preview["looked_at"]["whole"] == false, "{preview}");
    app.close().await
}

async fn a_preview_without_a_header_in_the_first_mebibyte_says_so(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let blank = "\n".repeat(MEBIBYTE);
    for (file, code) in [
        (format!("{blank}a,b\n1,2\n"), "header_not_found"),
        (blank, "empty_file"),
    ] {
        let preview = preview_of(&app, file).await?;
        ensure!(preview["problem"]["code"] == code, "{preview}");
    }
    app.close().await
}

/// The proposal is the query that reads the file.
async fn a_preview_of_a_refused_file_shows_its_lines_and_what_would_read_it(
    mode: Mode,
) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let file = "a,,c\n1,2,3\n4,5,6\n";
    let post = app
        .client
        .post(format!("{}/uploads/preview?names=strict", app.url));
    let post = post.header("content-type", "text/csv").body(file);
    let preview: Value = post.send().await?.json().await?;
    ensure!(
        preview["problem"]["code"] == "empty_column_name",
        "{preview}"
    );
    ensure!(preview["first_lines"][0] == "a,,c", "{preview}");
    ensure!(preview["dialect"]["delimiter"] == ",", "{preview}");
    let query = preview["suggestions"][0]["query"].as_str();
    ensure!(query == Some("names=repair"), "{preview}");
    let id = Uuid::now_v7();
    let answer = app.put_with(id, query.unwrap_or_default(), file).await?;
    ensure!(answer.status() == 202, "{}", answer.text().await?);
    app.expect_completed(id, 2).await?;
    app.close().await
}

async fn a_preview_warns_of_a_cell_with_lines_that_look_like_rows(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let rows = "2,nail,2\n".repeat(5);
    let file = format!("id,name,price\n1,\"5 inch nail,1\n{rows}3,nail 14\",3\n");
    let preview = preview_of(&app, file).await?;
    let warning = &preview["warnings"][0];
    ensure!(
        json!([warning["row"], warning["line"], warning["code"]])
            == json!([1, 2, "suspicious_quote"]),
        "{preview}"
    );
    ensure!(preview["rejected"] == json!([]), "{preview}");
    let evidence = preview["dialect"]["evidence"]["delimiter"].to_string();
    ensure!(evidence.contains("5 lines"), "{evidence}");
    app.close().await
}
