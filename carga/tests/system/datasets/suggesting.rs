//! A definition that is proposed from a file takes every row of the file.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use reqwest::Body;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{FLIGHTS_COLUMNS, declare, delete, expect_stored, put, send, url};
use crate::answers::problem;
use crate::app::App;
use crate::files::{FLIGHTS_ROWS, flights};
use crate::harness::Mode;

in_both_modes! {
    the_definition_suggested_for_the_flights_takes_all_of_them,
    the_definition_suggested_for_the_example_takes_all_of_its_rows,
    a_suggestion_stores_nothing_and_has_the_limits_of_an_upload,
    a_dataset_may_be_named_suggest,
}

/// A request for a definition.
fn asking(app: &App, file: impl Into<Body>) -> reqwest::RequestBuilder {
    let post = app.client.post(format!("{}/datasets/suggest", app.url));
    post.header("content-type", "text/csv").body(file)
}

/// The definition suggested for a file.
async fn suggested(app: &App, file: impl Into<Body>) -> Result<Value> {
    let answer = asking(app, file).send().await?;
    ensure!(answer.status() == 200, "{}", answer.text().await?);
    Ok(answer.json().await?)
}

/// Puts the definition suggested for a file, and imports the file with it. Fails unless all rows
/// are stored.
async fn import_as_suggested(app: &App, file: Bytes, rows: i64) -> Result<Value> {
    let found = suggested(app, file.clone()).await?;
    ensure!(found["rejected"] == 0, "{found}");
    put(app, "suggested", &found["dataset"], 201).await?;
    let id = Uuid::now_v7();
    let answer = send(app, id, &[("dataset", "suggested")], file).await?;
    ensure!(answer.status() == 202, "{}", answer.text().await?);
    expect_stored(app, "suggested", id, "completed", rows).await?;
    Ok(found)
}

/// The types of the columns, by their names.
fn types(found: &Value) -> Result<Vec<(&str, &str)>> {
    let columns = found["dataset"]["columns"].as_array();
    let columns = columns.context("no columns")?.iter();
    let typed = columns.map(|column| column["name"].as_str().zip(column["type"].as_str()));
    typed.collect::<Option<_>>().context("no name or no type")
}

async fn the_definition_suggested_for_the_flights_takes_all_of_them(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 2).await?;
    let found = import_as_suggested(&app, flights().await?, FLIGHTS_ROWS).await?;
    ensure!(types(&found)? == FLIGHTS_COLUMNS, "{found}");
    ensure!(found["dataset"]["null"] == json!(["", "NA"]), "{found}");
    let year = &found["evidence"][0];
    ensure!(
        year["column"] == "year" && year["fits"] == FLIGHTS_ROWS && year["nulls"] == 0,
        "{year}"
    );
    app.close().await
}

async fn the_definition_suggested_for_the_example_takes_all_of_its_rows(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/sales.csv");
    let file = tokio::fs::read(path).await.context(path)?;
    let found = import_as_suggested(&app, file.into(), 5).await?;
    // A price has a decimal point, and a day does not exist.
    let expected = [
        ("Código", "text"),
        ("Preço", "text"),
        ("Quantidade", "integer"),
        ("Vendido em", "text"),
    ];
    ensure!(types(&found)? == expected, "{found}");
    let key = found["evidence"][0]["why"].as_str();
    ensure!(
        key.is_some_and(|why| why.contains("could be the key")),
        "{found}"
    );
    app.close().await
}

async fn a_suggestion_stores_nothing_and_has_the_limits_of_an_upload(mode: Mode) -> Result<()> {
    let harness = mode.harness().await?;
    let app = App::start(harness.with("CARGA_MAX_UPLOAD_BYTES", "1000"), 0).await?;
    let small = "id,name\n1,a\n2,b\n";
    let raw = suggested(&app, small).await?;
    let form = Form::new().part("file", Part::bytes(small.as_bytes()).file_name("x.csv"));
    let post = app.client.post(url(&app, &["datasets", "suggest"])?);
    let form: Value = post.multipart(form).send().await?.json().await?;
    ensure!(form == raw, "{form} instead of {raw}");
    let large = asking(&app, format!("id\n{}", "1\n".repeat(1000)));
    problem(large.send().await?, 413, "upload_too_large").await?;
    let mut with_dataset = url(&app, &["datasets", "suggest"])?;
    with_dataset.set_query(Some("dataset=sales"));
    let post = app.client.post(with_dataset);
    let post = post.header("content-type", "text/csv").body(small);
    problem(post.send().await?, 400, "malformed_option").await?;
    let (_, uploads) = app.get("/uploads").await?;
    let (_, datasets) = app.get("/datasets").await?;
    ensure!(
        uploads["uploads"] == json!([]) && datasets["datasets"] == json!([]),
        "{uploads} {datasets}"
    );
    app.close().await
}

async fn a_dataset_may_be_named_suggest(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let declared = declare(&app, "suggest", json!([{ "name": "a", "type": "text" }])).await?;
    let (status, shown) = app.get("/datasets/suggest").await?;
    ensure!(status == 200 && shown == declared, "{shown}");
    ensure!(delete(&app, "suggest").await?.status() == 204);
    app.close().await
}
