//! Random names of datasets, columns, headers, tables and constraints change nothing but the rows
//! of their dataset.
//!
//! The names differ in every run. A failed test prints the variable that repeats its names.

mod before;
mod own_tables;
mod random;
mod too_long;
mod user_tables;

use anyhow::{Context, Result, ensure};
use csv::{QuoteStyle, StringRecord, WriterBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{options, url};
use crate::app::App;
use crate::files;

/// How many times a test draws names.
const ROUNDS: usize = 6;

/// How many rows of a file violate no constraint. They are the first ones.
const GOOD: usize = 2;

/// An escape character is not looked for, because names may contain backslashes before quotes.
const NO_ESCAPE: (&str, &str) = ("escape", "none");

/// The options of uploads and validations, besides the dialect.
const READING: [(&str, &str); 2] = [NO_ESCAPE, ("unknown_columns", "ignore")];

/// A file whose names and cells are all quoted.
fn file_of(header: &[&str], rows: &[Vec<String>]) -> Result<Vec<u8>> {
    let mut file = WriterBuilder::new()
        .quote_style(QuoteStyle::Always)
        .from_writer(Vec::new());
    file.write_record(header)?;
    for row in rows {
        file.write_record(row)?;
    }
    Ok(file.into_inner()?)
}

/// Validates a file for a dataset. Fails if it is refused.
async fn validate(app: &App, dataset: &str, file: Vec<u8>) -> Result<Value> {
    let mut url = url(app, &["uploads", "validate"])?;
    url.query_pairs_mut()
        .extend_pairs(options(dataset, &READING));
    let post = app.client.post(url).header("content-type", "text/csv");
    let answer = post.body(file).send().await?;
    let status = answer.status();
    let body: Value = answer.json().await?;
    ensure!(status == 200, "expected 200, found {status}: {body}");
    Ok(body)
}

/// The columns and records of a CSV that Carga writes about an upload: `rows` or `rejected`.
async fn download(app: &App, id: Uuid, what: &str) -> Result<(Vec<String>, Vec<StringRecord>)> {
    let url = format!("{}/uploads/{id}/{what}", app.url);
    let answer = app.client.get(url).send().await?.error_for_status()?;
    files::read(&answer.bytes().await?)
}

/// Adds the numbers and the cells of the rows that are not good to their rejects.
fn with_rows(mut rejects: Vec<Value>, rows: &[Vec<String>]) -> Vec<Value> {
    let violating = (1..).zip(rows).skip(GOOD);
    for (reject, (number, row)) in rejects.iter_mut().zip(violating) {
        reject["row"] = json!(number);
        reject["fields"] = json!(row);
    }
    rejects
}

/// Fails unless the rejected rows have the expected fields. They may also have others.
fn check_rejected(found: &[Value], expected: &[Value]) -> Result<()> {
    ensure!(
        found.len() == expected.len(),
        "{found:#?} instead of {expected:#?}"
    );
    for (found, expected) in found.iter().zip(expected) {
        for (field, value) in expected.as_object().context("not an object")? {
            ensure!(
                found[field] == *value,
                "`{field}`: {found:#} instead of {expected:#}"
            );
        }
    }
    Ok(())
}
