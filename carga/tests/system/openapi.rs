//! The OpenAPI document and its page. `scripts/check-api.sh` compares a server with the document.

use anyhow::{Context, Result, ensure};
use carga_testkit::{Binary, command, repository};
use reqwest::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use reqwest::{Method, Response};
use serde_json::Value;

use crate::app::App;
use crate::harness::Mode;

in_both_modes! {
    the_document_and_its_page_need_no_key_and_may_be_requested_from_any_site,
    a_client_with_the_current_document_gets_304,
}

fn committed() -> Result<String> {
    let file = repository().join("docs/openapi.json");
    std::fs::read_to_string(file).context("docs/openapi.json")
}

/// A Carga that requires keys.
async fn closed_app(mode: Mode) -> Result<App> {
    let harness = mode.harness().await?.with("CARGA_AUTH", "on");
    App::start(harness, 0).await
}

async fn get(app: &App, path: &str, header: (&str, &str)) -> Result<Response> {
    let get = app.client.get(format!("{}{path}", app.url));
    Ok(get.header(header.0, header.1).send().await?)
}

fn header(answer: &Response, name: reqwest::header::HeaderName) -> Result<String> {
    let value = answer
        .headers()
        .get(&name)
        .with_context(|| format!("no {name}"))?;
    Ok(value.to_str()?.to_owned())
}

async fn the_document_and_its_page_need_no_key_and_may_be_requested_from_any_site(
    mode: Mode,
) -> Result<()> {
    let app = closed_app(mode).await?;
    let foreign = ("sec-fetch-site", "cross-site");
    let document = get(&app, "/openapi.json", foreign).await?;
    ensure!(document.status() == 200);
    ensure!(header(&document, CONTENT_TYPE)? == "application/json");
    ensure!(header(&document, CACHE_CONTROL)? == "no-cache");
    let document = document.text().await?;
    // The answer has no line breaks and no indentation.
    ensure!(!document.contains('\n') && document.len() < committed()?.len());
    let [answered, committed] = [document, committed()?].map(|text| serde_json::from_str(&text));
    let (answered, committed): (Value, Value) = (answered?, committed?);
    ensure!(answered == committed);

    let page = get(&app, "/docs", foreign).await?;
    ensure!(page.status() == 200);
    ensure!(header(&page, CONTENT_TYPE)? == "text/html; charset=utf-8");
    let policy = header(&page, CONTENT_SECURITY_POLICY)?;
    ensure!(policy.starts_with("default-src 'none'; "), "{policy}");
    ensure!(!policy.contains("unsafe"), "{policy}");
    let page = page.text().await?;
    ensure!(page.contains("POST /uploads") && !page.contains("<script"));

    for path in ["/openapi.json", "/docs"] {
        let url = format!("{}{path}", app.url);
        let head = app.client.request(Method::HEAD, url).send().await?;
        ensure!(head.status() == 200, "HEAD {path}: {}", head.status());
    }
    app.close().await
}

async fn a_client_with_the_current_document_gets_304(mode: Mode) -> Result<()> {
    let app = closed_app(mode).await?;
    for path in ["/openapi.json", "/docs"] {
        let first = get(&app, path, ("accept", "*/*")).await?;
        let tag = header(&first, ETAG)?;
        let again = get(&app, path, (IF_NONE_MATCH.as_str(), &tag)).await?;
        ensure!(again.status() == 304, "{path}: {}", again.status());
        ensure!(header(&again, ETAG)? == tag && again.bytes().await?.is_empty());
        let other = get(&app, path, (IF_NONE_MATCH.as_str(), "\"other\"")).await?;
        ensure!(other.status() == 200, "{path}: {}", other.status());
    }
    app.close().await
}

#[test]
fn carga_prints_the_document_without_a_server() -> Result<()> {
    let output = command(Binary::Carga)?.arg("openapi").output()?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(String::from_utf8(output.stdout)? == committed()?);
    Ok(())
}
