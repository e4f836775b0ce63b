//! Previews of a file before it is imported.

use anyhow::{Result, ensure};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answers::problem;
use crate::app::App;
use crate::files::flights;
use crate::harness::Mode;

in_both_modes! {
    a_preview_agrees_with_the_import_and_stores_nothing,
    a_preview_reads_only_the_first_mebibyte,
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

    let empty = app
        .client
        .post(&address)
        .header("content-type", "text/csv")
        .body("");
    problem(empty.send().await?, 422, "empty_file").await?;
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
