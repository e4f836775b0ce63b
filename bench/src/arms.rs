//! The arms of the comparison: ways to load a file into a database. Every run starts from the same
//! state, and its rows are counted afterwards.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carga_testkit::{Binary, ProcessId, Usage, command};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde::{Deserialize, Serialize};

use crate::data::{DataFile, directory};
use crate::dataset;
use crate::rig::{ByProcess, Carga, Rig, mib, new_data_directory};

/// One way of importing a file. Each round measures all arms.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Arm {
    /// The baseline: `psql \copy` of an already encoded file into a copy of Carga's landing table.
    CopyLanding,
    /// `psql \copy` of the CSV file into a table with its columns and types.
    CopyTyped,
    /// An upload with curl until `completed`: API, broker, one worker, archive, landing table.
    Distributed,
    /// The same into a dataset, whose table has the types of `CopyTyped`.
    DistributedTyped,
    /// Like `DistributedTyped`, but about one row in 9,973 violates a constraint of the table.
    #[serde(rename = "violations_0.01")]
    #[value(name = "violations_0.01")]
    FewViolations,
    /// Like `DistributedTyped`, but about one row in 101 violates a constraint of the table.
    #[serde(rename = "violations_1")]
    #[value(name = "violations_1")]
    ManyViolations,
    /// `carga import` into a dataset on Postgres; the other ports are plain files.
    ImportTyped,
    /// `carga import` into an empty data directory, on SQLite and plain files, from start to exit.
    Embedded,
    /// `sqlite3 .import` into a plain table.
    Sqlite,
    /// pgloader into a table of text columns, which is the least work for it.
    Pgloader,
}

impl Arm {
    /// The arm's title in tables and in the chart.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::CopyLanding => r"psql \copy, encoded before, landing table",
            Self::CopyTyped => r"psql \copy, CSV, typed table",
            Self::Distributed => "carga-api + 1 carga-worker",
            Self::DistributedTyped => "carga-api + 1 carga-worker, typed table",
            Self::FewViolations => "carga-api + 1 carga-worker, 0.01 % rejected",
            Self::ManyViolations => "carga-api + 1 carga-worker, 1 % rejected",
            Self::ImportTyped => "carga import, typed table in Postgres",
            Self::Embedded => "carga import",
            Self::Sqlite => "sqlite3 .import",
            Self::Pgloader => "pgloader, text columns",
        }
    }
}

/// The measurements of one import.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) seconds: f64,
    /// Until the answer 202. Only the distributed arm has one.
    pub(crate) accepted_seconds: Option<f64>,
    pub(crate) cpu_seconds: ByProcess<f64>,
    pub(crate) peak_mib: ByProcess<f64>,
}

/// Imports a file, and exports its rows from the landing table in COPY's text format, so that
/// `\copy` can load them into a copy of this table.
pub(crate) async fn encode(rig: &Rig, carga: &Carga, file: &DataFile) -> Result<()> {
    let encoded = file.encoded();
    rig.clear().await?;
    carga.import(file, 1).await?;
    let select = r"\copy (SELECT upload, row_number, fields FROM landing) TO";
    psql(rig, &format!("{select} '{}'", encoded.display()))?.finish()?;
    Ok(())
}

impl Arm {
    pub(crate) async fn run(self, rig: &Rig, carga: &Carga, file: &DataFile) -> Result<Run> {
        rig.clear().await?;
        match self {
            Self::CopyLanding => {
                rig.execute(
                    "DROP TABLE IF EXISTS landing_copy; CREATE TABLE landing_copy (LIKE landing);
                     CREATE INDEX ON landing_copy USING brin (upload int8_minmax_multi_ops, row_number)
                         WITH (pages_per_range = 32, autosummarize = on)",
                )
                .await?;
                let encoded = file.encoded();
                let copy = r"\copy landing_copy (upload, row_number, fields) FROM";
                let run = on_postgres(rig, file, "landing_copy", || {
                    psql(rig, &format!("{copy} '{}'", encoded.display()))
                });
                run.await
            }
            Self::CopyTyped => {
                create_table(rig, file, true).await?;
                let copy = format!(
                    r"\copy plain FROM '{}' (FORMAT csv, HEADER, NULL '{}')",
                    file.path.display(),
                    file.null()
                );
                on_postgres(rig, file, "plain", || psql(rig, &copy)).await
            }
            Self::Pgloader => {
                create_table(rig, file, false).await?;
                let script = write_pgloader_script(rig, file)?;
                on_postgres(rig, file, "plain", || {
                    let mut pgloader = Command::new("pgloader");
                    pgloader.arg("--quiet").arg(&script);
                    RunningCommand::start("pgloader", pgloader)
                })
                .await
            }
            Self::Distributed => distributed(rig, carga, file, "", "landing", None).await,
            Self::DistributedTyped => distributed_typed(rig, carga, file, None).await,
            Self::FewViolations => distributed_typed(rig, carga, file, Some(9_973)).await,
            Self::ManyViolations => distributed_typed(rig, carga, file, Some(101)).await,
            Self::ImportTyped => {
                dataset::declare(rig, carga, file).await?;
                on_postgres(rig, file, dataset::TABLE, || import_typed(rig, file)).await
            }
            Self::Embedded => embedded(rig, file).await,
            Self::Sqlite => sqlite(rig, file).await,
        }
    }
}

/// An upload into the dataset. About one row in `one_in` violates a constraint of the table.
async fn distributed_typed(
    rig: &Rig,
    carga: &Carga,
    file: &DataFile,
    one_in: Option<u32>,
) -> Result<Run> {
    dataset::declare(rig, carga, file).await?;
    if let Some(one_in) = one_in {
        dataset::constrain(rig, file, one_in).await?;
    }
    let query = format!("?dataset={}", dataset::NAME);
    distributed(rig, carga, file, &query, dataset::TABLE, one_in).await
}

/// An upload with this query, whose rows go into this table. About one row in `one_in` must be
/// rejected.
async fn distributed(
    rig: &Rig,
    carga: &Carga,
    file: &DataFile,
    query: &str,
    table: &str,
    one_in: Option<u32>,
) -> Result<Run> {
    carga.reset_peaks()?;
    let cpu = || {
        let mut cpu = rig.server_cpu();
        cpu.extend(carga.cpu());
        cpu
    };
    let before = cpu();
    let imported = carga.import_with(query, file, 1).await?;
    let run = Run {
        seconds: imported.completed.as_secs_f64(),
        accepted_seconds: Some(imported.accepted.as_secs_f64()),
        cpu_seconds: cpu_spent(&before, &cpu()),
        peak_mib: carga.peak_mib(),
    };
    check_share(file, imported.rejected, one_in)?;
    check_count(file, rig.count(table).await? + imported.rejected)?;
    Ok(run)
}

/// Fails unless about one row in `one_in` was rejected, so that an arm measures what its title
/// says.
fn check_share(file: &DataFile, rejected: u64, one_in: Option<u32>) -> Result<()> {
    let expected = one_in.map_or(0.0, |one_in| file.rows as f64 / f64::from(one_in));
    let difference = (rejected as f64 - expected).abs();
    ensure!(
        difference <= 0.2 * expected,
        "{rejected} rows were rejected instead of about {expected:.0}"
    );
    Ok(())
}

async fn embedded(rig: &Rig, file: &DataFile) -> Result<Run> {
    let data = new_data_directory()?;
    rig.settle().await?;
    let mut carga = command(Binary::Carga)?;
    carga
        .arg("import")
        .arg(&file.path)
        .env("CARGA_DATA_DIR", &data);
    let run = RunningCommand::start("carga", carga)?.finish()?;
    check_count(file, sqlite_count(&data.join("carga.db"), "rows")?)?;
    Ok(run)
}

fn import_typed(rig: &Rig, file: &DataFile) -> Result<RunningCommand> {
    let data = new_data_directory()?;
    let mut carga = command(Binary::Carga)?;
    carga
        .args(["import", "--dataset", dataset::NAME])
        .arg(&file.path)
        .env("DATABASE_URL", rig.database_url())
        .env("CARGA_DATA_DIR", &data);
    RunningCommand::start("carga", carga)
}

async fn sqlite(rig: &Rig, file: &DataFile) -> Result<Run> {
    let database = new_data_directory()?.join("plain.db");
    rig.settle().await?;
    let mut sqlite = Command::new("sqlite3");
    let import = format!(".import '{}' plain", file.path.display());
    sqlite.arg(&database).args([".mode csv", &import]);
    let run = RunningCommand::start("sqlite3", sqlite)?.finish()?;
    check_count(file, sqlite_count(&database, "plain")?)?;
    Ok(run)
}

fn sqlite_count(database: &std::path::Path, table: &str) -> Result<u64> {
    let count = format!("SELECT count(*) FROM {table}");
    let answer = Command::new("sqlite3").arg(database).arg(count).output()?;
    Ok(String::from_utf8(answer.stdout)?.trim().parse()?)
}

/// Measures a command that fills a table of Postgres.
async fn on_postgres(
    rig: &Rig,
    file: &DataFile,
    table: &str,
    start: impl FnOnce() -> Result<RunningCommand>,
) -> Result<Run> {
    rig.settle().await?;
    let before = rig.server_cpu();
    let mut run = start()?.finish()?;
    // A backend ends shortly after its client, and only then counts to the server's processor time.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let servers = cpu_spent(&before, &rig.server_cpu());
    run.cpu_seconds
        .extend(servers.into_iter().filter(|(name, _)| name == "postgres"));
    check_count(file, rig.count(table).await?)?;
    // The table of a dataset has a view.
    rig.execute(&format!("DROP TABLE {table} CASCADE")).await?;
    Ok(run)
}

fn check_count(file: &DataFile, rows: u64) -> Result<()> {
    ensure!(
        rows == file.rows,
        "expected {} rows, found {rows}",
        file.rows
    );
    Ok(())
}

fn cpu_spent(before: &ByProcess<Duration>, after: &ByProcess<Duration>) -> ByProcess<f64> {
    let seconds = |(name, after): (&String, &Duration)| {
        let before = before.get(name).copied().unwrap_or_default();
        (name.clone(), after.saturating_sub(before).as_secs_f64())
    };
    after.iter().map(seconds).collect()
}

async fn create_table(rig: &Rig, file: &DataFile, typed: bool) -> Result<()> {
    let columns = file.columns.iter();
    let columns =
        columns.map(|(name, kind)| format!("{name} {}", if typed { kind } else { "text" }));
    let columns = columns.collect::<Vec<_>>().join(", ");
    rig.execute(&format!(
        "DROP TABLE IF EXISTS plain; CREATE TABLE plain ({columns})"
    ))
    .await
}

fn write_pgloader_script(rig: &Rig, file: &DataFile) -> Result<PathBuf> {
    let names = file.columns.iter().map(|(name, _)| name.as_str());
    let names = names.collect::<Vec<_>>().join(", ");
    let script = format!(
        "LOAD CSV FROM '{}' ({names})\n\
         INTO {}?tablename=plain ({names})\n\
         WITH skip header = 1, fields optionally enclosed by '\"', fields terminated by ',';\n",
        file.path.display(),
        rig.database_url(),
    );
    let path = directory()?.join("pgloader.load");
    std::fs::write(&path, script)?;
    Ok(path)
}

fn psql(rig: &Rig, command: &str) -> Result<RunningCommand> {
    let mut psql = Command::new("psql");
    psql.arg("-qX")
        .arg(rig.database_url())
        .arg("-c")
        .arg(command);
    RunningCommand::start("psql", psql)
}

/// A running command that is being measured.
struct RunningCommand {
    name: &'static str,
    child: Child,
    id: ProcessId,
    start: Instant,
}

impl RunningCommand {
    fn start(name: &'static str, mut command: Command) -> Result<Self> {
        let start = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let id = ProcessId::of(child.id()).with_context(|| format!("{name} ended immediately"))?;
        Ok(Self {
            name,
            child,
            id,
            start,
        })
    }

    /// Waits until the command ends.
    ///
    /// Its memory is sampled every 20 ms. Its processor time is read before the process is reaped,
    /// because reaping removes the process from `/proc`.
    fn finish(mut self) -> Result<Run> {
        let pid = Pid::from_child(&self.child);
        let ended = AtomicBool::new(false);
        let (seconds, peak) = std::thread::scope(|scope| {
            let sampler = scope.spawn(|| {
                let mut peak = 0;
                while !ended.load(Ordering::Relaxed) {
                    peak = peak.max(self.id.usage().peak_rss_bytes);
                    std::thread::sleep(Duration::from_millis(20));
                }
                peak
            });
            let waited = waitid(
                WaitId::Pid(pid),
                WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
            );
            let seconds = self.start.elapsed().as_secs_f64();
            ended.store(true, Ordering::Relaxed);
            let peak = sampler.join().unwrap_or_default();
            waited.map(|_| (seconds, peak))
        })?;
        let Usage { cpu, .. } = self.id.usage();
        let status = self.child.wait()?;
        ensure!(status.success(), "{} failed ({status})", self.name);
        let named = |value: f64| [(self.name.to_owned(), value)].into();
        Ok(Run {
            seconds,
            accepted_seconds: None,
            cpu_seconds: named(cpu.as_secs_f64()),
            peak_mib: named(mib(peak)),
        })
    }
}
