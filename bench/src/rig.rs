//! The servers of the benchmark, and Carga's programs on them.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carga_testkit::{Binary, Objects, ProcessId, Running, S3Kind, Services, State, command};
use serde_json::Value;
use sqlx::PgPool;
use tokio::process::Command;
use tokio::time::sleep;

use crate::data::{DataFile, directory};

const START: Duration = Duration::from_secs(60);
/// The pause between two polls of one upload, which bounds how late its completion is noticed. Each
/// of several concurrent uploads is polled less often.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// Figures by the name of the process.
pub(crate) type ByProcess<T> = BTreeMap<String, T>;

/// A private set of servers.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) state: State,
    pub(crate) pool: PgPool,
}

impl Rig {
    pub(crate) async fn start() -> Result<Self> {
        let dir = directory()?.join("services");
        Services::down(&dir).await?;
        let state = Services::up(&dir, S3Kind::S3sFs).await?;
        let migrated = command(Binary::Carga)?
            .arg("migrate")
            .envs(state.env())
            .stdout(Stdio::null())
            .status()?;
        ensure!(migrated.success(), "carga migrate failed ({migrated})");
        let pool = PgPool::connect(&state.database_url("carga")).await?;
        remove_directory(&data_directories()?)?;
        Ok(Self { state, pool })
    }

    pub(crate) async fn stop(self) -> Result<()> {
        self.pool.close().await;
        Services::down(&directory()?.join("services")).await
    }

    pub(crate) fn database_url(&self) -> String {
        self.state.database_url("carga")
    }

    /// The address of the S3 server.
    pub(crate) fn s3_address(&self) -> Result<SocketAddr> {
        let port = self
            .state
            .s3
            .endpoint
            .rsplit(':')
            .next()
            .unwrap_or_default();
        Ok((Ipv4Addr::LOCALHOST, port.parse()?).into())
    }

    pub(crate) async fn execute(&self, statements: &str) -> Result<()> {
        sqlx::raw_sql(statements).execute(&self.pool).await?;
        Ok(())
    }

    pub(crate) async fn count(&self, table: &str) -> Result<u64> {
        let count = format!("SELECT count(*) FROM {table}");
        let (rows,): (i64,) = sqlx::query_as(&count).fetch_one(&self.pool).await?;
        Ok(rows.cast_unsigned())
    }

    /// Resets the rig to the initial state of every run: empty tables and no pending writes.
    ///
    /// The files of earlier runs stay until [`Rig::clean`], because ext4 allocates inodes slowly
    /// after many were deleted.
    pub(crate) async fn clear(&self) -> Result<()> {
        self.execute(
            "TRUNCATE uploads, batches, landing, rejected_rows, parked_batches, previous_rows
             CASCADE",
        )
        .await?;
        self.settle().await
    }

    /// Removes the files of earlier runs from the archive and the data directories.
    pub(crate) async fn clean(&self) -> Result<()> {
        if let Objects::Directory(data) = &self.state.s3.objects {
            remove_directory(&data.join("carga/uploads"))?;
        }
        remove_directory(&data_directories()?)?;
        self.clear().await
    }

    /// Writes everything that is pending to disk, so that it does not slow down the next run.
    pub(crate) async fn settle(&self) -> Result<()> {
        self.execute("CHECKPOINT").await?;
        tokio::task::spawn_blocking(rustix::fs::sync).await?;
        Ok(())
    }

    /// Starts Carga on these servers, with additional settings.
    pub(crate) async fn carga(&self, workers: usize, settings: &[(&str, &str)]) -> Result<Carga> {
        let mut env = self.state.env();
        let own = [("CARGA_LISTEN", "127.0.0.1:0")];
        for (key, value) in own.iter().chain(settings) {
            env.insert((*key).to_owned(), (*value).to_owned());
        }
        let mut carga = Carga::start(Binary::Api, &env).await?;
        let settings = settings.iter();
        let settings = settings.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        carga.settings = settings.collect();
        for _ in 0..workers {
            let mut worker = Running::spawn(Binary::Worker, &env)?.quiet();
            worker.wait_for_log("worker ready", START).await?;
            carga.workers.push(worker);
        }
        Ok(carga)
    }

    /// Starts `carga serve` on a data directory.
    pub(crate) async fn embedded(data: &Path) -> Result<Carga> {
        let env = [
            ("CARGA_LISTEN", "127.0.0.1:0".to_owned()),
            ("CARGA_DATA_DIR", data.display().to_string()),
        ];
        let env = env.map(|(key, value)| (key.to_owned(), value));
        Carga::start(Binary::Carga, &env.into()).await
    }

    /// The processor time of each server so far.
    pub(crate) fn server_cpu(&self) -> ByProcess<Duration> {
        let time = |processes: &Vec<ProcessId>| -> Duration {
            let usages = processes.iter().map(|process| process.tree_cpu());
            usages.sum()
        };
        let servers = self.state.processes.iter();
        servers
            .map(|(name, processes)| (name.clone(), time(processes)))
            .collect()
    }
}

/// An API and its workers, or `carga serve`, which has no separate workers.
#[derive(Debug)]
pub(crate) struct Carga {
    pub(crate) api: Running,
    pub(crate) workers: Vec<Running>,
    pub(crate) url: String,
    pub(crate) client: reqwest::Client,
    /// The settings that were added for this measurement. `carga import` gets them, too.
    pub(crate) settings: BTreeMap<String, String>,
}

/// The durations of an upload, measured from its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Imported {
    /// Until the answer 202.
    pub(crate) accepted: Duration,
    /// Until the upload has ended.
    pub(crate) completed: Duration,
    pub(crate) counts: Counts,
}

/// How the rows of an upload ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Counts {
    pub(crate) inserted: u64,
    pub(crate) updated: u64,
    pub(crate) rejected: u64,
}

impl Carga {
    /// Starts a program that serves HTTP, without workers.
    async fn start(program: Binary, env: &BTreeMap<String, String>) -> Result<Self> {
        let mut api = Running::spawn(program, env)?.quiet();
        let url = api.base_url(START).await?;
        // Below the API's idle timeout, so that the client does not reuse a connection that the API
        // is about to close.
        let client = reqwest::Client::builder()
            .pool_idle_timeout(Duration::from_secs(5))
            .build()?;
        Ok(Self {
            api,
            workers: Vec::new(),
            url,
            client,
            settings: BTreeMap::new(),
        })
    }

    /// Sends a file with curl and waits until it is stored. It is one of `concurrent` uploads.
    pub(crate) async fn import(&self, file: &DataFile, concurrent: u32) -> Result<Imported> {
        let imported = self.import_with("", file, concurrent).await?;
        let Counts { rejected, .. } = imported.counts;
        ensure!(rejected == 0, "{rejected} rows were rejected");
        Ok(imported)
    }

    /// Like `import`, with options as a query that begins with `?`. Rows may be rejected.
    pub(crate) async fn import_with(
        &self,
        query: &str,
        file: &DataFile,
        concurrent: u32,
    ) -> Result<Imported> {
        let start = Instant::now();
        let answer = Command::new("curl")
            .args(["-sS", "--fail-with-body", "-F"])
            .arg(format!("file=@{}", file.path.display()))
            .arg(format!("{}/uploads{query}", self.url))
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot run curl")?;
        let accepted = start.elapsed();
        let upload: Value = serde_json::from_slice(&answer.stdout)?;
        ensure!(answer.status.success(), "the upload was refused: {upload}");
        let id = upload["id"].as_str().context("the upload has no id")?;
        let ended = self.wait_until_ended(id, file.rows, POLL * concurrent);
        let counts = ended.await?;
        Ok(Imported {
            accepted,
            completed: start.elapsed(),
            counts,
        })
    }

    pub(crate) async fn wait_until_completed(
        &self,
        id: &str,
        rows: u64,
        poll: Duration,
    ) -> Result<()> {
        let Counts { rejected, .. } = self.wait_until_ended(id, rows, poll).await?;
        ensure!(rejected == 0, "{rejected} rows were rejected");
        Ok(())
    }

    /// Waits until each of these rows is stored or rejected.
    async fn wait_until_ended(&self, id: &str, rows: u64, poll: Duration) -> Result<Counts> {
        loop {
            let answer = self
                .client
                .get(format!("{}/uploads/{id}", self.url))
                .send()
                .await?;
            let upload: Value = serde_json::from_slice(&answer.bytes().await?)?;
            match upload["status"].as_str() {
                Some("completed" | "partial") => {
                    let figure = |name: &str| upload["rows"][name].as_u64().unwrap_or_default();
                    let counts = Counts {
                        inserted: figure("inserted"),
                        updated: figure("updated"),
                        rejected: figure("rejected"),
                    };
                    ensure!(
                        counts.inserted + counts.updated + counts.rejected == rows,
                        "expected {rows} rows: {upload}"
                    );
                    return Ok(counts);
                }
                Some("receiving" | "processing") => sleep(poll).await,
                _ => anyhow::bail!("the upload did not complete: {upload}"),
            }
        }
    }

    fn processes(&self) -> Vec<(String, ProcessId)> {
        let api = ("api".to_owned(), self.api.id());
        let workers = self.workers.iter().enumerate();
        let workers = workers.map(|(index, worker)| match index {
            0 => ("worker".to_owned(), worker.id()),
            _ => (format!("worker {}", index + 1), worker.id()),
        });
        std::iter::once(api).chain(workers).collect()
    }

    pub(crate) fn cpu(&self) -> ByProcess<Duration> {
        let processes = self.processes().into_iter();
        processes
            .map(|(name, process)| (name, process.usage().cpu))
            .collect()
    }

    pub(crate) fn reset_peaks(&self) -> Result<()> {
        self.processes()
            .iter()
            .try_for_each(|(_, process)| process.reset_peak())
    }

    pub(crate) fn peak_mib(&self) -> ByProcess<f64> {
        let processes = self.processes().into_iter();
        processes
            .map(|(name, process)| (name, mib(process.usage().peak_rss_bytes)))
            .collect()
    }
}

pub(crate) fn mib(bytes: u64) -> f64 {
    (bytes as f64 / f64::from(1 << 20) * 10.0).round() / 10.0
}

/// The directory for the data directories of `carga import` and the databases of `sqlite3`.
fn data_directories() -> Result<PathBuf> {
    Ok(directory()?.join("data"))
}

/// Creates a new directory.
pub(crate) fn new_data_directory() -> Result<PathBuf> {
    let parent = data_directories()?;
    fs::create_dir_all(&parent)?;
    let number = fs::read_dir(&parent)?.count();
    let directory = parent.join(number.to_string());
    fs::create_dir(&directory)?;
    Ok(directory)
}

fn remove_directory(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
