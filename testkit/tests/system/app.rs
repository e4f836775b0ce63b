//! Carga as a test sees it: one API, some workers, a database, a bucket and queues of their own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use carga_testkit::{Binary, Running, Scope, eventually};
use futures::{Stream, StreamExt, stream};
use reqwest::{Body, Client, Response, StatusCode};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

/// Long enough for a debug build on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// An upload on its way.
pub(crate) type Sending = tokio::task::JoinHandle<reqwest::Result<Response>>;

pub(crate) struct App {
    pub(crate) scope: Scope,
    pub(crate) api: Running,
    pub(crate) workers: Vec<Running>,
    pub(crate) url: String,
    pub(crate) client: Client,
    pub(crate) pool: PgPool,
}

impl App {
    /// The programs with the settings of the scope.
    pub(crate) async fn start(scope: Scope, workers: usize) -> Result<Self> {
        let mut api = Running::spawn(Binary::Api, &scope.env())?;
        let url = api.base_url(PATIENCE).await?;
        let mut app = Self {
            api,
            workers: Vec::new(),
            url,
            client: Client::new(),
            pool: scope.pool(),
            scope,
        };
        for _ in 0..workers {
            app.add_worker().await?;
        }
        Ok(app)
    }

    pub(crate) async fn add_worker(&mut self) -> Result<()> {
        let file = std::env::temp_dir().join(format!("carga-alive-{}", Uuid::new_v4().simple()));
        let mut env = self.scope.env();
        env.insert("CARGA_HEARTBEAT_FILE".into(), file.display().to_string());
        let mut worker = Running::spawn(Binary::Worker, &env)?;
        worker.wait_for_log("worker ready", PATIENCE).await?;
        self.workers.push(worker);
        Ok(())
    }

    /// Sends a raw body under an id of our own, so that it can be polled meanwhile.
    pub(crate) async fn put(&self, id: Uuid, body: impl Into<Body>) -> Result<Response> {
        let request = self.client.put(format!("{}/uploads/{id}", self.url));
        Ok(request
            .header("content-type", "text/csv")
            .body(body)
            .send()
            .await?)
    }

    /// The same on its way, while the test does something else.
    pub(crate) fn sending(&self, id: Uuid, body: impl Into<Body>) -> Sending {
        let request = self.client.put(format!("{}/uploads/{id}", self.url));
        let request = request.header("content-type", "text/csv").body(body);
        tokio::spawn(request.send())
    }

    /// Polls until the upload is there.
    pub(crate) async fn begun(&self, id: Uuid) -> Result<()> {
        eventually(PATIENCE, "the upload to be there", async || {
            self.upload(id).await.is_ok_and(|upload| upload.is_some())
        })
        .await
    }

    /// Polls until more than so many batches of the upload are stored.
    pub(crate) async fn stored_more_than(&self, id: Uuid, batches: i64) -> Result<()> {
        eventually(PATIENCE, "more batches to be stored", async || {
            self.batches_of(id)
                .await
                .is_ok_and(|stored| stored > batches)
        })
        .await
    }

    pub(crate) async fn get(&self, path: &str) -> Result<(StatusCode, Value)> {
        let answer = self
            .client
            .get(format!("{}{path}", self.url))
            .send()
            .await?;
        let status = answer.status();
        Ok((status, answer.json().await?))
    }

    /// The upload, or none while there is none.
    pub(crate) async fn upload(&self, id: Uuid) -> Result<Option<Value>> {
        let (status, body) = self.get(&format!("/uploads/{id}")).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        ensure!(
            status == StatusCode::OK,
            "GET /uploads/{id} answered {status}: {body}"
        );
        check_accounts(&body)?;
        Ok(Some(body))
    }

    /// Polls until the upload has ended.
    pub(crate) async fn ended(&self, id: Uuid) -> Result<Value> {
        let poll = async || {
            let upload = self.upload(id).await.ok().flatten()?;
            (!upload["finished_at"].is_null()).then_some(upload)
        };
        eventually(PATIENCE, "the upload to end", poll).await
    }

    /// Ended as completed with exactly these rows, in Postgres too, each once.
    pub(crate) async fn completed(&self, id: Uuid, rows: i64) -> Result<Value> {
        let upload = self.ended(id).await?;
        ensure!(upload["status"] == "completed", "ended as {upload}");
        ensure!(
            upload["rows"]["inserted"] == rows,
            "{} rows instead of {rows}",
            upload["rows"]
        );
        ensure!(
            upload["percent"] == 100.0 && upload["rows"]["pending"] == 0,
            "{upload}"
        );
        let (all, distinct): (i64, i64) = sqlx::query_as(
            "SELECT count(*), count(DISTINCT row_number) FROM rows WHERE upload_id = $1",
        )
        .bind(id)
        .fetch_one(&self.pool)
        .await?;
        ensure!(
            (all, distinct) == (rows, rows),
            "{all} rows are stored, {distinct} different ones"
        );
        Ok(upload)
    }

    /// Failed for this reason, and no row is left.
    pub(crate) async fn failed(&self, id: Uuid, code: &str) -> Result<Value> {
        let upload = self.ended(id).await?;
        ensure!(upload["status"] == "failed", "ended as {upload}");
        ensure!(
            upload["error"]["code"] == code,
            "failed with {}",
            upload["error"]
        );
        self.cleaned(id).await?;
        Ok(upload)
    }

    /// Polls until no row of the upload is left, which the upload says itself.
    pub(crate) async fn cleaned(&self, id: Uuid) -> Result<()> {
        let clean = async || {
            let upload = self.upload(id).await.ok().flatten();
            upload.is_some_and(|upload| upload["cleanup_pending"] == false)
        };
        eventually(PATIENCE, "the rows to be removed", clean).await?;
        let left = self.rows_of(id).await?;
        ensure!(left == 0, "{left} rows are left of a failed upload");
        Ok(())
    }

    pub(crate) async fn rows_of(&self, id: Uuid) -> Result<i64> {
        self.count("SELECT count(*) FROM rows WHERE upload_id = $1", id)
            .await
    }

    pub(crate) async fn batches_of(&self, id: Uuid) -> Result<i64> {
        self.count("SELECT count(*) FROM batches WHERE upload_id = $1", id)
            .await
    }

    async fn count(&self, sql: &'static str, id: Uuid) -> Result<i64> {
        let (count,) = sqlx::query_as(sql).bind(id).fetch_one(&self.pool).await?;
        Ok(count)
    }
}

/// read = inserted + updated + duplicate + rejected + dead + discarded + pending, in every answer.
pub(crate) fn check_accounts(upload: &Value) -> Result<()> {
    let figure = |name: &str| {
        let figure = upload["rows"][name].as_u64();
        figure.with_context(|| format!("no `{name}` in {upload}"))
    };
    let parts = [
        "inserted",
        "updated",
        "duplicate",
        "rejected",
        "dead",
        "discarded",
        "pending",
    ];
    let sum: u64 = parts.into_iter().map(figure).sum::<Result<_>>()?;
    ensure!(
        figure("read")? == sum,
        "the accounts do not close: {upload}"
    );
    Ok(())
}

/// A file with `rows` rows of four columns, one of them in quotes with everything that quotes are for.
pub(crate) fn csv(rows: usize) -> String {
    let mut file = String::from("id,name,note,empty\n");
    for row in 1..=rows {
        file.push_str(&format!(
            "{row:07},näme {row},\"a \"\"quoted\"\",\nnote\",\n"
        ));
    }
    file
}

/// A body that comes at about this rate, so that there is time to look.
pub(crate) fn paced(bytes: impl Into<Bytes>, bytes_per_second: usize) -> Body {
    Body::wrap_stream(paced_pieces(bytes.into(), bytes_per_second))
}

pub(crate) fn paced_pieces(
    bytes: Bytes,
    bytes_per_second: usize,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    const TICK: Duration = Duration::from_millis(20);
    let step = (bytes_per_second / 50).max(1);
    let ticks = tokio::time::interval(TICK);
    stream::unfold((bytes, ticks), move |(mut bytes, mut ticks)| async move {
        if bytes.is_empty() {
            return None;
        }
        ticks.tick().await;
        let piece = bytes.split_to(step.min(bytes.len()));
        Some((Ok(piece), (bytes, ticks)))
    })
}

/// The real file: 336,776 rows.
pub(crate) async fn flights() -> Result<Bytes> {
    let path = carga_testkit::fixtures::flights()?;
    Ok(tokio::fs::read(path)
        .await
        .context("reading the flights")?
        .into())
}

pub(crate) const FLIGHTS_ROWS: i64 = 336_776;

/// Everything that a stream still has, for a body made of parts.
pub(crate) fn then(
    first: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    second: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
) -> Body {
    Body::wrap_stream(first.chain(second))
}
