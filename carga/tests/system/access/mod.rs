//! Keys, tokens and JWTs: who may send requests, and what each of them allows.

mod access_log;
mod audit;
mod commands;
mod jwts;
mod keys;
mod many_uploads;
mod matrix;
mod metrics;
mod one_dataset;
mod own_uploads;
mod repeated_ids;
mod repeated_requests;
mod requests;
mod routes;
mod starting;
mod tenants;
mod tokens;
mod user_tables;
mod validation;

use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_testkit::{Binary, command, eventually};
use reqwest::{Body, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::{App, KNOWN_DIALECT, TIMEOUT};
use crate::harness::{Harness, Mode};

/// The value of `CARGA_ADMIN_KEY`.
pub(crate) const ADMIN: &str = "the-admin-key-of-the-tests-0123456789";

/// The time within which a revocation takes effect on every API.
const REVOCATION: Duration = Duration::from_secs(5);

/// A Carga that requires keys, and that does not limit requests: tests send many in a second.
async fn closed_app(mode: Mode, workers: usize) -> Result<App> {
    App::start(closed_harness(mode).await?, workers).await
}

pub(crate) async fn closed_harness(mode: Mode) -> Result<Harness> {
    let mut harness = mode.harness().await?;
    for limit in ["ADDRESS", "KEY", "BURST"] {
        harness = harness.with(&format!("CARGA_LIMIT_{limit}"), "off");
    }
    let harness = harness.with("CARGA_AUTH", "on");
    Ok(harness.with("CARGA_ADMIN_KEY", ADMIN))
}

pub(crate) fn request(app: &App, method: Method, path: &str, key: Option<&str>) -> RequestBuilder {
    let request = app.client.request(method, format!("{}{path}", app.url));
    match key {
        Some(key) => request.header("x-api-key", key),
        None => request,
    }
}

pub(crate) async fn get(app: &App, path: &str, key: Option<&str>) -> Result<Response> {
    Ok(request(app, Method::GET, path, key).send().await?)
}

/// Reads a document that the holder of the key may read.
async fn read(app: &App, path: &str, key: &str) -> Result<Value> {
    let answer = get(app, path, Some(key)).await?;
    let status = answer.status();
    let body = answer.text().await?;
    ensure!(status == 200, "{path}: {status}: {body}");
    Ok(serde_json::from_str(&body)?)
}

/// Sends a raw body under this id. `options` follow those of the dialect, and begin with `&` if
/// there are any.
pub(crate) async fn send(
    app: &App,
    key: &str,
    id: Uuid,
    options: &str,
    body: impl Into<Body>,
) -> Result<Response> {
    let path = format!("/uploads/{id}?{KNOWN_DIALECT}{options}");
    let put = request(app, Method::PUT, &path, Some(key));
    let put = put.header("content-type", "text/csv").body(body);
    Ok(put.send().await?)
}

/// Sends like `send`. Fails unless the file is accepted.
async fn send_accepted(
    app: &App,
    key: &str,
    id: Uuid,
    options: &str,
    body: impl Into<Body>,
) -> Result<Value> {
    let answer = send(app, key, id, options, body).await?;
    let status = answer.status();
    let upload: Value = answer.json().await?;
    ensure!(status == 202, "{status}: {upload}");
    Ok(upload)
}

/// Polls with the key until the upload has ended.
async fn wait_until_ended(app: &App, key: &str, id: Uuid) -> Result<Value> {
    let path = format!("/uploads/{id}");
    let ended = async || {
        let upload = read(app, &path, key).await.ok()?;
        (!upload["finished_at"].is_null()).then_some(upload)
    };
    eventually(TIMEOUT, "the upload to end", ended).await
}

/// The ids of a page of uploads.
fn ids(page: &Value) -> Result<Vec<String>> {
    let uploads = page["uploads"].as_array().context("no uploads")?;
    uploads.iter().map(|upload| text(upload, "id")).collect()
}

/// Makes a key of a tenant with these scopes, and returns only the key.
pub(crate) async fn key_of(app: &App, tenant: &str, scopes: &[&str]) -> Result<String> {
    let made = make(app, &json!({ "tenant": tenant, "scopes": scopes })).await?;
    text(&made, "key")
}

/// Puts the definition of a dataset.
async fn declare(app: &App, key: &str, name: &str, definition: &Value) -> Result<Response> {
    let put = request(app, Method::PUT, &format!("/datasets/{name}"), Some(key));
    Ok(put.json(definition).send().await?)
}

/// Makes a key with the admin key.
async fn make(app: &App, fields: &Value) -> Result<Value> {
    let post = request(app, Method::POST, "/keys", Some(ADMIN));
    let answer = post.json(fields).send().await?;
    ensure!(answer.status() == 201, "{}", answer.text().await?);
    Ok(answer.json().await?)
}

/// Makes a key with one scope, and returns only the key.
async fn key_with(app: &App, scope: &str) -> Result<String> {
    let made = make(app, &json!({ "scopes": [scope] })).await?;
    text(&made, "key")
}

fn text(value: &Value, field: &str) -> Result<String> {
    let text = value[field].as_str().map(str::to_owned);
    text.with_context(|| format!("no `{field}` in {value}"))
}

/// The part of a key that nobody may see.
fn secret(key: &str) -> Result<&str> {
    let (_, secret) = key.rsplit_once('_').context("not a key")?;
    Ok(secret)
}

/// The command `carga` with the settings of the harness.
fn carga(harness: &Harness, arguments: &[&str]) -> Result<Command> {
    let mut command = command(Binary::Carga)?;
    command.args(arguments).envs(harness.env());
    Ok(command)
}

/// Runs a command that succeeds, and returns its standard output and standard error.
pub(crate) fn run(harness: &Harness, arguments: &[&str]) -> Result<(String, String)> {
    let Output {
        status,
        stdout,
        stderr,
    } = carga(harness, arguments)?.output()?;
    let (stdout, stderr) = (String::from_utf8(stdout)?, String::from_utf8(stderr)?);
    ensure!(
        status.success(),
        "{arguments:?}: {status}: {stdout}{stderr}"
    );
    Ok((stdout, stderr))
}
