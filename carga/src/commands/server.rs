//! Requests of commands to the `carga serve` that uses the data directory.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use carga_common::local_server::{self, Answer};
use serde_json::Value;

/// Sends a request, with a JSON document if there is one. The server's refusal is the error.
pub(super) async fn ask(
    server: SocketAddr,
    method: &str,
    path: &str,
    json: Option<&[u8]>,
) -> anyhow::Result<Answer> {
    let answer = match json {
        Some(json) => local_server::request_with_json(server, method, path, json).await,
        None => local_server::request(server, method, path).await,
    };
    let answer = answer.with_context(|| format!("cannot reach carga serve on {server}"))?;
    if answer.status.starts_with('2') {
        return Ok(answer);
    }
    let problem: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    match problem["detail"].as_str() {
        Some(detail) => bail!("{detail}"),
        None => bail!("carga serve on {server} answered {}", answer.status),
    }
}
