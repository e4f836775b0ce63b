//! A real Prometheus understands the metrics, the board and the alerts.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_testkit::{Prometheus, Scope, eventually, promtool, repository};
use reqwest::Client;
use reqwest::header::HeaderMap;
use serde_json::Value;
use uuid::Uuid;

use crate::access::ADMIN;
use crate::app::{App, TIMEOUT};
use crate::metrics::{OWN_LISTENER, file_with_rejects, metrics_url, text};

fn deployed(file: &str) -> PathBuf {
    repository().join("deploy").join(file)
}

#[test]
fn promtool_accepts_the_configuration_and_the_alerts() -> Result<()> {
    let configuration = deployed("prometheus/prometheus.yml").display().to_string();
    promtool(&["check", "config", &configuration], "")?;
    let rules = deployed("prometheus/rules.yml").display().to_string();
    promtool(&["check", "rules", &rules], "")
}

#[test]
fn each_alert_fires_when_something_is_wrong_and_is_silent_otherwise() -> Result<()> {
    let cases = deployed("prometheus/rules_test.yml").display().to_string();
    promtool(&["test", "rules", &cases], "")
}

#[tokio::test]
async fn promtool_accepts_the_metrics_of_api_and_worker() -> Result<()> {
    let app = start().await?;
    upload(&app).await?;
    for program in [&app.api, &app.workers[0]] {
        let text = text(&app, &metrics_url(program)?).await?;
        promtool(&["check", "metrics"], &text)?;
    }
    app.close().await
}

#[tokio::test]
async fn every_query_of_the_board_and_every_alert_has_an_answer() -> Result<()> {
    let mut app = start().await?;
    upload(&app).await?;
    let prometheus = scraping(&app).await?;
    let api = QueryApi {
        url: prometheus.url(),
        client: Client::new(),
    };
    let settled = async || {
        let scrapes = api.query("count(count_over_time(carga_build_info[1m]) > 3)");
        scrapes
            .await
            .is_ok_and(|found| value_of(&found) == Some(2.0))
    };
    eventually(TIMEOUT, "four scrapes of both programs", settled).await?;
    // Some rates are ratios, and need an upload between two scrapes.
    upload(&app).await?;
    let seen = async || {
        let query = "increase(carga_worker_commit_batches_count[1m]) > 0";
        api.query(query).await.is_ok_and(|found| !found.is_empty())
    };
    eventually(TIMEOUT, "the second upload to be scraped", seen).await?;
    for (panel, query) in board_queries()? {
        let found = api.query(&query).await;
        let found = found.with_context(|| format!("panel `{panel}`"))?;
        ensure!(!found.is_empty(), "panel `{panel}` is empty: {query}");
    }
    api.check_alerts().await?;
    let firing = api.alerts().await?;
    for alert in ["CargaWorkerDown", "CargaNoWorker"] {
        ensure!(!firing.iter().any(|firing| firing == alert), "{firing:?}");
    }
    app.workers.clear();
    let noticed = async || {
        let found = api.alerts().await.unwrap_or_default();
        let has = |name: &str| found.iter().any(|found| found == name);
        has("CargaWorkerDown") && has("CargaNoWorker")
    };
    eventually(TIMEOUT, "the alerts about the worker", noticed).await?;
    app.close().await
}

/// An API that requires keys, and a worker. The client of the app sends a key.
async fn start() -> Result<App> {
    let mut scope = Scope::new().await?;
    for (name, value) in [
        OWN_LISTENER,
        ("CARGA_SWEEP_MS", "1000"),
        ("CARGA_AUTH", "on"),
        ("CARGA_ADMIN_KEY", ADMIN),
        // The client of the app polls.
        ("CARGA_LIMIT_KEY", "off"),
        ("CARGA_LIMIT_BURST", "off"),
    ] {
        scope = scope.with(name, value);
    }
    let mut app = App::start(scope, 1).await?;
    let headers = HeaderMap::from_iter([("x-api-key".parse()?, ADMIN.parse()?)]);
    app.client = Client::builder().default_headers(headers).build()?;
    Ok(app)
}

async fn upload(app: &App) -> Result<()> {
    let id = Uuid::now_v7();
    ensure!(app.put(id, file_with_rejects()).await?.status() == 202);
    app.wait_until_ended(id).await?;
    Ok(())
}

/// A Prometheus that scrapes the programs of this app under the names of the deployed jobs.
async fn scraping(app: &App) -> Result<Prometheus> {
    let target = |program| -> Result<Vec<String>> {
        let url = metrics_url(program)?;
        let address = url.trim_start_matches("http://");
        Ok(vec![address.trim_end_matches("/metrics").to_owned()])
    };
    let jobs = [
        ("carga-api", target(&app.api)?),
        ("carga-worker", target(&app.workers[0])?),
    ];
    Prometheus::start(&jobs, &deployed("prometheus/rules.yml")).await
}

/// The queries of the board with the titles of their panels, as Grafana sends them.
fn board_queries() -> Result<Vec<(String, String)>> {
    let board: Value = serde_json::from_slice(&std::fs::read(deployed("grafana/carga.json"))?)?;
    let mut queries = Vec::new();
    for panel in board["panels"].as_array().context("no panels")? {
        let title = panel["title"].as_str().context("no title")?;
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().context("no query")?;
            let query = query.replace("$__rate_interval", "1m");
            queries.push((title.to_owned(), query.replace("$instance", ".*")));
        }
    }
    ensure!(queries.len() > 30, "{} queries", queries.len());
    ensure!(!queries.iter().any(|(_, query)| query.contains("$")));
    Ok(queries)
}

/// The HTTP API of a Prometheus.
struct QueryApi {
    url: String,
    client: Client,
}

impl QueryApi {
    async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.client.get(format!("{}{path}", self.url)).send();
        let answer: Value = answer.await?.json().await?;
        ensure!(answer["status"] == "success", "{path}: {answer}");
        Ok(answer["data"].clone())
    }

    /// The series that a query returns.
    async fn query(&self, query: &str) -> Result<Vec<Value>> {
        let path = format!("/api/v1/query?query={}", percent_encoded(query));
        let data = self.get(&path).await.with_context(|| query.to_owned())?;
        let found = data["result"].as_array().context("no result")?;
        Ok(found.clone())
    }

    /// Waits until every alert was evaluated, and checks that its query is valid.
    async fn check_alerts(&self) -> Result<()> {
        let rules = async || -> Result<Vec<Value>> {
            let data = self.get("/api/v1/rules").await?;
            let rules = data["groups"][0]["rules"].as_array().context("no rules")?;
            Ok(rules.clone())
        };
        let evaluated = async || {
            let rules = rules().await.unwrap_or_default();
            let is_known = |rule: &Value| rule["health"] != "unknown";
            !rules.is_empty() && rules.iter().all(is_known)
        };
        eventually(
            Duration::from_secs(60),
            "the alerts to be evaluated",
            evaluated,
        )
        .await?;
        for rule in rules().await? {
            ensure!(rule["health"] == "ok", "{rule}");
            let query = rule["query"].as_str().context("no query")?;
            self.query(query).await?;
        }
        Ok(())
    }

    /// The names of the alerts that are pending or firing.
    async fn alerts(&self) -> Result<Vec<String>> {
        let data = self.get("/api/v1/alerts").await?;
        let alerts = data["alerts"].as_array().context("no alerts")?;
        let names = alerts.iter().map(|alert| &alert["labels"]["alertname"]);
        Ok(names.filter_map(Value::as_str).map(str::to_owned).collect())
    }
}

fn value_of(found: &[Value]) -> Option<f64> {
    found.first()?["value"][1].as_str()?.parse().ok()
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
