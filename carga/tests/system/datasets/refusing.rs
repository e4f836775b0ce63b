//! Definitions that are refused, and the messages of the refusals.

use anyhow::{Result, ensure};
use futures::stream;
use reqwest::{Body, Response};
use serde_json::json;

use super::{detail, putting, url};
use crate::answers::problem;
use crate::app::App;
use crate::harness::Mode;

in_both_modes! {
    a_fault_of_a_definition_names_its_field,
    a_body_that_cannot_be_a_definition_is_refused,
    a_method_that_no_dataset_has_is_refused_with_the_one_that_declares_it,
}

/// Puts a body as it is. It need not be JSON.
async fn put_body(app: &App, media_type: &str, body: impl Into<Body>) -> Result<Response> {
    let put = app.client.put(url(app, &["datasets", "faulty"])?);
    let put = put.header("content-type", media_type).body(body);
    Ok(put.send().await?)
}

async fn a_fault_of_a_definition_names_its_field(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let text = json!({ "name": "a", "type": "text" });
    for (definition, field) in [
        (json!({}), "columns"),
        (json!({ "columns": [] }), "columns"),
        (json!({ "columns": [text], "nul": ["NA"] }), "nul"),
        (
            json!({ "columns": [text, { "name": "b", "type": "varchar" }] }),
            "columns[1].type",
        ),
        (
            json!({ "columns": [text, { "name": "A", "type": "text" }] }),
            "columns[1].name",
        ),
        (
            json!({ "columns": [text, { "name": "row_number", "type": "text" }] }),
            "columns[1].name",
        ),
        (
            json!({ "columns": [{ "name": "a", "type": "text", "decimal": "," }] }),
            "columns[0].decimal",
        ),
        (
            json!({ "columns": [{ "name": "a", "type": "text", "format": "%Y" }] }),
            "columns[0].format",
        ),
        (json!({ "columns": [text], "key": ["b"] }), "key[0]"),
        (json!({ "columns": [text], "key": ["a", "a"] }), "key[1]"),
        (json!({ "columns": [text], "mode": "ignore" }), "mode"),
        (json!({ "columns": [text], "mode": "upsert" }), "mode"),
        (
            json!({ "columns": [text, { "name": "b", "type": "json" }], "key": ["a", "b"] }),
            "key[1]",
        ),
    ] {
        let answer = putting(&app, "faulty", &definition)?.send().await?;
        let refused = problem(answer, 422, "malformed_definition").await?;
        ensure!(detail(&refused)?.contains(field), "{field}: {refused}");
    }
    let answer = put_body(&app, "application/json", "{\"columns\": [").await?;
    problem(answer, 422, "malformed_definition").await?;
    let (_, list) = app.get("/datasets").await?;
    ensure!(list["datasets"] == json!([]), "{list}");
    app.close().await
}

async fn a_body_that_cannot_be_a_definition_is_refused(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let definition = r#"{ "columns": [{ "name": "a", "type": "text" }] }"#;
    let answer = put_body(&app, "text/csv", definition).await?;
    problem(answer, 415, "unsupported_media_type").await?;

    let largest = " ".repeat((1 << 20) - definition.len()) + definition;
    let answer = put_body(&app, "application/json", largest.clone()).await?;
    ensure!(answer.status() == 201, "{}", answer.text().await?);
    let too_large = " ".to_owned() + &largest;
    // With and without a length that the server can refuse before it reads the body.
    let pieces = stream::iter([Ok::<_, std::io::Error>(too_large.clone())]);
    for body in [Body::from(too_large), Body::wrap_stream(pieces)] {
        let answer = put_body(&app, "application/json", body).await?;
        let refused = problem(answer, 413, "definition_too_large").await?;
        ensure!(refused["limit"] == 1 << 20, "{refused}");
    }
    let put = app
        .client
        .put(format!("{}/datasets/faulty?mode=update", app.url))
        .json(&json!({}));
    problem(put.send().await?, 400, "unknown_option").await?;
    app.close().await
}

async fn a_method_that_no_dataset_has_is_refused_with_the_one_that_declares_it(
    mode: Mode,
) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let definition = json!({ "columns": [{ "name": "a", "type": "text" }] });
    for segments in [&["datasets"][..], &["datasets", "sales"]] {
        let post = app.client.post(url(&app, segments)?).json(&definition);
        let answer = post.send().await?;
        ensure!(answer.headers().contains_key("allow"), "{segments:?}");
        let refused = problem(answer, 405, "method_not_allowed").await?;
        let remedy = "`PUT /datasets/{name}`";
        ensure!(detail(&refused)?.contains(remedy), "{refused}");
    }
    let delete = app.client.delete(url(&app, &["uploads"])?);
    let refused = problem(delete.send().await?, 405, "method_not_allowed").await?;
    ensure!(!detail(&refused)?.contains("dataset"), "{refused}");
    let head = app.client.head(url(&app, &["datasets"])?).send().await?;
    ensure!(head.status() == 200, "{}", head.status());
    app.close().await
}
