//! Files that are sent again with one `Idempotency-Key`. `access/repeated_requests.rs` has the keys
//! of several senders, and requests for API keys.

mod concurrent;
mod kills;
mod repeated;

use anyhow::{Context, Result, ensure};
use reqwest::{Body, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use crate::app::{App, KNOWN_DIALECT};

/// A `POST /uploads` with a raw body. `options` follow those of the dialect, and begin with `&` if
/// there are any.
fn post(app: &App, key: &str, options: &str, body: impl Into<Body>) -> RequestBuilder {
    let url = format!("{}/uploads?{KNOWN_DIALECT}{options}", app.url);
    let post = app.client.post(url).header("idempotency-key", key);
    post.header("content-type", "text/csv").body(body)
}

/// The upload of an answer that accepts a file, and whether the answer is a repeated one.
async fn accepted(answer: Response) -> Result<(Uuid, bool)> {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let upload: Value = answer.json().await?;
    ensure!(status == StatusCode::ACCEPTED, "{status}: {upload}");
    let location = headers.get("location").context("no location")?.to_str()?;
    let id: Uuid = upload["id"].as_str().context("no id")?.parse()?;
    ensure!(location == format!("/uploads/{id}"), "{location}");
    let is_repeated = match headers.get("idempotency-replayed") {
        Some(value) => {
            ensure!(value == "true", "{value:?}");
            true
        }
        None => false,
    };
    Ok((id, is_repeated))
}

/// The ids and statuses of all uploads, newest first.
async fn listed(app: &App) -> Result<Vec<(Uuid, String)>> {
    let (_, list) = app.get("/uploads?limit=100").await?;
    let uploads = list["uploads"].as_array().context("no uploads")?;
    let text = |upload: &Value, field: &str| upload[field].as_str().unwrap_or_default().to_owned();
    let pairs = uploads.iter().map(|upload| {
        let id = text(upload, "id").parse()?;
        anyhow::Ok((id, text(upload, "status")))
    });
    pairs.collect()
}
