//! JWTs of another issuer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow, ensure};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use carga_testkit::{Binary, Running, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::{
    ADMIN, closed_harness, get, ids, read, request, send_accepted, text, wait_until_ended,
};
use crate::answers::problem;
use crate::app::{App, TIMEOUT};
use crate::files::csv;
use crate::harness::{Harness, Mode};

in_both_modes! {
    a_jwt_of_the_issuer_is_accepted_like_a_key,
    a_jwt_allows_what_its_scopes_allow,
    a_jwt_that_the_issuer_has_not_made_for_carga_is_refused,
    keys_of_the_issuer_rotate,
    an_api_does_not_start_without_its_file_of_keys,
}

const ISSUER: &str = "https://id.example.org/";

/// A key of the issuer.
struct IssuerKey {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl IssuerKey {
    fn new(id: &'static str) -> Result<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        let pair = pair.map_err(|_| anyhow!("cannot make a key"))?;
        Ok(Self { id, pair })
    }

    fn jwk(&self) -> Value {
        // The first byte says that both coordinates follow.
        let point = self.pair.public_key().as_ref();
        let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id, "x": x, "y": y })
    }

    /// A JWT with these claims.
    fn sign(&self, claims: &Value) -> Result<String> {
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": self.id });
        let signed = unsigned(&header, claims);
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.map_err(|_| anyhow!("cannot sign"))?;
        Ok(format!("{signed}.{}", encode(signature.as_ref())))
    }
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| encode(value.to_string().as_bytes());
    format!("{}.{}", part(header), part(claims))
}

fn set_of(keys: &[&IssuerKey]) -> String {
    let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Claims with these scopes, for ten minutes.
fn claims(scope: &str) -> Value {
    json!({ "iss": ISSUER, "aud": "carga", "sub": "alice", "tenant": "acme", "scope": scope,
        "exp": now() + 600 })
}

/// The settings of a Carga that accepts JWTs of the issuer.
async fn harness(mode: Mode, jwks: &str) -> Result<Harness> {
    let harness = closed_harness(mode).await?;
    let harness = harness
        .with("CARGA_JWT_JWKS", jwks)
        .with("CARGA_LOG", "debug");
    let harness = harness.with("CARGA_JWT_ISSUER", ISSUER);
    Ok(harness.with("CARGA_JWT_AUDIENCE", "carga"))
}

/// A Carga that reads the public keys of the issuer from a file.
async fn app_with_file(mode: Mode, keys: &[&IssuerKey]) -> Result<(App, TempDir)> {
    let directory = TempDir::new()?;
    let file = directory.path().join("jwks.json");
    std::fs::write(&file, set_of(keys))?;
    let harness = harness(mode, file.to_str().context("no text")?).await?;
    Ok((App::start(harness, 1).await?, directory))
}

async fn a_jwt_of_the_issuer_is_accepted_like_a_key(mode: Mode) -> Result<()> {
    let key = IssuerKey::new("one")?;
    let (app, _directory) = app_with_file(mode, &[&key]).await?;
    let upload = key.sign(&claims("openid upload"))?;
    let mut other = claims("upload");
    other["sub"] = json!("alice.smith");
    let other = key.sign(&other)?;
    let id = Uuid::now_v7();
    send_accepted(&app, &upload, id, "", csv(3)).await?;
    wait_until_ended(&app, &upload, id).await?;
    ensure!(ids(&read(&app, "/uploads", &upload).await?)? == [id.to_string()]);
    // Another subject has sent nothing, and another tenant has no such upload.
    ensure!(ids(&read(&app, "/uploads", &other).await?)?.is_empty());
    let path = format!("/uploads/{id}");
    problem(
        get(&app, &path, Some(&other)).await?,
        404,
        "upload_not_found",
    )
    .await?;
    let mut elsewhere = claims("read");
    elsewhere["tenant"] = json!("other");
    let elsewhere = key.sign(&elsewhere)?;
    problem(
        get(&app, &path, Some(&elsewhere)).await?,
        404,
        "upload_not_found",
    )
    .await?;
    let reader = key.sign(&claims("read"))?;
    ensure!(get(&app, &path, Some(&reader)).await?.status() == 200);
    let (_, signature) = upload.rsplit_once('.').context("no signature")?;
    let log = app.api.log();
    ensure!(log.contains("jwt:alice"), "the log names no sender");
    ensure!(!log.contains(signature), "a JWT is in the log");
    app.close().await
}

async fn a_jwt_allows_what_its_scopes_allow(mode: Mode) -> Result<()> {
    let key = IssuerKey::new("one")?;
    let (app, _directory) = app_with_file(mode, &[&key]).await?;
    let (upload, reader) = (key.sign(&claims("upload"))?, key.sign(&claims("read"))?);
    let undo = format!("/uploads/{}/undo", Uuid::now_v7());
    let bearer = app.client.get(format!("{}/uploads", app.url));
    let bearer = bearer.header("authorization", format!("Bearer {reader}"));
    ensure!(bearer.send().await?.status() == 200);
    let undo = request(&app, Method::POST, &undo, Some(&upload));
    problem(undo.send().await?, 403, "missing_scope").await?;
    let tokens = request(&app, Method::POST, "/tokens", Some(&upload));
    let tokens = tokens.json(&json!({})).send().await?;
    problem(tokens, 403, "token_not_allowed").await?;
    let admin = key.sign(&claims("admin"))?;
    ensure!(get(&app, "/keys", Some(&admin)).await?.status() == 200);
    let keys = request(&app, Method::POST, "/keys", Some(&admin));
    let keys = keys.json(&json!({ "scopes": ["read"] })).send().await?;
    problem(keys, 403, "token_not_allowed").await?;
    let made = read(&app, "/keys", ADMIN).await?;
    ensure!(made["keys"] == json!([]), "{made}");
    let nothing = key.sign(&claims("openid"))?;
    let refused = get(&app, "/uploads", Some(&nothing)).await?;
    let refused = problem(refused, 403, "missing_scope").await?;
    ensure!(text(&refused, "detail")?.contains("`scope`"), "{refused}");
    // Keys are still accepted.
    ensure!(get(&app, "/uploads", Some(ADMIN)).await?.status() == 200);
    app.close().await
}

async fn a_jwt_that_the_issuer_has_not_made_for_carga_is_refused(mode: Mode) -> Result<()> {
    let (key, unknown) = (IssuerKey::new("one")?, IssuerKey::new("one")?);
    let (app, _directory) = app_with_file(mode, &[&key]).await?;
    ensure!(
        get(&app, "/uploads", Some(&key.sign(&claims("read"))?))
            .await?
            .status()
            == 200
    );
    let changed = |name: &str, value: Value| {
        let mut claims = claims("read");
        claims[name] = value;
        key.sign(&claims)
    };
    let valid = key.sign(&claims("read"))?;
    let (_, signature) = valid.rsplit_once('.').context("no signature")?;
    let header = json!({ "alg": "ES256", "typ": "JWT", "kid": "one" });
    let none = json!({ "alg": "none", "typ": "JWT", "kid": "one" });
    let forged = [
        unknown.sign(&claims("read"))?,
        format!("{}.", unsigned(&none, &claims("admin"))),
        format!("{}.{signature}", unsigned(&header, &claims("admin"))),
        changed("exp", json!(now() - 60))?,
        changed("exp", json!(null))?,
        changed("nbf", json!(now() + 60))?,
        changed("iss", json!("https://evil.example/"))?,
        changed("aud", json!("other"))?,
        changed("aud", json!(null))?,
        changed("tenant", json!("Acme"))?,
        changed("tenant", json!(null))?,
    ];
    let mut answers = Vec::new();
    for text in forged {
        let answer = get(&app, "/uploads", Some(&text)).await?;
        let mut refused = problem(answer, 401, "invalid_key").await?;
        refused["request_id"] = json!(null);
        answers.push(refused.to_string());
    }
    let other = get(&app, "/uploads", Some("x")).await?;
    let mut refused = problem(other, 401, "invalid_key").await?;
    refused["request_id"] = json!(null);
    answers.push(refused.to_string());
    answers.dedup();
    ensure!(answers.len() == 1, "{answers:?}");
    app.close().await
}

/// A document, which a test changes, and how often it was read.
#[derive(Default)]
struct Published {
    document: Mutex<String>,
    readings: AtomicUsize,
}

impl Published {
    fn publish(&self, text: String) {
        *self.lock() = text;
    }

    fn lock(&self) -> MutexGuard<'_, String> {
        self.document.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readings(&self) -> usize {
        self.readings.load(Ordering::SeqCst)
    }
}

/// Serves the document at the URL that it returns.
async fn serve(published: Arc<Published>) -> Result<(String, JoinHandle<Result<()>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/jwks", listener.local_addr()?);
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await?;
            let body = published.lock().clone();
            published.readings.fetch_add(1, Ordering::SeqCst);
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await?;
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
        }
    });
    Ok((url, serving))
}

async fn keys_of_the_issuer_rotate(mode: Mode) -> Result<()> {
    let (old, new) = (IssuerKey::new("old")?, IssuerKey::new("new")?);
    let published = Arc::new(Published::default());
    let publish = |text: String| published.publish(text);
    publish("away".to_owned());
    let (url, serving) = serve(Arc::clone(&published)).await?;
    let app = App::start(harness(mode, &url).await?, 0).await?;
    let by_old = old.sign(&claims("read"))?;
    let by_new = new.sign(&claims("read"))?;
    // The issuer does not answer yet. Keys of Carga need no issuer.
    let early = get(&app, "/uploads", Some(&by_old)).await?;
    problem(early, 503, "dependency_unavailable").await?;
    ensure!(get(&app, "/uploads", Some(ADMIN)).await?.status() == 200);
    let accepted = async |jwt: &str| {
        let answer = get(&app, "/uploads", Some(jwt)).await;
        answer.is_ok_and(|answer| answer.status() == 200)
    };
    publish(set_of(&[&old]));
    eventually(TIMEOUT, "the old key", async || accepted(&by_old).await).await?;
    problem(
        get(&app, "/uploads", Some(&by_new)).await?,
        401,
        "invalid_key",
    )
    .await?;
    // A JWT with the new key makes Carga read the keys again, within ten seconds.
    publish(set_of(&[&old, &new]));
    eventually(TIMEOUT, "the new key", async || accepted(&by_new).await).await?;
    ensure!(accepted(&by_old).await);
    // A document that is not a set changes nothing.
    publish("away".to_owned());
    let before = published.readings();
    let invented = IssuerKey::new("invented")?.sign(&claims("read"))?;
    eventually(TIMEOUT, "another reading", async || {
        let refused = get(&app, "/uploads", Some(&invented)).await;
        // The answer comes after the reading that the request has caused.
        refused.is_ok_and(|refused| refused.status() == 401) && published.readings() > before
    })
    .await?;
    // Carga remembers no answer about these, because it has not seen them before.
    let mut others = claims("read");
    others["sub"] = json!("bob");
    for key in [&old, &new] {
        ensure!(accepted(&key.sign(&others)?).await, "{}", key.id);
    }
    serving.abort();
    app.close().await
}

async fn an_api_does_not_start_without_its_file_of_keys(mode: Mode) -> Result<()> {
    let harness = harness(mode, "/no/such/jwks.json").await?;
    let binary = match &harness {
        Harness::Embedded(_) => Binary::Carga,
        Harness::Distributed(_) => Binary::Api,
    };
    let mut refused = Running::spawn(binary, &harness.env())?.quiet();
    let status = refused.wait(TIMEOUT).await?;
    ensure!(!status.success(), "{status}");
    let log = refused.log();
    ensure!(log.contains("CARGA_JWT_JWKS=/no/such/jwks.json"), "{log}");
    harness.close().await
}
