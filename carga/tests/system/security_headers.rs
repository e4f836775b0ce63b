//! Headers that protect the users of a browser.

use anyhow::{Context, Result, ensure};
use reqwest::{Method, Response};
use uuid::Uuid;

use crate::app::App;
use crate::files::csv;
use crate::harness::Mode;

in_both_modes! {
    every_answer_has_the_headers_that_protect_browsers,
}

/// The headers of every answer without TLS.
const EXPECTED: [(&str, &str); 5] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
    (
        "content-security-policy",
        "default-src 'none'; frame-ancestors 'none'",
    ),
];

fn expect_protected(answer: &Response, status: u16) -> Result<()> {
    ensure!(answer.status() == status, "{}", answer.status());
    for (name, expected) in EXPECTED {
        let found: Vec<_> = answer.headers().get_all(name).iter().collect();
        ensure!(found == [expected], "{name}: {found:?}");
    }
    ensure!(!answer.headers().contains_key("strict-transport-security"));
    Ok(())
}

async fn every_answer_has_the_headers_that_protect_browsers(mode: Mode) -> Result<()> {
    let mut app = App::start(mode.harness().await?, 1).await?;
    let id = Uuid::now_v7();
    let sent = app.put(id, csv(10)).await?;
    expect_protected(&sent, 202).context("202")?;
    app.expect_completed(id, 10).await?;
    let request = |app: &App, method: Method, path: &str| {
        let request = app.client.request(method, format!("{}{path}", app.url));
        request.send()
    };
    for (method, path, status) in [
        (Method::GET, "/livez", 200),
        (Method::GET, "/readyz", 200),
        (Method::GET, "/uploads", 200),
        (Method::HEAD, "/uploads", 200),
        (Method::GET, "/no/such/path", 404),
        (Method::PATCH, "/uploads", 405),
        (Method::GET, "/uploads?unknown=1", 400),
    ] {
        let answer = request(&app, method, path).await?;
        expect_protected(&answer, status).context(path)?;
    }
    let rows = request(&app, Method::GET, &format!("/uploads/{id}/rows")).await?;
    expect_protected(&rows, 200).context("rows")?;
    let disposition = rows.headers().get("content-disposition");
    let disposition = disposition.context("no content-disposition")?.to_str()?;
    ensure!(disposition.starts_with("attachment;"), "{disposition}");

    app.api.kill9()?;
    app.restart_with(&[("CARGA_AUTH", "on")]).await?;
    let answer = request(&app, Method::GET, "/uploads").await?;
    expect_protected(&answer, 401).context("401")?;
    app.close().await
}
