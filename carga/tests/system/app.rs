//! Carga as a test sees it: something that answers HTTP, something that stores, and a place of their own.

use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_testkit::{Binary, Running, eventually};
use reqwest::{Body, Client, Response, StatusCode};
use serde_json::Value;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::answers::check_accounts;
use crate::place::Place;

/// Long enough for a debug build on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What leaves nothing to be detected.
pub(crate) const TOLD: &str = "delimiter=,&encoding=utf-8";

/// An upload on its way.
pub(crate) type Sending = tokio::task::JoinHandle<reqwest::Result<Response>>;

pub(crate) struct App {
    /// What answers: `carga-api`, or `carga serve`.
    pub(crate) api: Running,
    /// None when `carga serve` does their work.
    pub(crate) workers: Vec<Running>,
    pub(crate) url: String,
    pub(crate) client: Client,
    /// The last to be dropped: a directory cannot be removed while somebody writes in it.
    pub(crate) place: Place,
}

impl App {
    /// The programs with the settings of the place. One process does everything where it is embedded.
    pub(crate) async fn start(place: impl Into<Place>, workers: usize) -> Result<Self> {
        let place = place.into();
        let (api, url) = start_api(&place, &[]).await?;
        let mut app = Self {
            api,
            workers: Vec::new(),
            url,
            client: Client::new(),
            place,
        };
        for _ in 0..workers {
            app.add_worker().await?;
        }
        Ok(app)
    }

    /// Starts what answers again, after it has ended.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.restart_with(&[]).await
    }

    /// The same with some more settings, for this life only.
    pub(crate) async fn restart_with(&mut self, settings: &[(&str, &str)]) -> Result<()> {
        (self.api, self.url) = start_api(&self.place, settings).await?;
        Ok(())
    }

    /// One more worker; nothing where one process does everything.
    pub(crate) async fn add_worker(&mut self) -> Result<()> {
        if !matches!(self.place, Place::Distributed(_)) {
            return Ok(());
        }
        let file = std::env::temp_dir().join(format!("carga-alive-{}", Uuid::new_v4().simple()));
        let mut env = self.place.env();
        env.insert("CARGA_HEARTBEAT_FILE".into(), file.display().to_string());
        let mut worker = Running::spawn(Binary::Worker, &env)?;
        worker.wait_for_log("worker ready", PATIENCE).await?;
        self.workers.push(worker);
        Ok(())
    }

    /// What stores: a worker, or `carga serve`.
    pub(crate) fn storer(&mut self) -> &mut Running {
        self.workers.first_mut().unwrap_or(&mut self.api)
    }

    /// Starts what stores again, after it has ended.
    pub(crate) async fn restart_storer(&mut self) -> Result<()> {
        match self.place {
            Place::Embedded(_) => self.restart().await,
            Place::Distributed(_) => {
                self.workers.remove(0);
                self.add_worker().await
            }
        }
    }

    /// Ends everything and clears it away.
    pub(crate) async fn close(self) -> Result<()> {
        let Self {
            place,
            api,
            workers,
            ..
        } = self;
        drop((api, workers));
        place.close().await
    }

    /// Sends a raw body under an id of our own, so that it can be polled meanwhile.
    pub(crate) async fn put(&self, id: Uuid, body: impl Into<Body>) -> Result<Response> {
        self.put_with(id, "", body).await
    }

    /// The same with options.
    pub(crate) async fn put_with(
        &self,
        id: Uuid,
        query: &str,
        body: impl Into<Body>,
    ) -> Result<Response> {
        let request = self
            .client
            .put(format!("{}/uploads/{id}?{query}", self.url));
        Ok(request
            .header("content-type", "text/csv")
            .body(body)
            .send()
            .await?)
    }

    /// Sends what `write` writes by curl, which looks for an answer while it still has megabytes to send; not every client does.
    /// The answer's code and body.
    pub(crate) async fn curl(
        &self,
        id: Uuid,
        write: impl FnOnce(ChildStdin) -> std::io::Result<()> + Send + 'static,
    ) -> Result<(u16, Value)> {
        let url = format!("{}/uploads/{id}", self.url);
        let sent = tokio::task::spawn_blocking(move || {
            let mut curl = Command::new("curl")
                .args(["--silent", "--show-error", "--upload-file", "-"])
                .args(["--header", "content-type: text/csv"])
                .args(["--write-out", "\n%{http_code}", &url])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let input = curl.stdin.take().context("no standard input")?;
            // Curl closes the pipe when it has its answer.
            let writing = std::thread::spawn(move || write(input));
            let sent = curl.wait_with_output()?;
            let _ = writing.join();
            anyhow::Ok(sent)
        });
        let answer = String::from_utf8(sent.await??.stdout)?;
        let (body, code) = answer.rsplit_once('\n').context("no answer")?;
        Ok((code.parse()?, serde_json::from_str(body)?))
    }

    /// Sends on its way, while the test does something else. How to read it is told, so that the upload begins with its
    /// header.
    pub(crate) fn sending(&self, id: Uuid, body: impl Into<Body>) -> Sending {
        let request = self.client.put(format!("{}/uploads/{id}?{TOLD}", self.url));
        let request = request.header("content-type", "text/csv").body(body);
        tokio::spawn(request.send())
    }

    /// A connection for bytes that no client library would send.
    pub(crate) async fn connect(&self) -> Result<TcpStream> {
        Ok(TcpStream::connect(self.url.trim_start_matches("http://")).await?)
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
            let stored = self.place.batches_of(id).await;
            stored.is_ok_and(|stored| stored > batches)
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

    /// Polls until the upload has ended. It may take as long as it likes, but something has to go on.
    pub(crate) async fn ended(&self, id: Uuid) -> Result<Value> {
        let mut last = Value::Null;
        loop {
            let changed = async || {
                let upload = self.upload(id).await.ok().flatten()?;
                let is_news = ["status", "rows"]
                    .iter()
                    .any(|field| last[field] != upload[field]);
                is_news.then_some(upload)
            };
            let changed = eventually(PATIENCE, "the upload to go on or to end", changed).await;
            last = changed.with_context(|| format!("it stands still at {last}"))?;
            if !last["finished_at"].is_null() {
                return Ok(last);
            }
        }
    }

    /// Ended as completed with exactly these rows, in the database too, each once.
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
        let (all, distinct) = self.place.rows_of(id).await?;
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
        let (left, _) = self.place.rows_of(id).await?;
        ensure!(left == 0, "{left} rows are left of a failed upload");
        Ok(())
    }
}

async fn start_api(place: &Place, settings: &[(&str, &str)]) -> Result<(Running, String)> {
    let binary = match place {
        Place::Embedded(_) => Binary::Carga,
        Place::Distributed(_) => Binary::Api,
    };
    let mut env = place.env();
    env.extend(
        settings
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string())),
    );
    let mut api = Running::spawn(binary, &env)?;
    let url = api.base_url(PATIENCE).await?;
    Ok((api, url))
}
