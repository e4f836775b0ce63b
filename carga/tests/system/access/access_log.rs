//! The line of a request names its sender, and has no secret.

use anyhow::{Context, Result, ensure};
use carga_testkit::eventually;
use reqwest::Method;
use serde_json::{Value, json};

use super::{ADMIN, get, make, request, secret, text};
use crate::app::{App, TIMEOUT};
use crate::harness::Mode;

in_both_modes! {
    the_line_of_a_request_has_its_sender_and_masks_a_key_in_the_path,
    a_preflight_request_has_no_line_at_the_level_info,
}

const PAGE: &str = "https://app.example.org";

/// A Carga that requires keys, allows a page, and logs JSON.
async fn logging_app(mode: Mode) -> Result<App> {
    let harness = mode.harness().await?.with("CARGA_AUTH", "on");
    let harness = harness.with("CARGA_ADMIN_KEY", ADMIN);
    let harness = harness.with("CARGA_ALLOWED_ORIGINS", PAGE);
    App::start(harness.with("CARGA_LOG_FORMAT", "json"), 0).await
}

/// Waits until this many requests have a line, and returns the fields of the lines.
async fn lines(app: &App, count: usize) -> Result<Vec<Value>> {
    let written = async || {
        let log = app.api.log();
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let requests = lines.filter(|line| line["target"] == "carga_api::access_log");
        let fields: Vec<Value> = requests.map(|line| line["fields"].clone()).collect();
        (fields.len() >= count).then_some(fields)
    };
    eventually(TIMEOUT, "the lines of the requests", written).await
}

async fn the_line_of_a_request_has_its_sender_and_masks_a_key_in_the_path(
    mode: Mode,
) -> Result<()> {
    let app = logging_app(mode).await?;
    let made = make(&app, &json!({ "scopes": ["read"] })).await?;
    let (id, key) = (text(&made, "id")?, text(&made, "key")?);
    let tokens = request(&app, Method::POST, "/tokens", Some(&key));
    let token: Value = tokens.json(&json!({})).send().await?.json().await?;
    let sender = format!("{id}.{}", text(&token, "id")?);
    ensure!(
        get(&app, "/uploads?limit=7", Some(&text(&token, "token")?))
            .await?
            .status()
            == 200
    );
    let refused = get(&app, "/uploads", None).await?;
    ensure!(refused.status() == 401);
    let revoke = request(&app, Method::DELETE, &format!("/keys/{key}"), Some(ADMIN));
    ensure!(revoke.send().await?.status() == 200);

    let lines = lines(&app, 5).await?;
    let line = |method: &str, path: &str, status: u16| {
        let is_it = |line: &&Value| {
            line["method"] == method && line["path"] == path && line["status"] == status
        };
        let line = lines.iter().find(is_it);
        line.with_context(|| format!("no line of {method} {path}: {lines:#?}"))
    };
    let masked = format!("/keys/carga_{id}_***");
    for (line, expected) in [
        (line("POST", "/keys", 201)?, None),
        (line("POST", "/tokens", 201)?, Some(id.as_str())),
        (line("GET", "/uploads", 200)?, Some(sender.as_str())),
        (line("GET", "/uploads", 401)?, None),
        (line("DELETE", &masked, 200)?, None),
    ] {
        ensure!(line["sender"].as_str() == expected, "{line:#}");
    }
    let log = app.api.log();
    ensure!(!log.contains("limit=7"), "a query is in the log");
    ensure!(!log.contains(secret(&key)?), "a key is in the log");
    app.close().await
}

async fn a_preflight_request_has_no_line_at_the_level_info(mode: Mode) -> Result<()> {
    let app = logging_app(mode).await?;
    let preflight = request(&app, Method::OPTIONS, "/uploads", None);
    let preflight = preflight.header("origin", PAGE);
    let preflight = preflight.header("access-control-request-method", "POST");
    ensure!(preflight.send().await?.status() == 204);
    ensure!(get(&app, "/uploads", Some(ADMIN)).await?.status() == 200);
    let lines = lines(&app, 1).await?;
    ensure!(
        lines.len() == 1 && lines[0]["method"] == "GET",
        "{lines:#?}"
    );
    app.close().await
}
