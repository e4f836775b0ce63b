//! Keys are made, listed, revoked, and end by themselves.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carga_testkit::eventually;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ADMIN, REVOCATION, closed_app, get, make, request, run, secret, text};
use crate::answers::problem;
use crate::app::{App, TIMEOUT};
use crate::harness::Mode;

in_both_modes! {
    a_new_key_is_shown_once_and_listed_without_its_secret,
    keys_are_listed_by_tenant_in_pages,
    a_key_is_revoked_within_five_seconds_by_another_process,
    a_key_is_revoked_at_once_by_its_own_api,
    an_expired_key_is_refused,
    a_faulty_request_for_a_key_names_its_field,
    a_key_cannot_be_made_without_scope_admin,
}

async fn a_new_key_is_shown_once_and_listed_without_its_secret(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let fields = json!({
        "tenant": "acme", "scopes": ["upload", "read", "upload"], "dataset": "Vendas é",
        "name": "till 4", "expires_at": "2126-11-26T05:00:00Z",
    });
    let post = request(&app, Method::POST, "/keys", Some(ADMIN));
    let answer = post.json(&fields).send().await?;
    ensure!(answer.status() == 201, "{}", answer.text().await?);
    let caching = answer.headers().get("cache-control").cloned();
    ensure!(caching.context("no cache-control")? == "no-store");
    let made: Value = answer.json().await?;
    let key = text(&made, "key")?;
    ensure!(
        key.starts_with(&format!("carga_{}_", text(&made, "id")?)),
        "{made}"
    );
    for (field, expected) in [
        ("tenant", json!("acme")),
        ("scopes", json!(["read", "upload"])),
        ("dataset", json!("Vendas é")),
        ("name", json!("till 4")),
        ("expires_at", json!("2126-11-26T05:00:00Z")),
        ("created_by", json!(null)),
        ("revoked_at", json!(null)),
    ] {
        ensure!(made[field] == expected, "{field}: {made}");
    }
    let list = get(&app, "/keys", Some(ADMIN)).await?.text().await?;
    ensure!(
        !list.contains(secret(&key)?) && !list.contains("digest"),
        "{list}"
    );
    let list: Value = serde_json::from_str(&list)?;
    let mut expected = made;
    expected.as_object_mut().context("no object")?.remove("key");
    ensure!(
        list == json!({ "keys": [expected], "next_cursor": null }),
        "{list}"
    );
    app.close().await
}

async fn keys_are_listed_by_tenant_in_pages(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let mut made = Vec::new();
    for number in 0..5 {
        let tenant = if number % 2 == 0 { "acme" } else { "other" };
        let fields = json!({ "tenant": tenant, "scopes": ["read"] });
        made.push((tenant, text(&make(&app, &fields).await?, "id")?));
    }
    for (query, tenant) in [
        ("", None),
        ("&tenant=acme", Some("acme")),
        ("&tenant=none", Some("none")),
    ] {
        let expected: Vec<&String> = made
            .iter()
            .filter(|(of, _)| tenant.is_none_or(|tenant| tenant == *of))
            .map(|(_, id)| id)
            .collect();
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/keys?limit=2{query}{cursor}");
            let page: Value = get(&app, &path, Some(ADMIN)).await?.json().await?;
            for key in page["keys"].as_array().context("no keys")? {
                found.push(text(key, "id")?);
            }
            let Some(next) = page["next_cursor"].as_str() else {
                break;
            };
            cursor = format!("&cursor={next}");
        }
        ensure!(found.iter().eq(expected), "{query}: {found:?} of {made:?}");
    }
    for path in ["/keys?limit=0", "/keys?cursor=x", "/keys?tenant=A"] {
        let refused = get(&app, path, Some(ADMIN)).await?;
        problem(refused, 400, "malformed_option").await?;
    }
    app.close().await
}

/// How long an API uses what it has read about a key.
const CACHED: Duration = Duration::from_secs(2);

/// Polls until the key is refused, and returns how long it took.
async fn until_refused(app: &App, key: &str) -> Result<Duration> {
    let start = Instant::now();
    let refused = async || {
        let answer = get(app, "/uploads", Some(key)).await.ok()?;
        (answer.status() == StatusCode::UNAUTHORIZED).then_some(answer)
    };
    let refused = eventually(TIMEOUT, "the key to be refused", refused).await?;
    let passed = start.elapsed();
    problem(refused, 401, "invalid_key").await?;
    Ok(passed)
}

async fn a_key_is_revoked_within_five_seconds_by_another_process(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let made = make(&app, &json!({ "scopes": ["read"] })).await?;
    let (id, key) = (text(&made, "id")?, text(&made, "key")?);
    let start = Instant::now();
    ensure!(get(&app, "/uploads", Some(&key)).await?.status() == 200);
    run(&app.harness, &["keys", "revoke", &id])?;
    let answer = get(&app, "/uploads", Some(&key)).await?;
    // Unless this machine is slow, the API still had the key from before the revocation.
    if start.elapsed() < CACHED {
        ensure!(answer.status() == 200, "{}", answer.status());
    }
    let passed = until_refused(&app, &key).await?;
    ensure!(passed < REVOCATION, "{passed:?}");
    app.close().await
}

async fn a_key_is_revoked_at_once_by_its_own_api(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let made = make(&app, &json!({ "scopes": ["read"] })).await?;
    let (id, key) = (text(&made, "id")?, text(&made, "key")?);
    ensure!(get(&app, "/uploads", Some(&key)).await?.status() == 200);
    let revoke = async |id: &str| {
        let path = format!("/keys/{id}");
        anyhow::Ok(
            request(&app, Method::DELETE, &path, Some(ADMIN))
                .send()
                .await?,
        )
    };
    let revoked = revoke(&id).await?;
    ensure!(revoked.status() == 200);
    let revoked: Value = revoked.json().await?;
    ensure!(revoked["revoked_at"].is_string(), "{revoked}");
    problem(get(&app, "/uploads", Some(&key)).await?, 401, "invalid_key").await?;
    // The time of the first revocation stays.
    let again: Value = revoke(&id).await?.json().await?;
    ensure!(again == revoked, "{again}");
    // The whole key names itself.
    let by_key: Value = revoke(&key).await?.json().await?;
    ensure!(by_key == revoked, "{by_key}");
    problem(revoke("000000000000").await?, 404, "key_not_found").await?;
    problem(revoke("x").await?, 400, "malformed_id").await?;
    app.close().await
}

async fn an_expired_key_is_refused(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    // Databases of the distributed mode may be slow, so the key must live for a while.
    let now = jiff::Timestamp::now();
    let end = now + jiff::SignedDuration::from_secs(4);
    let fields = json!({ "scopes": ["read"], "expires_at": end.to_string() });
    let key = text(&make(&app, &fields).await?, "key")?;
    let first = get(&app, "/uploads", Some(&key)).await?;
    ensure!(first.status() == 200 || jiff::Timestamp::now() >= end);
    until_refused(&app, &key).await?;
    ensure!(jiff::Timestamp::now() >= end);
    app.close().await
}

async fn a_faulty_request_for_a_key_names_its_field(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let post = || request(&app, Method::POST, "/keys", Some(ADMIN));
    for (fields, name) in [
        (json!({ "scopes": [] }), "scopes"),
        (json!({ "scopes": ["root"] }), "scopes"),
        (json!({ "scopes": ["read"], "tenant": "Acme" }), "tenant"),
        (json!({ "scopes": ["read"], "role": "x" }), "role"),
        (json!({ "scopes": ["read"], "dataset": "sales" }), "dataset"),
        (
            json!({ "scopes": ["admin"], "dataset": "sales" }),
            "dataset",
        ),
        (json!({ "scopes": ["read"], "name": "" }), "name"),
        (
            json!({ "scopes": ["read"], "expires_at": "2001-01-01T00:00:00Z" }),
            "expires_at",
        ),
        (
            json!({ "scopes": ["read"], "expires_at": "never" }),
            "expires_at",
        ),
    ] {
        let answer = post().json(&fields).send().await?;
        let refused = problem(answer, 422, "malformed_key_request").await?;
        let detail = text(&refused, "detail")?;
        ensure!(detail.contains(&format!("`{name}`")), "{fields}: {detail}");
    }
    let plain = post().body("{}").header("content-type", "text/plain");
    problem(plain.send().await?, 415, "unsupported_media_type").await?;
    let long = json!({ "scopes": ["read"], "name": "x".repeat(20_000) });
    let answer = post().json(&long).send().await?;
    problem(answer, 413, "key_request_too_large").await?;
    let list: Value = get(&app, "/keys", Some(ADMIN)).await?.json().await?;
    ensure!(list["keys"] == json!([]), "{list}");
    app.close().await
}

async fn a_key_cannot_be_made_without_scope_admin(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let all = json!({ "scopes": ["read", "upload", "manage"] });
    let key = text(&make(&app, &all).await?, "key")?;
    let post = request(&app, Method::POST, "/keys", Some(&key));
    let answer = post.json(&json!({ "scopes": ["read"] })).send().await?;
    let refused = problem(answer, 403, "missing_scope").await?;
    ensure!(text(&refused, "detail")?.contains("`admin`"), "{refused}");
    let admin = make(&app, &json!({ "scopes": ["admin"] })).await?;
    let post = request(&app, Method::POST, "/keys", admin["key"].as_str());
    let made: Value = post.json(&all).send().await?.json().await?;
    ensure!(made["created_by"] == admin["id"], "{made}");
    app.close().await
}
