//! How many requests a client may send.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carga_common::access::ApiKey;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use super::{header, limited_app, until_refused};
use crate::access::{ADMIN, get, key_of, request};
use crate::answers::problem;
use crate::app::{App, KNOWN_DIALECT, TIMEOUT};
use crate::harness::Mode;
use crate::metrics::parse;

in_both_modes! {
    a_key_over_its_limit_is_refused_until_a_request_comes_back,
    a_token_counts_for_the_key_that_made_it,
    wrong_keys_are_limited_by_address,
    invented_keys_are_looked_up_a_limited_number_of_times,
    preflights_are_limited_by_address,
    only_a_trusted_proxy_says_the_address_of_a_client,
    a_refused_upload_is_answered_before_its_body_is_read,
    a_repeated_request_is_answered_by_a_key_over_its_limit,
    scrapes_of_the_metrics_are_not_limited,
}

async fn a_key_over_its_limit_is_refused_until_a_request_comes_back(mode: Mode) -> Result<()> {
    // A request comes back every three seconds.
    let app = limited_app(mode, 0, &[("CARGA_LIMIT_KEY", "20")]).await?;
    let one = key_of(&app, "acme", &["read"]).await?;
    let other = key_of(&app, "acme", &["read"]).await?;
    let first = get(&app, "/uploads", Some(&one)).await?;
    ensure!(first.status() == 200 && header(&first, "ratelimit")?.starts_with("\"key\";r=19;"));
    let (admitted, refused) = until_refused(&app, &one, 200).await?;
    ensure!(admitted >= 19, "only {admitted} more were admitted");
    ensure!(header(&refused, "ratelimit-policy")? == "\"key\";q=20;w=60");
    ensure!(header(&refused, "ratelimit")?.starts_with("\"key\";r=0;t="));
    let retry_secs: u64 = header(&refused, "retry-after")?.parse()?;
    ensure!((1..=3).contains(&retry_secs), "{retry_secs}");
    let refused = problem(refused, 429, "rate_limited").await?;
    let detail = refused["detail"].as_str().context("no detail")?;
    ensure!(detail.contains("CARGA_LIMIT_KEY"), "{refused}");
    ensure!(refused["limit"] == 20, "{refused}");

    ensure!(get(&app, "/uploads", Some(&other)).await?.status() == 200);
    for _ in 0..50 {
        let health = get(&app, "/livez", Some(&one)).await?;
        ensure!(health.status() == 200 && header(&health, "ratelimit").is_err());
    }
    tokio::time::sleep(Duration::from_secs(retry_secs)).await;
    ensure!(get(&app, "/uploads", Some(&one)).await?.status() == 200);
    app.close().await
}

async fn a_token_counts_for_the_key_that_made_it(mode: Mode) -> Result<()> {
    // A request comes back every three seconds.
    let began = Instant::now();
    let app = limited_app(mode, 0, &[("CARGA_LIMIT_KEY", "20")]).await?;
    let key = key_of(&app, "acme", &["read"]).await?;
    let post = request(&app, Method::POST, "/tokens", Some(&key));
    let made: Value = post.json(&json!({})).send().await?.json().await?;
    let token = made["token"].as_str().context("no token")?;
    let (with_token, refused) = until_refused(&app, token, 200).await?;
    ensure!(with_token >= 19, "only {with_token} were admitted");
    problem(refused, 429, "rate_limited").await?;
    let (with_key, _) = until_refused(&app, &key, 200).await?;
    let back = began.elapsed().as_secs() / 3 + 1;
    let admitted = u64::from(with_token + with_key);
    ensure!(admitted <= 19 + back, "{admitted} were admitted");
    app.close().await
}

async fn wrong_keys_are_limited_by_address(mode: Mode) -> Result<()> {
    let app = limited_app(mode, 0, &[("CARGA_LIMIT_ADDRESS", "15")]).await?;
    let (admitted, refused) = until_refused(&app, "wrong", 401).await?;
    ensure!(admitted >= 15, "only {admitted} were answered with 401");
    ensure!(header(&refused, "ratelimit-policy")? == "\"address\";q=15;w=60");
    let refused = problem(refused, 429, "rate_limited").await?;
    let detail = refused["detail"].as_str().context("no detail")?;
    ensure!(
        detail.contains("CARGA_LIMIT_ADDRESS") && detail.contains("127.0.0.1"),
        "{refused}"
    );
    app.close().await
}

async fn invented_keys_are_looked_up_a_limited_number_of_times(mode: Mode) -> Result<()> {
    // The lookups that an address has at once, and those that come back each second.
    for (limit, requests, at_once, per_sec) in [
        ("CARGA_LIMIT_ADDRESS", "15", 15.0, 0.25),
        ("CARGA_LIMIT_BURST", "3", 30.0, 3.0),
    ] {
        let began = Instant::now();
        let app = limited_app(mode, 0, &[(limit, requests)]).await?;
        for _ in 0..50 {
            let invented = ApiKey::generate()?;
            get(&app, "/uploads", Some(invented.expose())).await?;
        }
        // These clients leave before they are answered, so only their lookups can count.
        for _ in 0..100 {
            ask_and_leave(&app, &ApiKey::generate()?).await?;
        }
        // A lookup that a client has left behind may still be running.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let lookups = lookups(&app).await?;
        let most = at_once + per_sec * began.elapsed().as_secs_f64() + 1.0;
        ensure!(lookups <= most, "{limit}: {lookups} of {most}");
        ensure!(lookups >= at_once, "{limit}: only {lookups}");
        app.close().await?;
    }
    Ok(())
}

/// Sends a request and closes the connection without its answer.
async fn ask_and_leave(app: &App, key: &ApiKey) -> Result<()> {
    let mut connection = app.connect().await?;
    let key = key.expose();
    let head = format!("GET /uploads HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\n\r\n");
    connection.write_all(head.as_bytes()).await?;
    Ok(())
}

/// How often keys were looked up in the store.
async fn lookups(app: &App) -> Result<f64> {
    let scraped = get(app, "/metrics", Some(ADMIN)).await?.text().await?;
    let lookups = parse(&scraped)?
        .get("carga_key_lookups_total{source=\"store\"}")
        .copied();
    lookups.context("no lookups")
}

async fn preflights_are_limited_by_address(mode: Mode) -> Result<()> {
    const PAGE: &str = "https://app.example.org";
    let settings = [
        ("CARGA_LIMIT_ADDRESS", "15"),
        ("CARGA_LIMIT_BURST", "1"),
        ("CARGA_ALLOWED_ORIGINS", PAGE),
    ];
    let app = limited_app(mode, 0, &settings).await?;
    let mut answers = Vec::new();
    for _ in 0..60 {
        let preflight = request(&app, Method::OPTIONS, "/uploads", None);
        let preflight = preflight.header("origin", PAGE);
        let preflight = preflight.header("access-control-request-method", "POST");
        answers.push(preflight.send().await?);
    }
    let refused = answers.iter().position(|answer| answer.status() == 429);
    let refused = refused.context("no preflight was refused")?;
    ensure!(refused >= 15, "only {refused} were answered");
    let refused = answers.swap_remove(refused);
    ensure!(header(&refused, "ratelimit-policy")? == "\"address\";q=15;w=60");
    ensure!(header(&refused, "access-control-allow-origin")? == PAGE);
    let exposed = header(&refused, "access-control-expose-headers")?;
    ensure!(exposed.contains("ratelimit, ratelimit-policy"), "{exposed}");
    problem(refused, 429, "rate_limited").await?;
    app.close().await
}

/// The status of a request that claims to come from this address.
async fn status_from(app: &App, address: &str) -> Result<StatusCode> {
    let request = request(app, Method::GET, "/uploads", Some(ADMIN));
    let answer = request.header("x-forwarded-for", address).send().await?;
    Ok(answer.status())
}

async fn only_a_trusted_proxy_says_the_address_of_a_client(mode: Mode) -> Result<()> {
    let mut app = limited_app(mode, 0, &[("CARGA_LIMIT_ADDRESS", "5")]).await?;
    let mut statuses = Vec::new();
    for host in 1..=30 {
        statuses.push(status_from(&app, &format!("198.51.100.{host}")).await?);
    }
    ensure!(statuses.contains(&StatusCode::TOO_MANY_REQUESTS));

    app.api.kill9()?;
    app.restart_with(&[("CARGA_TRUSTED_PROXIES", "127.0.0.0/8, 10.0.0.0/8")])
        .await?;
    for host in 1..=30 {
        let status = status_from(&app, &format!("198.51.100.{host}")).await?;
        ensure!(status == 200, "{host}: {status}");
    }
    // One client behind two proxies, which invents another address each time.
    statuses.clear();
    for host in 1..=30 {
        let chain = format!("203.0.113.{host}, 192.0.2.7, 10.0.0.1");
        statuses.push(status_from(&app, &chain).await?);
    }
    ensure!(statuses.contains(&StatusCode::TOO_MANY_REQUESTS));
    app.close().await
}

async fn a_refused_upload_is_answered_before_its_body_is_read(mode: Mode) -> Result<()> {
    let app = limited_app(mode, 0, &[("CARGA_LIMIT_KEY", "1")]).await?;
    let key = key_of(&app, "acme", &["read", "upload"]).await?;
    ensure!(get(&app, "/uploads", Some(&key)).await?.status() == 200);
    let id = Uuid::now_v7();
    let mut connection = app.connect().await?;
    let head = format!(
        "PUT /uploads/{id} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\ncontent-type: text/csv\r\n\
         content-length: 1000000000\r\nexpect: 100-continue\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(TIMEOUT, connection.read_to_string(&mut answer)).await??;
    // Reading the body would begin with the answer 100.
    ensure!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    ensure!(answer.contains("rate_limited"), "{answer}");
    app.close().await
}

async fn a_repeated_request_is_answered_by_a_key_over_its_limit(mode: Mode) -> Result<()> {
    let app = limited_app(mode, 1, &[("CARGA_LIMIT_KEY", "1")]).await?;
    let key = key_of(&app, "acme", &["upload"]).await?;
    let send = async |idempotency_key: &str| {
        let path = format!("/uploads?{KNOWN_DIALECT}");
        let post = request(&app, Method::POST, &path, Some(&key));
        let post = post.header("idempotency-key", idempotency_key);
        post.header("content-type", "text/csv")
            .body("a,b\n1,2\n")
            .send()
            .await
    };
    let first = send("one").await?;
    ensure!(first.status() == 202, "{}", first.text().await?);
    let first: Value = first.json().await?;
    for _ in 0..20 {
        let repeated = send("one").await?;
        ensure!(repeated.status() == 202 && header(&repeated, "idempotency-replayed")? == "true");
        let repeated: Value = repeated.json().await?;
        ensure!(repeated["id"] == first["id"], "{repeated}");
    }
    let refused = send("two").await?;
    problem(refused, 429, "rate_limited").await?;
    ensure!(send("one").await?.status() == 202);
    app.close().await
}

async fn scrapes_of_the_metrics_are_not_limited(mode: Mode) -> Result<()> {
    let limits = [
        ("CARGA_LIMIT_ADDRESS", "5"),
        ("CARGA_LIMIT_KEY", "5"),
        ("CARGA_LIMIT_BURST", "5"),
    ];
    let app = limited_app(mode, 0, &limits).await?;
    let (_, refused) = until_refused(&app, ADMIN, 200).await?;
    problem(refused, 429, "rate_limited").await?;
    for _ in 0..20 {
        let scraped = get(&app, "/metrics", Some(ADMIN)).await?;
        ensure!(scraped.status() == 200 && header(&scraped, "ratelimit").is_err());
        let found = parse(&scraped.text().await?)?;
        let refused = |limit: &str| {
            let series = format!("carga_limit_refusals_total{{limit=\"{limit}\"}}");
            found.get(&series).copied().unwrap_or(-1.0)
        };
        let by_rate: f64 = ["address", "key", "burst"].map(refused).iter().sum();
        ensure!(by_rate == 1.0 && refused("uploads") == 0.0, "{found:?}");
    }
    app.close().await
}
