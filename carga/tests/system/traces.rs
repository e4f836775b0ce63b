//! One trace covers an upload from the client's request to the COMMIT in another process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carga_testkit::{Collector, SentSpan, eventually};
use reqwest::StatusCode;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::app::{App, KNOWN_DIALECT, TIMEOUT};
use crate::files::csv;
use crate::harness::{Harness, Mode};

in_both_modes! {
    one_trace_covers_an_upload_from_the_request_to_the_commit,
    an_unsampled_request_and_health_checks_send_no_spans,
    a_collector_that_is_away_loses_no_row,
    a_collector_that_never_answers_delays_a_stop_by_seconds,
    spans_in_memory_are_sent_at_the_stop,
}

/// The client's context.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";

/// A harness whose programs send spans to this collector, every tenth of a second.
async fn traced(mode: Mode, collector: &str) -> Result<Harness> {
    let harness = mode.harness().await?;
    Ok(harness
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
        .with("OTEL_BSP_SCHEDULE_DELAY", "100"))
}

/// Sends a file of `rows` rows with the client's context.
async fn send(app: &App, id: Uuid, rows: usize, flags: &str) -> Result<()> {
    let url = format!("{}/uploads/{id}?{KNOWN_DIALECT}", app.url);
    let request = app.client.put(url).header("content-type", "text/csv");
    let request = request.header("traceparent", format!("00-{TRACE}-{CLIENT}-{flags}"));
    let answer = request.body(csv(rows)).send().await?;
    ensure!(answer.status() == StatusCode::ACCEPTED, "{answer:?}");
    Ok(())
}

/// The client's trace, once its three batches are settled and no parent of a span is missing.
async fn whole_trace(collector: &Collector) -> Result<Trace> {
    let arrived = async || {
        let spans = collector.spans().into_iter();
        let trace = Trace::new(spans.filter(|span| span.trace_id == TRACE).collect());
        let has_parent =
            |span: &SentSpan| span.parent_id == CLIENT || trace.0.contains_key(&span.parent_id);
        let is_whole = trace.all("batch").len() == 3
            && !trace.all("request").is_empty()
            && trace.all("queue.ack").len() == 3
            && !trace.all("store.complete").is_empty()
            && trace.0.values().all(has_parent);
        is_whole.then_some(trace)
    };
    let arrived = eventually(TIMEOUT, "the spans to arrive", arrived).await;
    arrived.with_context(|| format!("only these arrived: {:#?}", collector.spans()))
}

/// The spans of a trace by their ids.
struct Trace(BTreeMap<String, SentSpan>);

impl Trace {
    fn new(spans: Vec<SentSpan>) -> Self {
        let by_id = spans.into_iter().map(|span| (span.span_id.clone(), span));
        Self(by_id.collect())
    }

    fn all(&self, name: &str) -> Vec<&SentSpan> {
        self.0.values().filter(|span| span.name == name).collect()
    }

    /// The only span with this name.
    fn one(&self, name: &str) -> Result<&SentSpan> {
        let all = self.all(name);
        ensure!(all.len() == 1, "{name}: {all:#?}");
        Ok(all[0])
    }

    /// The spans with this name that are directly below another span.
    fn below(&self, name: &str, outer: &SentSpan) -> Vec<&SentSpan> {
        let mut spans = self.all(name);
        spans.retain(|span| span.parent_id == outer.span_id);
        spans
    }

    /// Whether `inner` is below `outer`, or is the same span.
    fn is_within(&self, inner: &SentSpan, outer: &SentSpan) -> bool {
        let mut span = Some(inner);
        while let Some(found) = span {
            if found.span_id == outer.span_id {
                return true;
            }
            span = self.0.get(&found.parent_id);
        }
        false
    }
}

async fn one_trace_covers_an_upload_from_the_request_to_the_commit(mode: Mode) -> Result<()> {
    let collector = Collector::start().await?;
    let harness = traced(mode, &collector.url()).await?;
    let app = App::start(harness.with("CARGA_BATCH_ROWS", "100"), 1).await?;
    let id = Uuid::now_v7();
    send(&app, id, 250, "01").await?;
    app.expect_completed(id, 250).await?;
    let trace = whole_trace(&collector).await?;
    let (api, worker) = match mode {
        Mode::Embedded => ("carga", "carga"),
        Mode::Distributed => ("carga-api", "carga-worker"),
    };
    check_receiving(&trace, api)?;
    check_batches(&trace, worker)?;
    check_commits(&trace, worker)?;
    app.close().await
}

/// The spans of the API: the client is the parent of the request, and so on.
fn check_receiving(trace: &Trace, service: &str) -> Result<()> {
    let (request, upload) = (trace.one("request")?, trace.one("upload")?);
    ensure!(request.parent_id == CLIENT, "{request:#?}");
    ensure!(request.is_server && !upload.is_server, "{request:#?}");
    ensure!(upload.parent_id == request.span_id, "{upload:#?}");
    let rows = upload.attributes.get("rows").map(String::as_str);
    ensure!(rows == Some("250"), "{upload:#?}");
    for span in [request, upload] {
        ensure!(span.service == service, "{span:#?}");
    }
    for (name, count) in [
        ("store.create_if", 1),
        ("queue.publish", 3),
        ("store.seal", 1),
    ] {
        let spans = trace.all(name);
        ensure!(spans.len() == count, "{name}: {spans:#?}");
        let is_below = |span: &&SentSpan| span.parent_id == upload.span_id;
        ensure!(spans.iter().all(is_below), "{spans:#?}");
    }
    Ok(())
}

/// Each batch is below the upload, and its object is written inside of it.
fn check_batches(trace: &Trace, service: &str) -> Result<()> {
    let upload = trace.one("upload")?;
    let mut numbers: Vec<&str> = Vec::new();
    for batch in trace.all("batch") {
        ensure!(batch.parent_id == upload.span_id, "{batch:#?}");
        ensure!(batch.service == service, "{batch:#?}");
        ensure!(batch.start >= upload.start, "{batch:#?}");
        numbers.extend(batch.attributes.get("batch.seq").map(String::as_str));
        let puts = trace.below("archive.put", batch);
        ensure!(puts.len() == 1, "{puts:#?}");
        ensure!(puts[0].start >= batch.start, "{puts:#?}");
        let acks = trace.below("queue.ack", batch);
        ensure!(acks.len() == 1, "{acks:#?}");
    }
    numbers.sort_unstable();
    ensure!(numbers == ["1", "2", "3"], "{numbers:?}");
    Ok(())
}

/// Each transaction is inside of a batch, after the object of this batch was written. The batch is
/// acknowledged after it.
fn check_commits(trace: &Trace, service: &str) -> Result<()> {
    let (upload, batches) = (trace.one("upload")?, trace.all("batch"));
    let commits = trace.all("store.store");
    ensure!(!commits.is_empty(), "nothing was committed");
    for commit in commits {
        ensure!(commit.service == service, "{commit:#?}");
        let batch = batches.iter().find(|batch| trace.is_within(commit, batch));
        let batch = batch.context("a COMMIT outside of all batches")?;
        let puts = trace.below("archive.put", batch);
        ensure!(
            puts.iter().all(|put| put.end <= commit.start),
            "{commit:#?}"
        );
        let acks = trace.below("queue.ack", batch);
        ensure!(
            acks.iter().all(|ack| commit.end <= ack.start),
            "{commit:#?}"
        );
    }
    let ends = trace.all("store.complete");
    ensure!(
        ends.iter().all(|end| trace.is_within(end, upload)),
        "{ends:#?}"
    );
    Ok(())
}

async fn an_unsampled_request_and_health_checks_send_no_spans(mode: Mode) -> Result<()> {
    let collector = Collector::start().await?;
    let app = App::start(traced(mode, &collector.url()).await?, 1).await?;
    for _ in 0..5 {
        ensure!(app.get("/readyz").await?.0 == StatusCode::OK);
    }
    let unsampled = Uuid::now_v7();
    send(&app, unsampled, 10, "00").await?;
    // Polling begins traces of its own.
    app.expect_completed(unsampled, 10).await?;
    let polled = async || collector.spans().iter().any(|span| span.name == "request");
    eventually(TIMEOUT, "the spans of a poll", polled).await?;
    for span in collector.spans() {
        ensure!(span.trace_id != TRACE, "{span:#?}");
        let path = span.attributes.get("path");
        ensure!(path.is_none_or(|path| path != "/readyz"), "{span:#?}");
        ensure!(
            span.name != "batch" && span.name != "store.heartbeat",
            "{span:#?}"
        );
    }
    app.close().await
}

async fn a_collector_that_is_away_loses_no_row(mode: Mode) -> Result<()> {
    // Nothing listens on the port of a collector that has stopped.
    let url = Collector::start().await?.url();
    // Far more spans than the queue holds.
    let harness = traced(mode, &url)
        .await?
        .with("OTEL_BSP_MAX_QUEUE_SIZE", "10");
    let harness = harness.with("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10");
    let mut app = App::start(harness.with("CARGA_BATCH_ROWS", "10"), 1).await?;
    let id = Uuid::now_v7();
    send(&app, id, 1000, "01").await?;
    app.expect_completed(id, 1000).await?;
    app.storing_process()
        .wait_for_log("spans cannot be sent", TIMEOUT)
        .await?;
    let warnings = app.storing_process().log();
    ensure!(
        warnings.matches("spans cannot be sent").count() < 5,
        "{warnings}"
    );
    app.close().await
}

/// Stops the process that answers HTTP, and returns how long this took.
async fn stop_api(app: &mut App) -> Result<Duration> {
    let asked = Instant::now();
    app.api.terminate()?;
    ensure!(app.api.wait(TIMEOUT).await?.success());
    Ok(asked.elapsed())
}

async fn a_collector_that_never_answers_delays_a_stop_by_seconds(mode: Mode) -> Result<()> {
    /// Below the ten seconds after which the exporter gives up on a request.
    const LONGEST: Duration = Duration::from_secs(8);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let has_connected = Arc::new(AtomicBool::new(false));
    let connected = Arc::clone(&has_connected);
    let silent = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok(connection) = listener.accept().await {
            connections.push(connection);
            connected.store(true, Ordering::Relaxed);
        }
    });
    let mut app = App::start(traced(mode, &url).await?, 1).await?;
    let id = Uuid::now_v7();
    send(&app, id, 10, "01").await?;
    app.expect_completed(id, 10).await?;
    let is_sending = async || has_connected.load(Ordering::Relaxed);
    eventually(TIMEOUT, "a program to send spans", is_sending).await?;
    ensure!(app.get("/uploads").await?.0 == StatusCode::OK);
    let took = stop_api(&mut app).await?;
    ensure!(took < LONGEST, "{took:?}");
    let log = app.api.log();
    ensure!(log.contains("the last spans were not sent"), "{log}");
    silent.abort();
    app.close().await
}

async fn spans_in_memory_are_sent_at_the_stop(mode: Mode) -> Result<()> {
    let collector = Collector::start().await?;
    let harness = traced(mode, &collector.url()).await?;
    // Otherwise nothing is sent for an hour.
    let harness = harness.with("OTEL_BSP_SCHEDULE_DELAY", "3600000");
    let mut app = App::start(harness, 0).await?;
    ensure!(app.get("/uploads").await?.0 == StatusCode::OK);
    ensure!(collector.spans().is_empty(), "{:#?}", collector.spans());
    stop_api(&mut app).await?;
    let spans = collector.spans();
    let is_list = |span: &SentSpan| {
        let path = span.attributes.get("path");
        span.name == "request" && path.is_some_and(|path| path == "/uploads")
    };
    ensure!(spans.iter().any(is_list), "{spans:#?}");
    app.close().await
}
