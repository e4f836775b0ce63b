//! A validation says what an upload of a file would do now, and stores nothing.

mod agreeing;
mod command;
mod leftovers;
mod limits;
mod mixed;
mod refusing;
mod simultaneous;
mod state;
mod user_tables;
mod waiting;
mod warnings;

use anyhow::{Context, Result, ensure};
use reqwest::{Body, RequestBuilder, Response};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use self::state::State;
use super::merging::send_accepted;
use super::violations::rejected_rows;
use super::{options, url};
use crate::app::App;

/// The most rejected rows that an answer has.
const FIRST_REJECTS: usize = 100;

/// The sequence of the table in the tests of tables of the user. No database takes the numbers of a
/// sequence back, so a validation may advance it.
const IDENTITY: &[&str] = &["shop.products_id_seq"];

/// A request that validates a file, with options.
fn validating(
    app: &App,
    options: &[(&str, &str)],
    file: impl Into<Body>,
) -> Result<RequestBuilder> {
    let mut url = url(app, &["uploads", "validate"])?;
    url.query_pairs_mut().extend_pairs(options);
    let post = app.client.post(url).header("content-type", "text/csv");
    Ok(post.body(file))
}

/// Reads the answer of a validation. Fails if it is a refusal.
async fn read(answer: Response) -> Result<Value> {
    let status = answer.status();
    let body: Value = answer.json().await?;
    ensure!(status == 200, "expected 200, found {status}: {body}");
    Ok(body)
}

/// Validates a file for a dataset. Fails if it is refused.
async fn validate(
    app: &App,
    dataset: &str,
    further: &[(&str, &str)],
    file: impl Into<Body>,
) -> Result<Value> {
    let request = validating(app, &options(dataset, further), file)?;
    read(request.send().await?).await
}

/// Validates a file, and then sends it. Fails unless the validation stores nothing, and the upload
/// ends as the validation says. The validation may advance only the sequences in `free`.
async fn validate_then_send(
    app: &App,
    dataset: &str,
    further: &[(&str, &str)],
    file: impl Into<Body> + Clone,
    free: &'static [&'static str],
) -> Result<(Value, Uuid)> {
    let state = State::read_without(app, free).await?;
    let validation = validate(app, dataset, further, file.clone()).await?;
    state.expect_unchanged(app).await?;
    let id = send_accepted(app, dataset, further, file).await?;
    expect_same_outcome(app, &validation, id).await?;
    Ok((validation, id))
}

/// Polls until the upload has ended. Fails unless it ended as the validation says.
async fn expect_same_outcome(app: &App, validation: &Value, id: Uuid) -> Result<()> {
    let upload = app.wait_until_ended(id).await?;
    ensure!(
        upload["status"] == "completed" || upload["status"] == "partial",
        "ended as {upload}, but the validation says {validation}"
    );
    let rows = &upload["rows"];
    let expected = figures([
        &rows["read"],
        &rows["inserted"],
        &rows["updated"],
        &rows["duplicate"],
        &rows["rejected"],
    ]);
    ensure!(
        validation["rows"] == expected,
        "ended with {expected}, but the validation says {validation}"
    );
    ensure!(
        validation["columns"] == upload["columns"] && validation["dialect"] == upload["dialect"],
        "{upload} instead of {validation}"
    );
    let mut rejected = rejected_rows(app, id).await?;
    rejected.truncate(FIRST_REJECTS);
    let found = validation["rejected"].as_array().context("no rejects")?;
    ensure!(*found == rejected, "{found:?} instead of {rejected:?}");
    Ok(())
}

/// The figures of a validation: rows that are read, would be inserted, would be updated, would
/// change nothing, and would be rejected.
fn figures<T: Serialize>([read, inserted, updated, unchanged, rejected]: [T; 5]) -> Value {
    json!({
        "read": read,
        "would_insert": inserted,
        "would_update": updated,
        "unchanged": unchanged,
        "rejected": rejected,
    })
}
