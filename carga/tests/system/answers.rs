//! Checks on the answers of the HTTP API.

use anyhow::{Context, Result, ensure};
use reqwest::Response;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::document::expect_documented;

/// Reads the answer as a problem document. Fails unless it has this status and code, and unless the
/// OpenAPI document has them for a call of this path.
pub(crate) async fn problem(answer: Response, status: u16, code: &str) -> Result<Value> {
    let found = answer.status();
    let path = answer.url().path().to_owned();
    let media_type = answer.headers().get("content-type").cloned();
    let request_id = answer
        .headers()
        .get("x-request-id")
        .cloned()
        .context("no request id")?;
    let problem: Value = answer.json().await?;
    ensure!(
        found == status && problem["code"] == code,
        "expected {status} {code}, found {found}: {problem}"
    );
    expect_documented(&path, status, code)?;
    ensure!(media_type.is_some_and(|found| found == "application/problem+json"));
    ensure!(
        problem["status"] == status && problem["request_id"] == request_id.to_str()?,
        "{problem}"
    );
    ensure!(
        problem["title"].is_string()
            && problem["type"].is_string()
            && problem["detail"].is_string(),
        "{problem}"
    );
    Ok(problem)
}

/// Checks that read = inserted + updated + duplicate + rejected + dead + discarded + pending,
/// which every answer must satisfy.
pub(crate) fn check_accounts(upload: &Value) -> Result<()> {
    let figure = |name: &str| {
        let figure = upload["rows"][name].as_u64();
        figure.with_context(|| format!("no `{name}` in {upload}"))
    };
    let parts = [
        "inserted",
        "updated",
        "duplicate",
        "rejected",
        "dead",
        "discarded",
        "pending",
    ];
    let sum: u64 = parts.into_iter().map(figure).sum::<Result<_>>()?;
    ensure!(
        figure("read")? == sum,
        "the row counts do not add up: {upload}"
    );
    Ok(())
}

/// The file's digest in the notation of the API.
pub(crate) fn sha256_hex(file: impl AsRef<[u8]>) -> String {
    let digest = Sha256::digest(file);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
