//! `fixtures/`: small files with faults or unusual dialects, each with its expected outcome.
//! `fixtures/writers/`: tables as common programs write them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use carga_testkit::fixtures;
use csv::StringRecord;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::answers::problem;
use crate::app::App;
use crate::harness::Mode;

in_both_modes! {
    every_fixture_has_its_expected_outcome,
    every_writers_file_is_read_without_options,
}

/// The expected outcome of a file, read from the JSON file beside it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(rename = "about")]
    _about: String,
    #[serde(default)]
    query: String,
    http: u16,
    /// The error code, if the request is refused.
    code: Option<String>,
    /// The upload's status, if the request is accepted.
    status: Option<String>,
    #[serde(default)]
    dialect: BTreeMap<String, Value>,
    #[serde(default)]
    columns: Vec<String>,
    #[serde(default)]
    rows: Vec<Vec<String>>,
    #[serde(default)]
    rejected: Vec<Rejected>,
    #[serde(default)]
    blank_lines: u64,
}

#[derive(Deserialize, PartialEq, Debug)]
struct Rejected {
    row: u64,
    line: u64,
    offset: u64,
    code: String,
    column: Option<String>,
}

async fn every_fixture_has_its_expected_outcome(mode: Mode) -> Result<()> {
    let cases = cases(&fixtures::directory())?;
    ensure!(cases.len() > 50, "found only {} cases", cases.len());
    check_all(mode, cases).await
}

async fn every_writers_file_is_read_without_options(mode: Mode) -> Result<()> {
    let cases = cases(&fixtures::directory().join("writers"))?;
    ensure!(cases.len() > 50, "found only {} cases", cases.len());
    for (file, expected) in &cases {
        ensure!(expected.query.is_empty(), "{} has options", file.display());
    }
    check_all(mode, cases).await
}

async fn check_all(mode: Mode, cases: Vec<(PathBuf, Expected)>) -> Result<()> {
    let harness = mode.harness().await?;
    let harness = harness
        .with("CARGA_MAX_FIELD_BYTES", "1000")
        .with("CARGA_MAX_ROW_BYTES", "4000");
    let app = App::start(harness, 1).await?;
    let mut failed = Vec::new();
    for (file, expected) in cases {
        let name = file
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        if let Err(error) = check(&app, &file, &expected).await {
            failed.push(format!("{}: {error:#}", name.unwrap_or_default()));
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    app.close().await
}

/// Every file of a directory with its expected outcome.
fn cases(directory: &Path) -> Result<Vec<(PathBuf, Expected)>> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(directory)? {
        let file = entry?.path();
        if matches!(
            file.extension().and_then(|name| name.to_str()),
            None | Some("json" | "md" | "py")
        ) {
            continue;
        }
        let name = file
            .file_name()
            .and_then(|name| name.to_str())
            .context("no name")?;
        let stem = name.split('.').next().unwrap_or(name);
        let beside = file.with_file_name(format!("{stem}.json"));
        let expected = fs::read(&beside).with_context(|| beside.display().to_string())?;
        let expected = serde_json::from_slice(&expected).with_context(|| stem.to_owned())?;
        cases.push((file, expected));
    }
    Ok(cases)
}

async fn check(app: &App, file: &Path, expected: &Expected) -> Result<()> {
    let id = Uuid::now_v7();
    let answer = app.put_with(id, &expected.query, fs::read(file)?).await?;
    if let Some(code) = &expected.code {
        problem(answer, expected.http, code).await?;
        // Either there is no upload, or it has failed and lists its rejected rows.
        if app.upload(id).await?.is_some() {
            app.expect_failed(id, code).await?;
        }
        return check_rejected(app, id, expected).await;
    }
    let status = answer.status();
    ensure!(
        status == expected.http,
        "{status}: {}",
        answer.text().await?
    );
    let upload = app.wait_until_ended(id).await?;
    let wanted = expected
        .status
        .as_deref()
        .context("the JSON file has no status")?;
    ensure!(upload["status"] == wanted, "{upload}");
    for (field, value) in &expected.dialect {
        ensure!(
            upload["dialect"][field] == *value,
            "{field}: {}",
            upload["dialect"]
        );
    }
    ensure!(
        upload["columns"] == serde_json::json!(expected.columns),
        "{}",
        upload["columns"]
    );
    ensure!(
        upload["blank_lines"] == expected.blank_lines,
        "blank: {}",
        upload["blank_lines"]
    );
    let counts = [expected.rows.len() as u64, expected.rejected.len() as u64];
    let [stored, rejected] = counts;
    ensure!(
        upload["rows"]["read"] == stored + rejected,
        "{}",
        upload["rows"]
    );
    ensure!(upload["rows"]["inserted"] == stored, "{}", upload["rows"]);
    ensure!(upload["rows"]["rejected"] == rejected, "{}", upload["rows"]);
    let numbers = (1..).filter(|number| expected.rejected.iter().all(|row| row.row != *number));
    let rows: Vec<(i64, StringRecord)> = numbers
        .zip(&expected.rows)
        .map(|(number, row)| (number as i64, StringRecord::from(row.clone())))
        .collect();
    let rows = rows.iter().map(|(number, row)| (*number, row));
    app.harness.check_numbered_rows(id, rows).await?;
    check_rejected(app, id, expected).await
}

async fn check_rejected(app: &App, id: Uuid, expected: &Expected) -> Result<()> {
    let report = app
        .client
        .get(format!("{}/uploads/{id}/rejected", app.url))
        .header("accept", "application/x-ndjson")
        .send()
        .await?;
    if report.status() == 404 {
        ensure!(expected.rejected.is_empty(), "no reject report");
        return Ok(());
    }
    let report = report.text().await?;
    let found: Vec<Rejected> = report
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(found == expected.rejected, "{report}");
    Ok(())
}
