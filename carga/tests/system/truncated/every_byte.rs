//! Wherever a body is cut, its upload fails and leaves no rows.
//!
//! The whole set of cuts runs on request only:
//! `make test ARGS='--test system -- --ignored at_every_byte'`.

use std::fmt;

use anyhow::{Context, Result, ensure};
use carga_testkit::eventually;
use futures::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use super::bodies::{FILE_BYTES, FORM_TYPE, FramedBody, HEAD, ROWS, TAIL, file};
use crate::answers::problem;
use crate::app::{App, KNOWN_DIALECT, TIMEOUT};
use crate::files::{csv, read};
use crate::harness::{Harness, Mode, close_after};
use crate::metrics::scrape;

in_both_modes! {
    a_form_is_complete_from_the_last_hyphen_of_its_closing_boundary_on,
    a_body_cut_at_some_of_its_bytes_fails_its_upload_and_leaves_nothing,
    #[ignore = "takes an hour"]
    a_body_cut_at_every_byte_fails_its_upload_and_leaves_nothing,
}

/// How many connections are open at the same time.
const AT_ONCE: usize = 16;

/// Before a cut that leaves at most this much of the file unsent, all full batches are stored.
const LATE_BYTES: usize = 16;

const BATCH_ROWS: usize = 100;
const FULL_BATCHES: usize = ROWS / BATCH_ROWS;

/// What must be gone once all uploads have failed. Failed uploads keep their records.
const LEFT: &str = "SELECT 'rows', count(*) FROM rows
    UNION ALL SELECT 'rejected_rows', count(*) FROM rejected_rows
    UNION ALL SELECT 'batches', count(*) FROM batches
    UNION ALL SELECT 'parked_batches', count(*) FROM parked_batches
    UNION ALL SELECT 'upload_leases', count(*) FROM upload_leases
    UNION ALL SELECT 'uploads that did not fail', count(*) FROM uploads WHERE status <> 'failed'
    UNION ALL SELECT 'uploads to clean', count(*) FROM uploads WHERE cleanup_pending";

/// The metrics of an API that is receiving nothing.
const IDLE: [&str; 9] = [
    "carga_intake_uploads_receiving",
    "carga_intake_uploads_waiting",
    "carga_intake_publish_budget_used_bytes",
    "carga_queue_messages{state=\"ready\"}",
    "carga_queue_messages{state=\"retrying\"}",
    "carga_queue_messages{state=\"dead\"}",
    "carga_uploads_unfinished{status=\"receiving\"}",
    "carga_uploads_unfinished{status=\"processing\"}",
    "carga_dead_letters",
];

/// These bodies end as HTTP requires, so only the form can show what is missing. The last line
/// break of a form is optional.
async fn a_form_is_complete_from_the_last_hyphen_of_its_closing_boundary_on(
    mode: Mode,
) -> Result<()> {
    const COMPLETE: usize = "\r\n--B--".len();
    const FEW_ROWS: usize = 100;
    let app = App::start(mode.harness().await?, 1).await?;
    let file = csv(FEW_ROWS);
    for end in 0..=TAIL.len() {
        for chunked in [false, true] {
            let form = format!("{HEAD}{file}{}", &TAIL[..end]);
            let body = match chunked {
                true => reqwest::Body::wrap_stream(stream::iter([std::io::Result::Ok(form)])),
                false => reqwest::Body::from(form),
            };
            let id = Uuid::now_v7();
            let url = format!("{}/uploads/{id}?{KNOWN_DIALECT}", app.url);
            let put = app.client.put(url).header("content-type", FORM_TYPE);
            let answer = put.body(body).send().await?;
            let context = || format!("{end} bytes after the file, chunked: {chunked}");
            if end >= COMPLETE {
                ensure!(answer.status() == 202, "{}: {answer:?}", context());
                let completed = app.expect_completed(id, FEW_ROWS as i64).await;
                completed.with_context(context)?;
            } else {
                let refused = problem(answer, 422, "incomplete_body").await;
                refused.with_context(context)?;
                let failed = expect_failed(&app, id).await;
                failed.with_context(context)?;
            }
        }
    }
    app.close().await
}

/// A sample, so that the normal run is short. Raw bodies are cut at fewer bytes of their file.
async fn a_body_cut_at_some_of_its_bytes_fails_its_upload_and_leaves_nothing(
    mode: Mode,
) -> Result<()> {
    check_cuts(mode, 509, 2 * 509).await
}

async fn a_body_cut_at_every_byte_fails_its_upload_and_leaves_nothing(mode: Mode) -> Result<()> {
    check_cuts(mode, 1, 1).await
}

/// Cuts forms and raw bodies before every `step`th byte of their files, and before each byte of
/// their framing.
async fn check_cuts(mode: Mode, form_step: usize, raw_step: usize) -> Result<()> {
    let harness = mode.harness().await?;
    let harness = harness
        .with("CARGA_BATCH_ROWS", &BATCH_ROWS.to_string())
        // So that the test can wait until the live counters expire.
        .with("CARGA_PROGRESS_TTL_SECS", "10")
        // The archives of a hundred thousand failed uploads would fill the disk.
        .with("CARGA_ARCHIVE_GRACE_SECS", "60")
        .with("CARGA_SWEEP_MS", "1000");
    let app = App::start(harness, 2).await?;
    let bodies = FramedBody::all()?;
    cut_all(&app, &bodies, form_step, raw_step).await?;
    let (alive, _) = counters(&app).await?;
    ensure!(alive > 0, "the last uploads had no live counters");
    expect_nothing_left(&app).await?;
    let expired = async || counters(&app).await.is_ok_and(|(alive, _)| alive == 0);
    eventually(TIMEOUT, "the live counters to expire", expired).await?;

    for body in &bodies {
        let whole = expect_completed(&app, body).await;
        whole.with_context(|| format!("the whole {}", body.name))?;
    }
    // The counters of a new upload replace the expired ones.
    let removed = async || {
        let kept = counters(&app).await;
        kept.is_ok_and(|(_, kept)| kept <= bodies.len())
    };
    eventually(TIMEOUT, "expired live counters to be removed", removed).await?;
    app.close().await
}

async fn cut_all(
    app: &App,
    bodies: &[FramedBody],
    form_step: usize,
    raw_step: usize,
) -> Result<()> {
    let cuts = bodies.iter().flat_map(|body| {
        let step = if body.is_form { form_step } else { raw_step };
        let after = move |sent| [End::Fin, End::Rst].map(|end| Cut { body, sent, end });
        body.cuts(step).into_iter().flat_map(after)
    });
    let checks = cuts.map(|cut| cut.check(app));
    let mut checked = stream::iter(checks).buffer_unordered(AT_ONCE);
    while let Some(outcome) = checked.next().await {
        outcome?;
    }
    Ok(())
}

/// How a client ends its connection.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It sends no more, and reads on.
    Fin,
    /// It resets the connection, as when its process is killed.
    Rst,
}

/// A body of which only the first bytes are sent.
#[derive(Clone, Copy)]
struct Cut<'a> {
    body: &'a FramedBody,
    /// The number of bytes that are sent.
    sent: usize,
    end: End,
}

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { body, sent, end } = self;
        let (name, all) = (body.name, body.len());
        write!(f, "a {name}, cut after {sent} of {all} bytes by {end:?}")
    }
}

impl Cut<'_> {
    /// Sends the bytes, and waits until the upload has failed.
    async fn check(self, app: &App) -> Result<()> {
        let id = Uuid::now_v7();
        let checked = async {
            let is_stored = self.make(app, id).await?;
            let has_failed = expect_failed(app, id).await?;
            ensure!(has_failed || !is_stored, "the upload has no record");
            Ok(())
        };
        checked.await.with_context(|| self.to_string())
    }

    /// Returns whether all full batches were stored before the cut.
    async fn make(&self, app: &App, id: Uuid) -> Result<bool> {
        let stream = self.body.send(app, id, self.sent).await?;
        let is_late = self.body.file_bytes(self.sent) + LATE_BYTES >= FILE_BYTES;
        if is_late {
            app.wait_for_more_batches(id, FULL_BATCHES as i64 - 1)
                .await?;
        }
        match self.end {
            End::Fin => expect_no_success(stream).await?,
            // Dropping the stream resets the connection.
            End::Rst => stream.set_zero_linger()?,
        }
        Ok(is_late)
    }
}

/// Waits until an upload has failed. Returns `false` if it does not exist: a body that is cut
/// before the reader has seen a record makes no upload.
async fn expect_failed(app: &App, id: Uuid) -> Result<bool> {
    let ended = async || match app.upload(id).await {
        Ok(Some(upload)) if upload["status"] == "receiving" => None,
        Ok(ended) => Some(ended),
        // The server may close an idle connection while the client sends on it.
        Err(_) => None,
    };
    let Some(upload) = eventually(TIMEOUT, "the upload to end", ended).await? else {
        return Ok(false);
    };
    ensure!(
        upload["status"] == "failed" && upload["error"]["code"] == "incomplete_body",
        "{upload}"
    );
    Ok(true)
}

/// Ends the request. Its answer may be lost, but it must not be a success.
async fn expect_no_success(mut stream: TcpStream) -> Result<()> {
    stream.shutdown().await?;
    let mut answer = String::new();
    let read = timeout(TIMEOUT, stream.read_to_string(&mut answer)).await;
    ensure!(read.is_ok(), "the connection stays open");
    ensure!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 422"),
        "{answer}"
    );
    Ok(())
}

/// Sends the whole body.
async fn expect_completed(app: &App, body: &FramedBody) -> Result<()> {
    let id = Uuid::now_v7();
    let mut stream = body.send(app, id, body.len()).await?;
    let mut answer = String::new();
    timeout(TIMEOUT, stream.read_to_string(&mut answer)).await??;
    ensure!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    app.expect_completed(id, ROWS as i64).await?;
    let (_, rows) = read(file()?.as_bytes())?;
    app.harness.check_rows(id, &rows).await
}

/// Waits until the uploads have left nothing behind.
async fn expect_nothing_left(app: &App) -> Result<()> {
    let gone = async || left(app).await.is_ok_and(|left| left.is_empty());
    let gone = eventually(TIMEOUT, "everything to be removed", gone).await;
    ensure!(gone.is_ok(), "{:?}", left(app).await?);
    let idle = async || busy(app).await.is_ok_and(|busy| busy.is_empty());
    let idle = eventually(TIMEOUT, "the API to be idle", idle).await;
    ensure!(idle.is_ok(), "{:?}", busy(app).await?);
    // What waited in the queue is settled now, and it has stored nothing either.
    let left = left(app).await?;
    ensure!(left.is_empty(), "{left:?}");
    // A listing fails if the sweeper deletes an archive meanwhile.
    let list = async || app.harness.objects().await.ok();
    let objects = eventually(TIMEOUT, "a list of the archive", list).await?;
    let manifest = objects.iter().find(|key| key.ends_with("manifest.json"));
    ensure!(manifest.is_none(), "{manifest:?}");
    Ok(())
}

/// The counts of [`LEFT`] that are not 0.
async fn left(app: &App) -> Result<Vec<(String, i64)>> {
    let mut left: Vec<(String, i64)> = match &app.harness {
        Harness::Embedded(directory) => {
            let mut carga = directory.open("carga.db").await?;
            let counted = sqlx::query_as(LEFT).fetch_all(&mut carga).await;
            close_after(counted, carga).await?
        }
        Harness::Distributed(scope) => {
            let sql = format!("{LEFT} UNION ALL SELECT 'landing', count(*) FROM landing");
            sqlx::query_as(&sql).fetch_all(&scope.pool()).await?
        }
    };
    left.retain(|(_, count)| *count != 0);
    Ok(left)
}

/// The metrics of [`IDLE`] that are not 0. `NaN` is not 0 either.
async fn busy(app: &App) -> Result<Vec<(&'static str, Option<f64>)>> {
    let found = scrape(app, &format!("{}/metrics", app.url)).await?;
    let values = IDLE.map(|series| (series, found.get(series).copied()));
    let busy = values.into_iter().filter(|(_, value)| *value != Some(0.0));
    Ok(busy.collect())
}

/// The number of uploads whose live counters have not expired, and of those that are kept.
async fn counters(app: &App) -> Result<(usize, usize)> {
    match &app.harness {
        Harness::Embedded(directory) => {
            const SQL: &str = "SELECT count(*) FILTER (WHERE expires_at > unixepoch('subsec') * 1000), count(*) FROM counters";
            let mut progress = directory.open("progress.db").await?;
            let counted = sqlx::query_as(SQL).fetch_one(&mut progress).await;
            let (alive, kept): (i64, i64) = close_after(counted, progress).await?;
            Ok((usize::try_from(alive)?, usize::try_from(kept)?))
        }
        Harness::Distributed(scope) => {
            let address = scope.redis_url().trim_start_matches("redis://");
            let mut redis = TcpStream::connect(address).await?;
            let keys = format!("KEYS {}*:counters\r\nQUIT\r\n", scope.name());
            redis.write_all(keys.as_bytes()).await?;
            let mut answer = String::new();
            redis.read_to_string(&mut answer).await?;
            ensure!(answer.starts_with('*'), "{answer}");
            let keys = answer.lines().filter(|line| line.ends_with(":counters"));
            let kept = keys.count();
            Ok((kept, kept))
        }
    }
}
