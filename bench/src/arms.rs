//! The arms of the comparison: ways to load a file into a database. Every run starts from the same
//! state, and its rows are counted afterwards.

mod running_command;
mod typed;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use carga_testkit::{Binary, command};
use serde::{Deserialize, Serialize};

use self::running_command::RunningCommand;
pub(crate) use self::typed::encode_binary;
use crate::data::{DataFile, directory};
use crate::rig::{ByProcess, Carga, Counts, Rig, new_data_directory};

/// One way of importing a file. Each round measures all arms.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Arm {
    /// The baseline: `psql \copy` of an already encoded file into a copy of Carga's landing table.
    CopyLanding,
    /// `psql \copy` of the CSV file into a table with its columns and types.
    CopyTyped,
    /// `psql \copy` of the same rows in COPY's binary format into a table like that of `CopyTyped`.
    CopyBinary,
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
    /// Like `DistributedTyped`, into a dataset with a key. Half of the keys are in the table with
    /// other values, and their rows are replaced.
    UpdateHalf,
    /// `carga import` into a dataset on Postgres; the other ports are plain files.
    ImportTyped,
    /// Like `Embedded`, into a dataset.
    ImportTypedSqlite,
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
            Self::CopyBinary => r"psql \copy, binary, typed table",
            Self::Distributed => "carga-api + 1 carga-worker",
            Self::DistributedTyped => "carga-api + 1 carga-worker, typed table",
            Self::FewViolations => "carga-api + 1 carga-worker, 0.01 % rejected",
            Self::ManyViolations => "carga-api + 1 carga-worker, 1 % rejected",
            Self::UpdateHalf => "carga-api + 1 carga-worker, half updated",
            Self::ImportTyped => "carga import, typed table in Postgres",
            Self::ImportTypedSqlite => "carga import, typed table in SQLite",
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
    /// Until the answer 202. Only the distributed arms have one.
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
            Self::CopyLanding => copy_landing(rig, file).await,
            Self::CopyTyped => typed::copy(rig, file).await,
            Self::CopyBinary => typed::copy_binary(rig, file).await,
            Self::Distributed => distributed(rig, carga, file).await,
            Self::DistributedTyped => typed::distributed(rig, carga, file).await,
            Self::FewViolations => typed::violations(rig, carga, file, 9_973).await,
            Self::ManyViolations => typed::violations(rig, carga, file, 101).await,
            Self::UpdateHalf => typed::update_half(rig, carga, file).await,
            Self::ImportTyped => typed::import(rig, carga, file).await,
            Self::ImportTypedSqlite => typed::import_sqlite(rig, carga, file).await,
            Self::Embedded => embedded(rig, carga, file).await,
            Self::Sqlite => sqlite(rig, file).await,
            Self::Pgloader => pgloader(rig, file).await,
        }
    }
}

async fn copy_landing(rig: &Rig, file: &DataFile) -> Result<Run> {
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

async fn pgloader(rig: &Rig, file: &DataFile) -> Result<Run> {
    create_table(rig, file, false).await?;
    let script = write_pgloader_script(rig, file)?;
    on_postgres(rig, file, "plain", || {
        let mut pgloader = Command::new("pgloader");
        pgloader.arg("--quiet").arg(&script);
        RunningCommand::start("pgloader", pgloader)
    })
    .await
}

async fn distributed(rig: &Rig, carga: &Carga, file: &DataFile) -> Result<Run> {
    let (run, _) = upload(rig, carga, "", file).await?;
    check_count(file, rig.count("landing").await?)?;
    Ok(run)
}

/// Measures an upload with this query. Returns how its rows ended, too.
async fn upload(rig: &Rig, carga: &Carga, query: &str, file: &DataFile) -> Result<(Run, Counts)> {
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
    Ok((run, imported.counts))
}

async fn embedded(rig: &Rig, carga: &Carga, file: &DataFile) -> Result<Run> {
    let data = new_data_directory()?;
    rig.settle().await?;
    let import = carga_import(carga, file, &data)?;
    let run = RunningCommand::start("carga", import)?.finish()?;
    check_count(file, sqlite_count(&data.join("carga.db"), "rows")?)?;
    Ok(run)
}

/// `carga import` with this data directory, and with the settings of the other programs.
fn carga_import(carga: &Carga, file: &DataFile, data: &Path) -> Result<Command> {
    let mut import = command(Binary::Carga)?;
    import
        .arg("import")
        .arg(&file.path)
        .envs(&carga.settings)
        .env("CARGA_DATA_DIR", data);
    Ok(import)
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

fn sqlite_count(database: &Path, table: &str) -> Result<u64> {
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
