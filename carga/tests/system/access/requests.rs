//! A request needs one valid key.

use anyhow::{Context, Result, ensure};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ADMIN, closed_app, closed_harness, get, key_with, make, request, secret, text};
use crate::answers::problem;
use crate::app::App;
use crate::files::csv;
use crate::harness::Mode;

in_both_modes! {
    a_request_without_a_valid_key_is_refused,
    a_key_may_be_in_either_header_and_only_one_is_accepted,
    an_upload_is_sent_and_read_with_keys,
    a_refused_upload_leaves_nothing,
    a_page_of_another_origin_is_refused_with_any_key,
    no_key_is_ever_in_the_log,
}

/// Fails unless the answer is this refusal with this challenge.
async fn expect_challenge(answer: Response, code: &str, challenge: &str) -> Result<String> {
    let found = answer.headers().get("www-authenticate").cloned();
    let found = found.context("no challenge")?;
    ensure!(found == challenge, "{found:?}");
    let mut refused = problem(answer, 401, code).await?;
    refused["request_id"] = json!(null);
    Ok(refused.to_string())
}

const MISSING: &str = "Bearer realm=\"carga\"";
const INVALID: &str = "Bearer realm=\"carga\", error=\"invalid_token\"";

/// The id of the first key with the secret of the other one. The checksum is right, so only the
/// digest in the store shows that this is no key.
pub(super) fn with_secret_of(key: &str, other: &str) -> Result<String> {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let checksum = |text: &str| -> String {
        let crc32 = crc32fast::hash(text.as_bytes()) as usize;
        let places = (0..6).rev().map(|place| 62_usize.pow(place));
        let digits = places.map(|place| char::from(DIGITS[crc32 / place % 62]));
        digits.collect()
    };
    // Keys that Carga made show that this is its checksum.
    for key in [key, other] {
        ensure!(checksum(&key[..62]) == key[62..]);
    }
    let mixed = format!("{}_{}", &key[..18], &secret(other)?[..43]);
    Ok(format!("{mixed}{}", checksum(&mixed)))
}

async fn a_request_without_a_valid_key_is_refused(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let key = key_with(&app, "read").await?;
    let other = key_with(&app, "read").await?;
    // The id of a key with the secret of another one, with its right checksum.
    let mixed = with_secret_of(&key, &other)?;
    // A key that nobody has made, with its right checksum.
    let unknown = format!("carga_{:012}_{:043}10upGp", 0, 0);
    let mistyped = key.replace("carga_", "Carga_");
    let mut answers = Vec::new();
    for path in ["/uploads", "/keys", "/no/such/path", "/"] {
        let answer = get(&app, path, None).await?;
        expect_challenge(answer, "missing_key", MISSING).await?;
        for wrong in ["", "x", &mixed, &unknown, &mistyped, &key[1..]] {
            let answer = get(&app, path, Some(wrong)).await?;
            answers.push(expect_challenge(answer, "invalid_key", INVALID).await?);
        }
    }
    answers.dedup();
    ensure!(answers.len() == 1, "{answers:?}");
    ensure!(get(&app, "/uploads", Some(&key)).await?.status() == 200);
    let missing = get(&app, "/no/such/path", Some(&key)).await?;
    problem(missing, 404, "not_found").await?;
    let patched = request(&app, Method::PATCH, "/uploads", Some(&key));
    problem(patched.send().await?, 405, "method_not_allowed").await?;
    for path in ["/livez", "/readyz"] {
        ensure!(get(&app, path, None).await?.status() == 200, "{path}");
    }
    app.close().await
}

async fn a_key_may_be_in_either_header_and_only_one_is_accepted(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let key = key_with(&app, "read").await?;
    let bearer = |key: &str| {
        let request = app.client.get(format!("{}/uploads", app.url));
        request.header("authorization", format!("Bearer {key}"))
    };
    for key in [key.as_str(), ADMIN] {
        ensure!(bearer(key).send().await?.status() == 200);
        ensure!(get(&app, "/uploads", Some(key)).await?.status() == 200);
    }
    let same = bearer(&key).header("x-api-key", &key).send().await?;
    ensure!(same.status() == 200, "{}", same.text().await?);
    let different = bearer(&key).header("x-api-key", ADMIN).send().await?;
    problem(different, 400, "malformed_credentials").await?;
    app.close().await
}

/// The client of this app sends the key with every request.
fn use_key(app: &mut App, key: &str) -> Result<()> {
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", key.parse()?);
    app.client = Client::builder().default_headers(headers).build()?;
    Ok(())
}

async fn an_upload_is_sent_and_read_with_keys(mode: Mode) -> Result<()> {
    let mut app = closed_app(mode, 1).await?;
    let (upload, read) = (
        key_with(&app, "upload").await?,
        key_with(&app, "read").await?,
    );
    let id = Uuid::now_v7();
    use_key(&mut app, &upload)?;
    ensure!(app.put(id, csv(1500)).await?.status() == 202);
    use_key(&mut app, &read)?;
    app.expect_completed(id, 1500).await?;
    let refused = app.put(Uuid::now_v7(), csv(10)).await?;
    let challenge = refused.headers().get("www-authenticate").cloned();
    let challenge = challenge.context("no challenge")?;
    ensure!(challenge == "Bearer realm=\"carga\", error=\"insufficient_scope\"");
    let refused = problem(refused, 403, "missing_scope").await?;
    ensure!(
        refused["detail"].to_string().contains("`upload`"),
        "{refused}"
    );
    app.close().await
}

async fn a_refused_upload_leaves_nothing(mode: Mode) -> Result<()> {
    let mut app = closed_app(mode, 0).await?;
    let limited = json!({ "scopes": ["upload"], "dataset": "sales" });
    let limited = text(&make(&app, &limited).await?, "key")?;
    let id = Uuid::now_v7();
    let answer = app.put(id, csv(10_000)).await?;
    problem(answer, 401, "missing_key").await?;
    use_key(&mut app, &limited)?;
    let other = app.put_with(id, "dataset=stock", csv(10)).await?;
    let refused = problem(other, 403, "wrong_dataset").await?;
    ensure!(
        refused["detail"].to_string().contains("`sales`"),
        "{refused}"
    );
    let unknown = app.put_with(id, "dataset=sales", csv(10)).await?;
    problem(unknown, 404, "dataset_not_found").await?;
    use_key(&mut app, ADMIN)?;
    ensure!(app.upload(id).await?.is_none());
    let (_, list) = app.get("/uploads").await?;
    ensure!(list["uploads"] == json!([]), "{list}");
    app.close().await
}

async fn a_page_of_another_origin_is_refused_with_any_key(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    for key in [None, Some("x"), Some(ADMIN)] {
        let foreign = request(&app, Method::GET, "/uploads", key);
        let foreign = foreign.header("origin", "https://evil.example").send();
        problem(foreign.await?, 403, "cross_origin").await?;
        let host = request(&app, Method::GET, "/uploads", key);
        let host = host.header("host", "evil.example").send();
        problem(host.await?, 421, "wrong_host").await?;
    }
    app.close().await
}

async fn no_key_is_ever_in_the_log(mode: Mode) -> Result<()> {
    let harness = closed_harness(mode).await?;
    let app = App::start(harness.with("CARGA_LOG", "debug"), 0).await?;
    let made = make(&app, &json!({ "scopes": ["read"] })).await?;
    let (id, key) = (text(&made, "id")?, text(&made, "key")?);
    ensure!(get(&app, "/uploads", Some(&key)).await?.status() == 200);
    let mistyped = format!("{key}x");
    problem(
        get(&app, "/uploads", Some(&mistyped)).await?,
        401,
        "invalid_key",
    )
    .await?;
    let almost_admin = format!("{ADMIN}x");
    let answer = get(&app, "/uploads", Some(&almost_admin)).await?;
    problem(answer, 401, "invalid_key").await?;
    // A person may put the whole key into a path.
    for path in [format!("/keys/{key}x"), format!("/{key}/x")] {
        let delete = request(&app, Method::DELETE, &path, Some(ADMIN));
        let answer = delete.send().await?;
        ensure!(answer.status().is_client_error(), "{}", answer.status());
        let refused = answer.text().await?;
        ensure!(!refused.contains(secret(&key)?), "{refused}");
    }
    let revoke = request(&app, Method::DELETE, &format!("/keys/{key}"), Some(ADMIN));
    let revoked: Value = revoke.send().await?.json().await?;
    ensure!(
        revoked["id"] == id && revoked["revoked_at"].is_string(),
        "{revoked}"
    );
    problem(get(&app, "/uploads", Some(&key)).await?, 401, "invalid_key").await?;
    let masked = format!("/keys/carga_{id}_***");
    let log = app.api.log();
    // The ids and the reasons are there, so the log has the lines about keys.
    for expected in [id.as_str(), "revoked", "malformed", &masked] {
        ensure!(log.contains(expected), "`{expected}` is missing in the log");
    }
    for hidden in [secret(&key)?, ADMIN] {
        ensure!(!log.contains(hidden), "a key is in the log");
    }
    app.close().await
}
