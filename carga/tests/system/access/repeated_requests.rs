//! Requests that are repeated with one `Idempotency-Key`: those for API keys, and those of several
//! senders. `idempotency` has files that are sent again.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::{ADMIN, closed_app, get, key_of, key_with, request, secret, text};
use crate::answers::problem;
use crate::app::{App, KNOWN_DIALECT};
use crate::harness::Mode;

in_both_modes! {
    a_repeated_request_for_an_api_key_makes_no_second_one_and_shows_no_secret,
    concurrent_requests_for_an_api_key_make_one,
    each_sender_has_idempotency_keys_of_its_own,
}

const IDEMPOTENCY_KEY: &str = "8e03978e-40d5-43e8-bc93-6894a57f9324";

async fn make_key(app: &App, fields: &Value) -> Result<Response> {
    let post = request(app, Method::POST, "/keys", Some(ADMIN));
    let post = post.header("idempotency-key", IDEMPOTENCY_KEY);
    Ok(post.json(fields).send().await?)
}

/// The document of a new key, and whether the answer is a repeated one.
async fn created(answer: Response) -> Result<(Value, bool)> {
    ensure!(answer.status() == 201, "{}", answer.text().await?);
    let header = |name: &str| answer.headers().get(name).cloned();
    ensure!(header("cache-control").context("no cache-control")? == "no-store");
    ensure!(header("content-type").context("no content-type")? == "application/json");
    let is_repeated = header("idempotency-replayed").is_some();
    Ok((answer.json().await?, is_repeated))
}

async fn listed(app: &App) -> Result<Value> {
    Ok(get(app, "/keys", Some(ADMIN)).await?.json().await?)
}

async fn a_repeated_request_for_an_api_key_makes_no_second_one_and_shows_no_secret(
    mode: Mode,
) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    // The key ends soon, and a repeated request is answered also after that.
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(5);
    let fields = json!({
        "scopes": ["read", "upload"], "name": "till 4", "expires_at": end.to_string(),
    });
    let (first, is_repeated) = created(make_key(&app, &fields).await?).await?;
    ensure!(!is_repeated, "{first}");
    let key = text(&first, "key")?;
    let mut expected = first.clone();
    expected["key"] = Value::Null;
    let other_order = json!({
        "expires_at": end.to_string(), "name": "till 4", "scopes": ["upload", "read"],
    });
    for fields in [&fields, &other_order] {
        let repeated = make_key(&app, fields).await?;
        let (repeated, is_repeated) = created(repeated).await?;
        ensure!(is_repeated && repeated == expected, "{repeated}");
        ensure!(!repeated.to_string().contains(secret(&key)?), "{repeated}");
    }
    let other = make_key(&app, &json!({ "scopes": ["read"] })).await?;
    problem(other, 422, "idempotency_key_reused").await?;
    let keys = listed(&app).await?;
    ensure!(
        keys["keys"].as_array().context("no keys")?.len() == 1,
        "{keys}"
    );
    while jiff::Timestamp::now() <= end {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let (late, is_repeated) = created(make_key(&app, &fields).await?).await?;
    ensure!(is_repeated && late == expected, "{late}");
    app.close().await
}

async fn concurrent_requests_for_an_api_key_make_one(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let fields = json!({ "scopes": ["read"] });
    let calls = (0..10).map(async |_| created(make_key(&app, &fields).await?).await);
    let answers = try_join_all(calls).await?;
    let id = &answers[0].0["id"];
    ensure!(answers.iter().all(|(key, _)| key["id"] == *id));
    let with_key = answers.iter().filter(|(key, _)| key["key"].is_string());
    ensure!(with_key.count() == 1);
    let first = answers.iter().filter(|(_, is_repeated)| !is_repeated);
    ensure!(first.count() == 1);
    let keys = listed(&app).await?;
    ensure!(
        keys["keys"].as_array().context("no keys")?.len() == 1,
        "{keys}"
    );
    app.close().await
}

async fn each_sender_has_idempotency_keys_of_its_own(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 1).await?;
    let mut keys = vec![ADMIN.to_owned()];
    for _ in 0..2 {
        keys.push(key_with(&app, "upload").await?);
    }
    keys.push(key_of(&app, "acme", &["upload"]).await?);
    let mut ids = Vec::new();
    for _ in 0..2 {
        for key in &keys {
            let path = format!("/uploads?{KNOWN_DIALECT}");
            let post = request(&app, Method::POST, &path, Some(key));
            let post = post.header("idempotency-key", IDEMPOTENCY_KEY);
            let post = post.header("content-type", "text/csv").body("a,b\n1,2\n");
            let answer = post.send().await?;
            ensure!(answer.status() == 202, "{}", answer.text().await?);
            ids.push(text(&answer.json().await?, "id")?);
        }
    }
    let (first, second) = ids.split_at(keys.len());
    ensure!(first == second, "{ids:?}");
    let mut distinct = first.to_vec();
    distinct.sort();
    distinct.dedup();
    ensure!(distinct.len() == keys.len(), "{ids:?}");
    app.close().await
}
