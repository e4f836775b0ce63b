//! The metrics of the running programs.
//!
//! Each program of a test has a listener of its own for metrics, unless the test says otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carga_testkit::{Running, eventually};
use reqwest::{Method, StatusCode};
use uuid::Uuid;

use crate::app::{App, TIMEOUT};
use crate::files::csv;
use crate::harness::{Harness, Mode};

in_both_modes! {
    an_upload_moves_the_counters_by_its_rows,
    uploads_add_no_series,
    scrapes_within_five_seconds_read_the_state_once,
    the_api_shows_its_metrics_beside_its_other_routes,
    a_listener_for_metrics_replaces_the_route_of_the_api,
}

/// The setting that gives each program a listener for metrics.
pub(crate) const OWN_LISTENER: (&str, &str) = ("CARGA_METRICS_LISTEN", "127.0.0.1:0");

/// The values of all series.
pub(crate) type Series = BTreeMap<String, f64>;

/// Parses the text format.
pub(crate) fn parse(text: &str) -> Result<Series> {
    let lines = text.lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parsed = lines.map(|line| {
        let (series, value) = line.rsplit_once(' ').context("a line without a value")?;
        Ok((series.to_owned(), value.parse()?))
    });
    parsed.collect()
}

/// The URL on which a program shows its metrics, from its log.
pub(crate) fn metrics_url(program: &Running) -> Result<String> {
    let log = program.log();
    let found = log.split_once("metrics are on http://");
    let (_, rest) = found.context("the program has no listener for metrics")?;
    let address = rest.split_whitespace().next().unwrap_or_default();
    Ok(format!("http://{address}"))
}

/// What a program shows at this URL.
pub(crate) async fn scrape(app: &App, url: &str) -> Result<Series> {
    parse(&text(app, url).await?)
}

pub(crate) async fn text(app: &App, url: &str) -> Result<String> {
    let answer = app.client.get(url).send().await?;
    ensure!(answer.status() == StatusCode::OK, "{answer:?}");
    Ok(answer.text().await?)
}

/// The sums of the series of all programs.
pub(crate) async fn scrape_all(app: &App) -> Result<Series> {
    let mut sums = Series::new();
    for program in std::iter::once(&app.api).chain(&app.workers) {
        for (series, value) in scrape(app, &metrics_url(program)?).await? {
            *sums.entry(series).or_default() += value;
        }
    }
    Ok(sums)
}

/// A file with 2,503 rows, of which three are rejected.
pub(crate) fn file_with_rejects() -> String {
    csv(2500) + "1,2,3,4,5\n1,2,3,4,5\n\"1\"2,3,4,5\n"
}

/// The counters after one upload of [`file_with_rejects`].
fn expected() -> Vec<(&'static str, f64)> {
    vec![
        (
            "carga_intake_bytes_received_total",
            file_with_rejects().len() as f64,
        ),
        ("carga_intake_rows_read_total", 2503.0),
        (
            "carga_intake_rows_rejected_total{code=\"too_many_fields\"}",
            2.0,
        ),
        ("carga_intake_rows_rejected_total{code=\"bad_quote\"}", 1.0),
        (
            "carga_upload_rows_rejected_total{code=\"too_many_fields\"}",
            2.0,
        ),
        ("carga_upload_rows_rejected_total{code=\"bad_quote\"}", 1.0),
        ("carga_upload_rows_rejected_total{code=\"other\"}", 0.0),
        ("carga_intake_rows_rejected_total{code=\"other\"}", 0.0),
        ("carga_intake_batches_published_total", 3.0),
        ("carga_intake_confirm_duration_seconds_count", 3.0),
        ("carga_intake_uploads_receiving", 0.0),
        ("carga_intake_publish_budget_used_bytes", 0.0),
        ("carga_uploads_ended_total{status=\"partial\"}", 1.0),
        ("carga_uploads_ended_total{status=\"completed\"}", 0.0),
        (
            "carga_upload_duration_seconds_count{status=\"partial\"}",
            1.0,
        ),
        ("carga_upload_rows_total{outcome=\"inserted\"}", 2500.0),
        ("carga_upload_rows_total{outcome=\"rejected\"}", 3.0),
        ("carga_worker_batches_total{outcome=\"stored\"}", 3.0),
        ("carga_worker_batches_total{outcome=\"dead\"}", 0.0),
        ("carga_worker_rows_total{outcome=\"stored\"}", 2500.0),
        ("carga_worker_archive_duration_seconds_count", 3.0),
        ("carga_worker_commit_batches_sum", 3.0),
        ("carga_worker_batches_in_hand", 0.0),
        (
            "carga_port_calls_total{port=\"store\",operation=\"create_if\",outcome=\"ok\"}",
            1.0,
        ),
        (
            "carga_port_calls_total{port=\"queue\",operation=\"publish\",outcome=\"ok\"}",
            3.0,
        ),
        (
            "carga_port_calls_total{port=\"queue\",operation=\"ack\",outcome=\"ok\"}",
            3.0,
        ),
        (
            "carga_http_requests_total{method=\"PUT\",route=\"/uploads/{id}\",status=\"202\"}",
            1.0,
        ),
    ]
}

async fn an_upload_moves_the_counters_by_its_rows(mode: Mode) -> Result<()> {
    let app = App::start(with_listener(mode.harness().await?), 1).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, file_with_rejects()).await?.status() == 202);
    app.wait_until_ended(id).await?;
    let differences = async || -> Result<Vec<String>> {
        let found = scrape_all(&app).await?;
        let differences = expected().into_iter().filter_map(|(series, value)| {
            let found = found.get(series);
            (found != Some(&value)).then(|| format!("{series}: {found:?}, expected {value}"))
        });
        Ok(differences.collect())
    };
    // A process counts the end of an upload just after the end is on record.
    let equal = async || differences().await.is_ok_and(|found| found.is_empty());
    let counted = eventually(Duration::from_secs(30), "the counters", equal).await;
    ensure!(counted.is_ok(), "{:?}", differences().await?);
    // No label has the id of the upload.
    let found = scrape_all(&app).await?;
    ensure!(!found.keys().any(|series| series.contains(&id.to_string())));
    app.close().await
}

/// The series of metrics other than the calls of the ports. An operation that is called for the
/// first time adds series, and their number is that of the operations in the code.
async fn series_apart_from_calls(app: &App) -> Result<BTreeSet<String>> {
    let all = scrape_all(app).await?.into_keys();
    let apart = all.filter(|series| !series.starts_with("carga_port_call"));
    Ok(apart.collect())
}

async fn uploads_add_no_series(mode: Mode) -> Result<()> {
    let app = App::start(with_listener(mode.harness().await?), 1).await?;
    let send = async |name: &str| -> Result<()> {
        let id = Uuid::now_v7();
        let options = format!("filename={name}");
        let sent = app.put_with(id, &options, csv(3)).await?;
        ensure!(sent.status() == 202);
        app.wait_until_ended(id).await?;
        // A path that no route has, and a method that no route takes.
        app.get(&format!("/{name}")).await?;
        let method = Method::from_bytes(name.as_bytes())?;
        let url = format!("{}/uploads", app.url);
        let refused = app.client.request(method, url).send().await?;
        ensure!(refused.status() == StatusCode::METHOD_NOT_ALLOWED);
        Ok(())
    };
    send("first").await?;
    let before = series_apart_from_calls(&app).await?;
    let calls = scrape_all(&app).await?.len() - before.len();
    for number in 0..50 {
        send(&format!("secret-{number}")).await?;
    }
    let after = series_apart_from_calls(&app).await?;
    let new: Vec<_> = after.difference(&before).collect();
    ensure!(new.is_empty(), "{new:?}");
    let all = scrape_all(&app).await?;
    let named = all.keys().find(|series| series.contains("secret"));
    ensure!(named.is_none(), "{named:?}");
    // A label that differs from upload to upload would add at least nine series for each upload:
    // the outcomes of one call.
    let calls_after = all.len() - after.len();
    ensure!(calls_after < calls + 50 * 9, "{calls} and {calls_after}");
    app.close().await
}

async fn scrapes_within_five_seconds_read_the_state_once(mode: Mode) -> Result<()> {
    let app = App::start(with_listener(mode.harness().await?), 0).await?;
    let url = metrics_url(&app.api)?;
    let reads = async || -> Result<[f64; 2]> {
        let found = scrape(&app, &url).await?;
        let observed =
            "carga_port_calls_total{port=\"store\",operation=\"observe\",outcome=\"ok\"}";
        let value = |series: &str| found.get(series).copied().context("no such series");
        Ok([value("carga_state_reads_total")?, value(observed)?])
    };
    // On a slow machine, the scrapes may take longer than five seconds.
    loop {
        let started = Instant::now();
        let first = reads().await?;
        let others = [reads().await?, reads().await?, reads().await?];
        if started.elapsed() < Duration::from_secs(4) {
            let (read, observed) = (others[2][0] - first[0], others[2][1] - first[1]);
            // The first scrape may come just before the end of the pause.
            ensure!(read <= 1.0 && read == observed, "{first:?} {others:?}");
            break;
        }
    }
    let [read, _] = reads().await?;
    let grown = async || reads().await.is_ok_and(|[now, _]| now > read);
    eventually(TIMEOUT, "the next read of the state", grown).await?;
    app.close().await
}

async fn the_api_shows_its_metrics_beside_its_other_routes(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let answer = app.client.get(format!("{}/metrics", app.url)).send();
    let answer = answer.await?;
    ensure!(answer.status() == StatusCode::OK);
    let header = |name: &str| answer.headers().get(name).cloned();
    let media_type = header("content-type").context("no content type")?;
    ensure!(media_type == "text/plain; version=0.0.4; charset=utf-8");
    ensure!(header("cache-control").is_some_and(|value| value == "no-store"));
    let found = parse(&answer.text().await?)?;
    let expected_mode = match mode {
        Mode::Embedded => "embedded",
        Mode::Distributed => "distributed",
    };
    let version = env!("CARGO_PKG_VERSION");
    let build = format!("carga_build_info{{version=\"{version}\",mode=\"{expected_mode}\"}}");
    ensure!(found.get(&build) == Some(&1.0), "{found:?}");
    // The scrape itself.
    ensure!(found.get("carga_http_requests_in_flight") == Some(&1.0));
    let url = format!("{}/metrics", app.url);
    let all_answer = async || {
        let found = scrape(&app, &url).await.unwrap_or_default();
        ["store", "queue", "archive", "progress"]
            .iter()
            .all(|name| {
                let series = format!("carga_dependency_degraded{{dependency=\"{name}\"}}");
                found.get(&series) == Some(&0.0)
            })
    };
    eventually(TIMEOUT, "the dependencies to answer", all_answer).await?;
    let (refused, _) = app.get("/metrics?format=json").await?;
    ensure!(refused == StatusCode::BAD_REQUEST);
    app.close().await
}

async fn a_listener_for_metrics_replaces_the_route_of_the_api(mode: Mode) -> Result<()> {
    let app = App::start(with_listener(mode.harness().await?), 1).await?;
    let (status, problem) = app.get("/metrics").await?;
    ensure!(status == StatusCode::NOT_FOUND && problem["code"] == "not_found");
    for program in std::iter::once(&app.api).chain(&app.workers) {
        let url = metrics_url(program)?;
        let answer = app.client.get(&url).send().await?;
        ensure!(answer.status() == StatusCode::OK);
        let other = app.client.get(format!("{url}/other")).send().await?;
        ensure!(other.status() == StatusCode::NOT_FOUND);
        let posted = app.client.post(&url).send().await?;
        ensure!(posted.status() == StatusCode::METHOD_NOT_ALLOWED);
    }
    app.close().await
}

/// Gives each program a listener for metrics.
fn with_listener(harness: Harness) -> Harness {
    let (name, value) = OWN_LISTENER;
    harness.with(name, value)
}
