//! Datasets: the rows of a file go into a table with declared columns.

mod declaring;
mod matching;
mod merging;
mod merging_at_scale;
mod merging_violations;
mod names;
mod quoting;
mod reading;
mod refusing;
mod removing;
mod storing;
mod suggesting;
mod tables;
mod undoing_merges;
mod user_tables;
mod validating;
mod violations;
mod violations_at_scale;

use anyhow::{Context, Result, anyhow, ensure};
use reqwest::{Body, RequestBuilder, Response, Url};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::{App, Sending};

/// The columns of the flights file; `NA` stands for a missing value.
pub(crate) const FLIGHTS_COLUMNS: [(&str, &str); 19] = [
    ("year", "integer"),
    ("month", "integer"),
    ("day", "integer"),
    ("dep_time", "integer"),
    ("sched_dep_time", "integer"),
    ("dep_delay", "integer"),
    ("arr_time", "integer"),
    ("sched_arr_time", "integer"),
    ("arr_delay", "integer"),
    ("carrier", "text"),
    ("flight", "integer"),
    ("tailnum", "text"),
    ("origin", "text"),
    ("dest", "text"),
    ("air_time", "integer"),
    ("distance", "integer"),
    ("hour", "integer"),
    ("minute", "integer"),
    ("time_hour", "timestamp"),
];

pub(crate) fn flights_definition() -> Value {
    let columns = FLIGHTS_COLUMNS.map(|(name, kind)| json!({ "name": name, "type": kind }));
    json!({ "columns": columns, "null": ["NA"] })
}

/// The URL of a path, whose segments may have any characters.
fn url(app: &App, segments: &[&str]) -> Result<Url> {
    let mut url = Url::parse(&app.url)?;
    let path = url.path_segments_mut();
    path.map_err(|()| anyhow!("{} has no path", app.url))?
        .extend(segments);
    Ok(url)
}

/// A request that puts a definition.
fn putting(app: &App, dataset: &str, definition: &Value) -> Result<RequestBuilder> {
    let put = app.client.put(url(app, &["datasets", dataset])?);
    Ok(put.json(definition))
}

/// Puts a definition. Fails unless the answer has this status, and returns its body.
async fn put(app: &App, dataset: &str, definition: &Value, status: u16) -> Result<Value> {
    let answer = putting(app, dataset, definition)?.send().await?;
    let found = answer.status();
    let body: Value = answer.json().await?;
    ensure!(found == status, "expected {status}, found {found}: {body}");
    Ok(body)
}

/// Creates a dataset of these columns.
async fn declare(app: &App, dataset: &str, columns: Value) -> Result<Value> {
    put(app, dataset, &json!({ "columns": columns }), 201).await
}

async fn delete(app: &App, dataset: &str) -> Result<Response> {
    let delete = app.client.delete(url(app, &["datasets", dataset])?);
    Ok(delete.send().await?)
}

/// A request that sends a file, with options.
fn sending(
    app: &App,
    id: Uuid,
    options: &[(&str, &str)],
    file: impl Into<Body>,
) -> Result<RequestBuilder> {
    let mut url = url(app, &["uploads", &id.to_string()])?;
    url.query_pairs_mut().extend_pairs(options);
    let put = app.client.put(url).header("content-type", "text/csv");
    Ok(put.body(file))
}

/// The options of an upload to a dataset. They name the dialect, because a file of two lines says
/// little about it.
fn options<'a>(dataset: &'a str, further: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let dialect = [
        ("delimiter", ","),
        ("quote", "\""),
        ("encoding", "utf-8"),
        ("skip", "0"),
        ("header", "true"),
    ];
    [&[("dataset", dataset)][..], &dialect, further].concat()
}

/// Sends a file with options.
async fn send(
    app: &App,
    id: Uuid,
    options: &[(&str, &str)],
    file: impl Into<Body>,
) -> Result<Response> {
    Ok(sending(app, id, options, file)?.send().await?)
}

/// Sends a file for a dataset in the background.
fn start_sending(app: &App, id: Uuid, dataset: &str, file: impl Into<Body>) -> Result<Sending> {
    let request = sending(app, id, &options(dataset, &[]), file)?;
    Ok(tokio::spawn(request.send()))
}

/// Sends a file for a dataset. Fails unless all of its rows are stored.
async fn import(app: &App, dataset: &str, file: impl Into<Body>, rows: i64) -> Result<Uuid> {
    let id = Uuid::now_v7();
    let answer = send(app, id, &options(dataset, &[]), file).await?;
    ensure!(answer.status() == 202, "{}", answer.text().await?);
    expect_stored(app, dataset, id, "completed", rows).await?;
    Ok(id)
}

/// Polls until the upload has ended. Fails unless it ended with this status, and this number of its
/// rows is in the dataset's table, each row once.
async fn expect_stored(
    app: &App,
    dataset: &str,
    id: Uuid,
    status: &str,
    rows: i64,
) -> Result<Value> {
    let upload = app.wait_until_ended(id).await?;
    ensure!(
        upload["status"] == status
            && upload["dataset"] == dataset
            && upload["rows"]["inserted"] == rows,
        "{upload}"
    );
    let (all, distinct) = app.harness.count_typed(dataset, id).await?;
    ensure!(
        (all, distinct) == (rows, rows),
        "expected {rows} distinct rows, found {all} rows, {distinct} of them distinct"
    );
    let elsewhere = app.harness.count_rows(id).await?;
    ensure!(elsewhere == (0, 0), "{elsewhere:?} rows in other tables");
    Ok(upload)
}

/// Undoes an upload, and polls until its rows are removed.
async fn undo(app: &App, id: Uuid) -> Result<()> {
    let undo = app.client.post(format!("{}/uploads/{id}/undo", app.url));
    let answer = undo.send().await?;
    ensure!(answer.status() == 202, "{}", answer.text().await?);
    app.wait_until_cleaned(id).await
}

/// The text of a problem document for people.
fn detail(problem: &Value) -> Result<&str> {
    problem["detail"].as_str().context("no detail")
}
