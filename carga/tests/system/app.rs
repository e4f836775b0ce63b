//! A running Carga: its processes, and requests to its HTTP API.

use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_testkit::{Binary, Running, eventually};
use reqwest::{Body, Client, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::answers::check_accounts;
use crate::harness::Harness;

/// Long enough for a debug build on a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// Options that name delimiter and encoding, so that Carga need not detect them.
pub(crate) const KNOWN_DIALECT: &str = "delimiter=,&quote=%22&encoding=utf-8&skip=0&header=true";

/// A request that is being sent in the background.
pub(crate) type Sending = tokio::task::JoinHandle<reqwest::Result<Response>>;

pub(crate) struct App {
    /// The process that answers HTTP: `carga-api` or `carga serve`.
    pub(crate) api: Running,
    /// Empty in embedded mode, where `carga serve` stores the rows itself.
    pub(crate) workers: Vec<Running>,
    pub(crate) url: String,
    pub(crate) client: Client,
    /// The directory of the workers' heartbeat files.
    heartbeats: TempDir,
    /// The last field, so that it is dropped last: a directory cannot be removed while a
    /// process writes to it.
    pub(crate) harness: Harness,
}

impl App {
    /// Starts the programs with the settings of `harness`. In embedded mode one process does
    /// everything and `workers` is ignored.
    pub(crate) async fn start(harness: impl Into<Harness>, workers: usize) -> Result<Self> {
        let harness = harness.into();
        let (api, url) = start_api(&harness, &[]).await?;
        let mut app = Self {
            api,
            workers: Vec::new(),
            url,
            client: patient_client()?,
            heartbeats: TempDir::new()?,
            harness,
        };
        for _ in 0..workers {
            app.add_worker().await?;
        }
        Ok(app)
    }

    /// Starts the HTTP process again after it has ended.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.restart_with(&[]).await
    }

    /// Like `restart`, with further settings for this process only.
    pub(crate) async fn restart_with(&mut self, settings: &[(&str, &str)]) -> Result<()> {
        (self.api, self.url) = start_api(&self.harness, settings).await?;
        Ok(())
    }

    /// Starts one more worker; does nothing in embedded mode.
    pub(crate) async fn add_worker(&mut self) -> Result<()> {
        if !matches!(self.harness, Harness::Distributed(_)) {
            return Ok(());
        }
        let file = self.heartbeats.path().join(Uuid::new_v4().to_string());
        let mut env = self.harness.env();
        env.insert("CARGA_HEARTBEAT_FILE".into(), file.display().to_string());
        let mut worker = Running::spawn(Binary::Worker, &env)?;
        worker.wait_for_log("worker ready", TIMEOUT).await?;
        self.workers.push(worker);
        Ok(())
    }

    /// The process that stores rows: the first worker or `carga serve`.
    pub(crate) fn storing_process(&mut self) -> &mut Running {
        self.workers.first_mut().unwrap_or(&mut self.api)
    }

    /// Starts the process that stores rows again after it has ended.
    pub(crate) async fn restart_storing_process(&mut self) -> Result<()> {
        match self.harness {
            Harness::Embedded(_) => self.restart().await,
            Harness::Distributed(_) => {
                self.workers.remove(0);
                self.add_worker().await
            }
        }
    }

    /// Kills the processes and removes everything that they stored.
    pub(crate) async fn close(self) -> Result<()> {
        let Self {
            harness,
            api,
            workers,
            ..
        } = self;
        drop((api, workers));
        harness.close().await
    }

    /// Sends a raw body under an id chosen by the test, so that the upload can be polled meanwhile.
    pub(crate) async fn put(&self, id: Uuid, body: impl Into<Body>) -> Result<Response> {
        self.put_with(id, "", body).await
    }

    /// Like `put`, with options in the query.
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

    /// Sends what `write` writes with curl, and returns the status code and body of the answer.
    pub(crate) async fn curl(
        &self,
        id: Uuid,
        write: impl FnOnce(ChildStdin) -> std::io::Result<()> + Send + 'static,
    ) -> Result<(u16, Value)> {
        curl_upload(format!("{}/uploads/{id}", self.url), None, write).await
    }

    /// Sends in the background. The query names the dialect, so that the upload begins as soon
    /// as its header arrives.
    pub(crate) fn start_sending(&self, id: Uuid, body: impl Into<Body>) -> Sending {
        let request = self
            .client
            .put(format!("{}/uploads/{id}?{KNOWN_DIALECT}", self.url));
        let request = request.header("content-type", "text/csv").body(body);
        tokio::spawn(request.send())
    }

    /// Opens a raw connection, for bytes that no client library would send.
    pub(crate) async fn connect(&self) -> Result<TcpStream> {
        Ok(TcpStream::connect(self.url.trim_start_matches("http://")).await?)
    }

    /// Polls until the upload exists.
    pub(crate) async fn wait_until_begun(&self, id: Uuid) -> Result<()> {
        eventually(TIMEOUT, "the upload to exist", async || {
            self.upload(id).await.is_ok_and(|upload| upload.is_some())
        })
        .await
    }

    /// Polls until more than `batches` batches of the upload are stored.
    pub(crate) async fn wait_for_more_batches(&self, id: Uuid, batches: i64) -> Result<()> {
        eventually(TIMEOUT, "more batches to be stored", async || {
            let stored = self.harness.count_batches(id).await;
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

    /// The upload, or `None` if it does not exist.
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

    /// Polls until the upload has ended. The time limit applies to each change, not to their sum.
    pub(crate) async fn wait_until_ended(&self, id: Uuid) -> Result<Value> {
        let mut last = Value::Null;
        loop {
            let changed = async || {
                let upload = self.upload(id).await.ok().flatten()?;
                let is_news = ["status", "rows"]
                    .iter()
                    .any(|field| last[field] != upload[field]);
                is_news.then_some(upload)
            };
            let changed = eventually(TIMEOUT, "the upload to progress or end", changed).await;
            last = changed.with_context(|| format!("no progress since {last}"))?;
            if !last["finished_at"].is_null() {
                return Ok(last);
            }
        }
    }

    /// Polls until the upload has ended. Fails unless it completed and its `rows` rows are in
    /// the database, each once.
    pub(crate) async fn expect_completed(&self, id: Uuid, rows: i64) -> Result<Value> {
        let upload = self.wait_until_ended(id).await?;
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
        let (all, distinct) = self.harness.count_rows(id).await?;
        ensure!(
            (all, distinct) == (rows, rows),
            "expected {rows} distinct rows, found {all} rows, {distinct} of them distinct"
        );
        Ok(upload)
    }

    /// Polls until the upload has ended. Fails unless it failed with `code` and no row is left.
    pub(crate) async fn expect_failed(&self, id: Uuid, code: &str) -> Result<Value> {
        let upload = self.wait_until_ended(id).await?;
        ensure!(upload["status"] == "failed", "ended as {upload}");
        ensure!(
            upload["error"]["code"] == code,
            "failed with {}",
            upload["error"]
        );
        self.wait_until_cleaned(id).await?;
        Ok(upload)
    }

    /// Polls until the upload reports that its rows are removed, and checks the database.
    pub(crate) async fn wait_until_cleaned(&self, id: Uuid) -> Result<()> {
        let clean = async || {
            let upload = self.upload(id).await.ok().flatten();
            upload.is_some_and(|upload| upload["cleanup_pending"] == false)
        };
        eventually(TIMEOUT, "the rows to be removed", clean).await?;
        let (left, _) = self.harness.count_rows(id).await?;
        ensure!(left == 0, "{left} rows remain after cleanup");
        Ok(())
    }
}

async fn start_api(harness: &Harness, settings: &[(&str, &str)]) -> Result<(Running, String)> {
    let binary = match harness {
        Harness::Embedded(_) => Binary::Carga,
        Harness::Distributed(_) => Binary::Api,
    };
    let mut env = harness.env();
    env.extend(
        settings
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string())),
    );
    let mut api = Running::spawn(binary, &env)?;
    let url = api.base_url(TIMEOUT).await?;
    Ok((api, url))
}

/// A client that waits while the API reads nothing, such as during an outage of the broker. By
/// default, reqwest ends such a connection after 30 s.
fn patient_client() -> Result<Client> {
    Ok(Client::builder().tcp_user_timeout(None).build()?)
}

/// Sends what `write` writes with curl, and returns the status code and body of the answer. Unlike
/// many clients, curl reads an answer that arrives before it has sent everything. `authority` is
/// the file of the only authority that it trusts.
pub(crate) async fn curl_upload(
    url: String,
    authority: Option<PathBuf>,
    write: impl FnOnce(ChildStdin) -> std::io::Result<()> + Send + 'static,
) -> Result<(u16, Value)> {
    let sent = tokio::task::spawn_blocking(move || {
        let mut curl = Command::new("curl");
        if let Some(authority) = authority {
            curl.arg("--cacert").arg(authority);
        }
        let mut curl = curl
            .args(["--silent", "--show-error", "--upload-file", "-"])
            .args(["--header", "content-type: text/csv"])
            .args(["--write-out", "\n%{http_code}", &url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = curl.stdin.take().context("curl has no standard input")?;
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
