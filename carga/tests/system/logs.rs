//! What the programs log: the line of a request, the ids in JSON lines, and changes of the filter.

use anyhow::{Context, Result, ensure};
use carga_testkit::eventually;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answers::problem;
use crate::app::{App, TIMEOUT};
use crate::files::csv;
use crate::harness::Mode;

in_both_modes! {
    a_request_has_one_line_and_the_lines_of_its_upload_have_its_ids,
    a_health_check_has_no_line,
    the_log_filter_is_changed_over_http_and_put_back,
    a_faulty_log_filter_is_refused_and_changes_nothing,
    sigusr1_changes_the_log_filter_of_each_process,
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The lines of a JSON log.
fn lines(log: &str) -> Vec<Value> {
    let lines = log.lines();
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// The lines of requests.
fn requests(log: &str) -> Vec<Value> {
    let mut lines = lines(log);
    lines.retain(|line| line["target"] == "carga_api::access_log");
    lines
}

/// Waits until this many requests have a line.
async fn wait_for_requests(app: &App, count: usize) -> Result<Vec<Value>> {
    let written = async || {
        let lines = requests(&app.api.log());
        (lines.len() >= count).then_some(lines)
    };
    eventually(TIMEOUT, "the lines of the requests", written).await
}

async fn a_request_has_one_line_and_the_lines_of_its_upload_have_its_ids(mode: Mode) -> Result<()> {
    let harness = mode.harness().await?.with("CARGA_LOG_FORMAT", "json");
    let app = App::start(harness.with("CARGA_LOG", "info,carga=debug"), 1).await?;
    let (id, body) = (Uuid::now_v7(), csv(10));
    let sent = body.len();
    let url = format!("{}/uploads/{id}?filename=salaries.csv", app.url);
    let request = app.client.put(url).header("content-type", "text/csv");
    let request = request.header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let answer = request.header("x-request-id", "r-1").body(body).send();
    let answer = answer.await?;
    ensure!(answer.status() == StatusCode::ACCEPTED);
    let received = answer.bytes().await?.len();
    let found = wait_for_requests(&app, 1).await?;
    let [line] = found.as_slice() else {
        anyhow::bail!("{found:#?}");
    };
    for (field, expected) in [
        ("method", json!("PUT")),
        ("route", json!("/uploads/{id}")),
        ("path", json!(format!("/uploads/{id}"))),
        ("status", json!(202)),
        ("bytes_in", json!(sent)),
        ("bytes_out", json!(received)),
        ("request.id", json!("r-1")),
    ] {
        ensure!(line["fields"][field] == expected, "{field}: {line:#}");
    }
    let duration = line["fields"]["duration_ms"].as_f64();
    ensure!(duration.is_some_and(|ms| ms > 0.0), "{line:#}");
    ensure!(line["trace_id"] == TRACE, "{line:#}");
    ensure!(line["tenant"] == "default", "{line:#}");
    app.expect_completed(id, 10).await?;
    check_lines_of_upload(&app, id)?;
    app.close().await
}

/// The lines of the intake and of the worker have the ids of the upload and of its trace.
fn check_lines_of_upload(app: &App, id: Uuid) -> Result<()> {
    let logs = app.workers.iter().map(|worker| worker.log());
    let logs: Vec<String> = logs.chain([app.api.log()]).collect();
    for log in &logs {
        ensure!(
            !log.contains("salaries"),
            "a value of the query is in the log"
        );
    }
    let all: Vec<Value> = logs.iter().flat_map(|log| lines(log)).collect();
    for message in ["archived", "upload completed"] {
        let is_it = |line: &&Value| line["fields"]["message"] == message;
        let line = all.iter().find(is_it);
        let line = line.with_context(|| format!("no line `{message}`"))?;
        ensure!(line["upload_id"] == id.to_string(), "{line:#}");
        ensure!(line["trace_id"] == TRACE, "{line:#}");
        // A worker reads no tenant before it completes the upload.
        let has_tenant = line["tenant"] == "default";
        ensure!(has_tenant || message != "upload completed", "{line:#}");
    }
    Ok(())
}

async fn a_health_check_has_no_line(mode: Mode) -> Result<()> {
    let harness = mode.harness().await?.with("CARGA_LOG_FORMAT", "json");
    let app = App::start(harness, 0).await?;
    for path in ["/livez", "/readyz", "/uploads"] {
        let answer = app.client.get(format!("{}{path}", app.url)).send().await?;
        ensure!(answer.status() == StatusCode::OK, "{path}");
    }
    let lines = wait_for_requests(&app, 1).await?;
    ensure!(lines.len() == 1, "{lines:#?}");
    ensure!(lines[0]["fields"]["path"] == "/uploads", "{lines:#?}");
    app.close().await
}

/// Sends a request to `/admin/log`.
async fn ask(app: &App, method: Method, body: Option<Value>) -> Result<reqwest::Response> {
    let request = app.client.request(method, format!("{}/admin/log", app.url));
    let request = match &body {
        Some(body) => request.json(body),
        None => request,
    };
    Ok(request.send().await?)
}

/// The filters in effect and of the settings.
async fn filters(answer: reqwest::Response) -> Result<[Value; 2]> {
    let status = answer.status();
    let view: Value = answer.json().await?;
    ensure!(status == StatusCode::OK, "{status}: {view}");
    Ok([view["filter"].clone(), view["configured"].clone()])
}

async fn the_log_filter_is_changed_over_http_and_put_back(mode: Mode) -> Result<()> {
    let harness = mode.harness().await?.with("CARGA_LOG", "warn,carga=info");
    let app = App::start(harness.with("CARGA_LOG_FORMAT", "json"), 0).await?;
    let (configured, silent) = (json!("warn,carga=info"), json!("warn"));
    let get = || ask(&app, Method::GET, None);
    ensure!(filters(get().await?).await? == [configured.clone(), configured.clone()]);
    let put = ask(&app, Method::PUT, Some(json!({ "filter": silent })));
    ensure!(filters(put.await?).await? == [silent.clone(), configured.clone()]);
    let written = wait_for_requests(&app, 1).await?.len();
    for _ in 0..3 {
        ensure!(filters(get().await?).await? == [silent.clone(), configured.clone()]);
    }
    let put = ask(&app, Method::PUT, Some(json!({ "filter": null })));
    ensure!(filters(put.await?).await? == [configured.clone(), configured.clone()]);
    ensure!(app.get("/uploads").await?.0 == StatusCode::OK);
    let list = async || {
        let lines = requests(&app.api.log());
        let is_list = |line: &Value| line["fields"]["path"] == "/uploads";
        lines.iter().any(is_list).then_some(lines)
    };
    let lines = eventually(TIMEOUT, "the line of the list", list).await?;
    // The requests between the two changes have no line.
    ensure!(lines.len() <= written + 2, "{lines:#?}");
    let put = ask(&app, Method::PUT, Some(json!({ "filter": silent })));
    ensure!(filters(put.await?).await?[0] == silent);
    let delete = ask(&app, Method::DELETE, None);
    ensure!(filters(delete.await?).await? == [configured.clone(), configured]);
    app.close().await
}

async fn a_faulty_log_filter_is_refused_and_changes_nothing(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let before = filters(ask(&app, Method::GET, None).await?).await?;
    for body in [
        json!({ "filter": "carga=loud" }),
        json!({ "filter": "carga[batch]=debug" }),
        json!({ "filter": "x".repeat(5_000) }),
        json!({ "filter": 1 }),
        json!({}),
    ] {
        let refused = ask(&app, Method::PUT, Some(body)).await?;
        problem(refused, 422, "malformed_log_filter").await?;
    }
    let large = json!({ "filter": "x".repeat(20_000) });
    let refused = ask(&app, Method::PUT, Some(large)).await?;
    problem(refused, 413, "log_filter_too_large").await?;
    let url = format!("{}/admin/log", app.url);
    let plain = app.client.put(url).header("content-type", "text/plain");
    let refused = plain.body("{}").send().await?;
    problem(refused, 415, "unsupported_media_type").await?;
    let after = filters(ask(&app, Method::GET, None).await?).await?;
    ensure!(after == before, "{after:?}");
    app.close().await
}

async fn sigusr1_changes_the_log_filter_of_each_process(mode: Mode) -> Result<()> {
    let harness = mode
        .harness()
        .await?
        .with("CARGA_LOG_ON_SIGUSR1", "warn,carga=trace");
    let mut app = App::start(harness, 1).await?;
    let configured = filters(ask(&app, Method::GET, None).await?).await?[1].clone();
    app.api.change_log_filter()?;
    let api = app.api.wait_for_log("changed the log filter", TIMEOUT);
    api.await?;
    let changed = filters(ask(&app, Method::GET, None).await?).await?;
    ensure!(changed == [json!("warn,carga=trace"), configured.clone()]);
    if let Some(worker) = app.workers.first_mut() {
        worker.change_log_filter()?;
        worker.wait_for_log("warn,carga=trace", TIMEOUT).await?;
    }
    app.api.change_log_filter()?;
    let is_back = async || {
        let view = ask(&app, Method::GET, None).await.ok()?;
        let [filter, _] = filters(view).await.ok()?;
        (filter == configured).then_some(())
    };
    eventually(TIMEOUT, "the filter of the settings", is_back).await?;
    app.close().await
}
