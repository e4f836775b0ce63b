//! Tokens: what they allow, and when they end.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carga_testkit::eventually;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::future::try_join_all;
use reqwest::multipart::{Form, Part};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    ADMIN, REVOCATION, closed_app, closed_harness, declare, get, ids, key_of, key_with, make, read,
    request, run, secret, send, send_accepted, text, wait_until_ended,
};
use crate::answers::problem;
use crate::app::{App, KNOWN_DIALECT, TIMEOUT};
use crate::files::csv;
use crate::harness::Mode;

in_both_modes! {
    a_token_has_at_most_the_rights_of_its_key,
    a_key_makes_no_token_with_more_rights,
    neither_tokens_nor_keys_are_made_with_a_token,
    a_token_sees_what_it_has_sent_and_so_does_its_key,
    a_token_sends_as_many_uploads_as_it_allows,
    a_repeated_upload_of_a_token_counts_once,
    a_token_limits_the_size_of_a_file,
    a_token_ends_with_its_key_within_five_seconds,
    a_token_expires,
    a_token_outlives_a_restart_but_not_a_change_of_its_admin_key,
    no_token_is_ever_in_the_log,
}

/// Asks for a token with this key.
async fn ask(app: &App, key: &str, fields: &Value) -> Result<Response> {
    let post = request(app, Method::POST, "/tokens", Some(key));
    Ok(post.json(fields).send().await?)
}

/// Makes a token with this key, and returns the whole answer.
async fn make_token(app: &App, key: &str, fields: &Value) -> Result<Value> {
    let answer = ask(app, key, fields).await?;
    let status = answer.status();
    let caching = answer.headers().get("cache-control").cloned();
    let made: Value = answer.json().await?;
    ensure!(status == 201, "{status}: {made}");
    ensure!(caching.context("no cache-control")? == "no-store");
    Ok(made)
}

/// Makes a token with this key, and returns only the token.
async fn token_of(app: &App, key: &str, fields: &Value) -> Result<String> {
    text(&make_token(app, key, fields).await?, "token")
}

async fn a_token_has_at_most_the_rights_of_its_key(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let definition = json!({ "columns": [{ "name": "sku", "type": "text" }] });
    for name in ["sales", "stock"] {
        ensure!(declare(&app, ADMIN, name, &definition).await?.status() == 201);
    }
    let key = key_of(&app, "default", &["upload", "read"]).await?;
    let fields = json!({ "scopes": ["upload"], "dataset": "sales", "expires_in": 600,
        "max_uploads": 5, "max_bytes": 1000 });
    let made = make_token(&app, &key, &fields).await?;
    for (field, expected) in [
        ("tenant", json!("default")),
        ("scopes", json!(["upload"])),
        ("dataset", json!("sales")),
        ("max_uploads", json!(5)),
        ("max_bytes", json!(1000)),
    ] {
        ensure!(made[field] == expected, "{field}: {made}");
    }
    let token = text(&made, "token")?;
    let accepted = send(&app, &token, Uuid::now_v7(), "&dataset=sales", "sku\na\n").await?;
    ensure!(accepted.status() == 202, "{}", accepted.text().await?);
    for options in ["", "&dataset=stock"] {
        let other = send(&app, &token, Uuid::now_v7(), options, "sku\na\n").await?;
        problem(other, 403, "wrong_dataset").await?;
    }
    let undo = format!("/uploads/{}/undo", Uuid::now_v7());
    let undo = request(&app, Method::POST, &undo, Some(&token)).send();
    problem(undo.await?, 403, "missing_scope").await?;
    app.close().await
}

async fn a_key_makes_no_token_with_more_rights(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let key = key_of(&app, "default", &["upload", "read"]).await?;
    // A key that is limited to a dataset passes its limit on.
    let limited = json!({ "scopes": ["upload"], "dataset": "sales" });
    let limited = text(&make(&app, &limited).await?, "key")?;
    let made = make_token(&app, &limited, &json!({})).await?;
    ensure!(made["dataset"] == "sales", "{made}");
    let refused = ask(&app, &limited, &json!({ "dataset": "stock" })).await?;
    problem(refused, 403, "wrong_dataset").await?;
    let refused = ask(&app, &key, &json!({ "scopes": ["manage"] })).await?;
    problem(refused, 403, "missing_scope").await?;
    for (fields, field) in [
        (json!({ "expires_in": 86_401 }), "expires_in"),
        (json!({ "max_uploads": 0 }), "max_uploads"),
        (json!({ "tenant": "other" }), "tenant"),
    ] {
        let refused = ask(&app, &key, &fields).await?;
        let refused = problem(refused, 422, "malformed_token_request").await?;
        let detail = text(&refused, "detail")?;
        ensure!(detail.contains(&format!("`{field}`")), "{detail}");
    }
    let long = json!({ "dataset": "x".repeat(20_000) });
    problem(
        ask(&app, &key, &long).await?,
        413,
        "token_request_too_large",
    )
    .await?;
    app.close().await
}

async fn neither_tokens_nor_keys_are_made_with_a_token(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    // It has every scope.
    let admin = token_of(&app, ADMIN, &json!({})).await?;
    ensure!(get(&app, "/keys", Some(&admin)).await?.status() == 200);
    let refused = ask(&app, &admin, &json!({})).await?;
    problem(refused, 403, "token_not_allowed").await?;
    let post = request(&app, Method::POST, "/keys", Some(&admin));
    let refused = post.json(&json!({ "scopes": ["read"] })).send().await?;
    problem(refused, 403, "token_not_allowed").await?;
    app.close().await
}

#[tokio::test]
async fn a_token_is_not_made_without_authentication() -> Result<()> {
    let app = App::start(Mode::Embedded.harness().await?, 0).await?;
    let refused = ask(&app, "x", &json!({})).await?;
    problem(refused, 409, "authentication_off").await?;
    app.close().await
}

async fn a_token_sees_what_it_has_sent_and_so_does_its_key(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 1).await?;
    let (key, other_key) = (
        key_with(&app, "upload").await?,
        key_with(&app, "upload").await?,
    );
    let token = token_of(&app, &key, &json!({})).await?;
    let sibling = token_of(&app, &key, &json!({})).await?;
    let (by_token, by_key) = (Uuid::now_v7(), Uuid::now_v7());
    send_accepted(&app, &token, by_token, "", csv(3)).await?;
    send_accepted(&app, &key, by_key, "", csv(3)).await?;
    wait_until_ended(&app, &token, by_token).await?;
    wait_until_ended(&app, &key, by_token).await?;
    let (by_token, by_key) = (by_token.to_string(), by_key.to_string());
    for (who, seen) in [
        (&token, &[&by_token][..]),
        (&sibling, &[]),
        (&key, &[&by_key, &by_token]),
        (&other_key, &[]),
    ] {
        let listed = ids(&read(&app, "/uploads", who).await?)?;
        ensure!(listed.iter().eq(seen.iter().copied()), "{listed:?}");
        for id in [&by_token, &by_key] {
            let answer = get(&app, &format!("/uploads/{id}"), Some(who)).await?;
            let cancel = format!("/uploads/{id}/cancel");
            let cancel = request(&app, Method::POST, &cancel, Some(who))
                .send()
                .await?;
            match seen.contains(&id) {
                // An upload that has ended is not cancelled.
                true => {
                    ensure!(answer.status() == 200, "{}", answer.text().await?);
                    ensure!(matches!(cancel.status().as_u16(), 202 | 409));
                }
                false => {
                    problem(answer, 404, "upload_not_found").await?;
                    problem(cancel, 404, "upload_not_found").await?;
                }
            }
        }
    }
    app.close().await
}

async fn a_token_sends_as_many_uploads_as_it_allows(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let key = key_with(&app, "upload").await?;
    let token = token_of(&app, &key, &json!({ "max_uploads": 2 })).await?;
    for _ in 0..2 {
        // A request that is refused before its upload exists does not count.
        let empty = send(&app, &token, Uuid::now_v7(), "", "").await?;
        problem(empty, 422, "empty_file").await?;
        send_accepted(&app, &token, Uuid::now_v7(), "", csv(3)).await?;
    }
    let used_up = Uuid::now_v7();
    let refused = send(&app, &token, used_up, "", csv(3)).await?;
    let refused = problem(refused, 403, "token_used_up").await?;
    ensure!(refused["limit"] == 2, "{refused}");
    let missing = get(&app, &format!("/uploads/{used_up}"), Some(ADMIN)).await?;
    problem(missing, 404, "upload_not_found").await?;
    // It still reads what it has sent.
    ensure!(ids(&read(&app, "/uploads", &token).await?)?.len() == 2);

    let single = token_of(&app, &key, &json!({ "max_uploads": 1 })).await?;
    let sending = (0..4).map(|_| send(&app, &single, Uuid::now_v7(), "", csv(500)));
    let answers = try_join_all(sending).await?;
    let mut statuses: Vec<u16> = answers
        .iter()
        .map(|answer| answer.status().as_u16())
        .collect();
    statuses.sort_unstable();
    ensure!(statuses == [202, 403, 403, 403], "{statuses:?}");
    app.close().await
}

async fn a_repeated_upload_of_a_token_counts_once(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let key = key_with(&app, "upload").await?;
    let post = async |path: &str, who: &str, text: &str| {
        let post = request(&app, Method::POST, path, Some(who));
        let post = post.header("idempotency-key", text);
        let post = match path {
            "/tokens" => post.json(&json!({ "max_uploads": 1 })),
            _ => post.header("content-type", "text/csv").body(csv(3)),
        };
        Ok::<_, anyhow::Error>(post.send().await?)
    };
    // The call for tokens ignores the header.
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let made = post("/tokens", &key, "a").await?;
        ensure!(made.status() == 201, "{}", made.text().await?);
        tokens.push(text(&made.json().await?, "token")?);
    }
    ensure!(tokens[0] != tokens[1]);
    let path = format!("/uploads?{KNOWN_DIALECT}");
    let mut sent = Vec::new();
    for token in &tokens {
        for is_repeated in [false, true, true] {
            let accepted = post(&path, token, "a").await?;
            ensure!(accepted.status() == 202, "{}", accepted.text().await?);
            let header = accepted.headers().get("idempotency-replayed");
            ensure!(header.is_some() == is_repeated);
            sent.push(text(&accepted.json().await?, "id")?);
        }
        let refused = post(&path, token, "b").await?;
        problem(refused, 403, "token_used_up").await?;
    }
    // Each token has keys of its own.
    ensure!(sent[0] == sent[1] && sent[0] == sent[2], "{sent:?}");
    ensure!(sent[0] != sent[3] && sent[3] == sent[5], "{sent:?}");
    app.close().await
}

/// Fails unless the file was refused with the limit of the token.
async fn expect_too_large(answer: Response, limit: usize) -> Result<()> {
    let refused = problem(answer, 413, "upload_too_large").await?;
    ensure!(refused["limit"] == limit, "{refused}");
    ensure!(
        text(&refused, "detail")?.contains("`max_bytes`"),
        "{refused}"
    );
    Ok(())
}

async fn a_token_limits_the_size_of_a_file(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let file = csv(2000).into_bytes();
    let fields = json!({ "max_bytes": file.len() });
    let token = token_of(&app, ADMIN, &fields).await?;
    send_accepted(&app, &token, Uuid::now_v7(), "", file.clone()).await?;
    let mut larger = file.clone();
    larger.extend_from_slice(b"\n");
    // A raw body declares its length. A form does not declare the length of its file.
    let raw = send(&app, &token, Uuid::now_v7(), "", larger.clone()).await?;
    expect_too_large(raw, file.len()).await?;
    for path in ["/uploads", "/uploads/validate", "/datasets/suggest"] {
        let path = format!("{path}?{KNOWN_DIALECT}");
        let form = Form::new().part("file", Part::bytes(larger.clone()).file_name("x.csv"));
        let post = request(&app, Method::POST, &path, Some(&token));
        expect_too_large(post.multipart(form).send().await?, file.len()).await?;
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&larger)?;
    let compressed = gzip.finish()?;
    ensure!(compressed.len() < file.len());
    let answer = send(&app, &token, Uuid::now_v7(), "", compressed).await?;
    expect_too_large(answer, file.len()).await?;
    // Without the token, nothing limits these files.
    send_accepted(&app, ADMIN, Uuid::now_v7(), "", larger).await?;
    app.close().await
}

/// Polls until the token is refused, and returns how long it took.
async fn until_refused(app: &App, token: &str) -> Result<Duration> {
    let start = Instant::now();
    let refused = async || {
        let answer = get(app, "/uploads", Some(token)).await.ok()?;
        (answer.status() == 401).then_some(answer)
    };
    let refused = eventually(TIMEOUT, "the token to be refused", refused).await?;
    let passed = start.elapsed();
    problem(refused, 401, "invalid_key").await?;
    Ok(passed)
}

async fn a_token_ends_with_its_key_within_five_seconds(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let made = make(&app, &json!({ "scopes": ["read"] })).await?;
    let token = token_of(&app, &text(&made, "key")?, &json!({})).await?;
    ensure!(get(&app, "/uploads", Some(&token)).await?.status() == 200);
    run(&app.harness, &["keys", "revoke", &text(&made, "id")?])?;
    let passed = until_refused(&app, &token).await?;
    ensure!(passed < REVOCATION, "{passed:?}");
    app.close().await
}

async fn a_token_expires(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let made = make_token(&app, ADMIN, &json!({ "expires_in": 4 })).await?;
    let token = text(&made, "token")?;
    let end: jiff::Timestamp = text(&made, "expires_at")?.parse()?;
    let first = get(&app, "/uploads", Some(&token)).await?;
    ensure!(first.status() == 200 || jiff::Timestamp::now() >= end);
    until_refused(&app, &token).await?;
    ensure!(jiff::Timestamp::now() >= end);
    // A token ends with its key, even if it asks for more time.
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(60);
    let fields = json!({ "scopes": ["read"], "expires_at": end.to_string() });
    let key = text(&make(&app, &fields).await?, "key")?;
    let made = make_token(&app, &key, &json!({ "expires_in": 3600 })).await?;
    let token_end: jiff::Timestamp = text(&made, "expires_at")?.parse()?;
    ensure!(token_end <= end, "{made}");
    app.close().await
}

async fn a_token_outlives_a_restart_but_not_a_change_of_its_admin_key(mode: Mode) -> Result<()> {
    let mut app = closed_app(mode, 0).await?;
    let key = key_with(&app, "read").await?;
    let of_key = token_of(&app, &key, &json!({})).await?;
    let of_admin = token_of(&app, ADMIN, &json!({ "scopes": ["read"] })).await?;
    app.api.kill9()?;
    app.restart().await?;
    for token in [&of_key, &of_admin] {
        ensure!(get(&app, "/uploads", Some(token)).await?.status() == 200);
    }
    app.api.kill9()?;
    let other = ADMIN.replace("admin", "other");
    app.restart_with(&[("CARGA_ADMIN_KEY", &other)]).await?;
    ensure!(get(&app, "/uploads", Some(&of_key)).await?.status() == 200);
    let refused = get(&app, "/uploads", Some(&of_admin)).await?;
    problem(refused, 401, "invalid_key").await?;
    app.close().await
}

async fn no_token_is_ever_in_the_log(mode: Mode) -> Result<()> {
    let harness = closed_harness(mode).await?;
    let app = App::start(harness.with("CARGA_LOG", "debug"), 0).await?;
    let key = key_with(&app, "read").await?;
    let made = make_token(&app, &key, &json!({})).await?;
    let (id, token) = (text(&made, "id")?, text(&made, "token")?);
    ensure!(get(&app, "/uploads", Some(&token)).await?.status() == 200);
    let (signed, signature) = token.rsplit_once('.').context("no signature")?;
    let forged = format!("{signed}.{}", "A".repeat(signature.len()));
    problem(
        get(&app, "/uploads", Some(&forged)).await?,
        401,
        "invalid_key",
    )
    .await?;
    // Somebody takes a token or a key for an id.
    let encoded = format!("carga%5F{}", key.trim_start_matches("carga_"));
    for misplaced in [&token, &token.replace('.', "%2E"), &key, &encoded] {
        for path in ["/uploads/", "/keys/", "/no/such/"] {
            let answer = get(&app, &format!("{path}{misplaced}"), Some(ADMIN)).await?;
            let status = answer.status().as_u16();
            ensure!(matches!(status, 400 | 404 | 405), "{path}: {status}");
        }
    }
    let log = app.api.log();
    ensure!(log.contains("/no/such/eyJ***"), "the log has no path");
    // The id and the reason are there, so the log has the lines about tokens.
    for expected in [id.as_str(), "wrong signature"] {
        ensure!(log.contains(expected), "`{expected}` is missing in the log");
    }
    let (_, claims) = signed.split_once('.').context("no claims")?;
    for hidden in [signature, claims, secret(&key)?] {
        ensure!(!log.contains(hidden), "a token is in the log");
    }
    app.close().await
}
