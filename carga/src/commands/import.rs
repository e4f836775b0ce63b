//! `carga import`: the intake without HTTP and a worker beside it, until every row is stored.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use carga_common::archive::ArchiveKey;
use carga_common::backends::Backends;
use carga_common::retry::retry_while_unavailable;
use carga_common::settings::Settings;
use carga_common::shutdown;
use carga_common::upload::{Failure, Status, Upload, UploadId, UploadKey};
use carga_intake::csv::export::Format;
use carga_intake::local::{LocalFile, LocalIntake};
use carga_intake::refusal::Refusal;
use carga_worker::runner::Runner;
use indicatif::HumanCount;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::datasets::relation;
use super::exports::write_rows;
use super::input::{Input, is_stdin};
use crate::instance::Instance;
use crate::meter::Meter;
use crate::output::{count_rows, one_line, print, printable};
use crate::table;

/// The time between two refreshes of the progress line while a file is read.
const REFRESH_INTERVAL: Duration = Duration::from_millis(50);

/// The time between two polls for the end of an upload. It is short because the next file waits for
/// it, and there may be thousands of small files.
const COMPLETION_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How many rows of a completed import are printed.
const SAMPLE_ROWS: usize = 3;

pub(crate) async fn run(
    settings: Settings,
    files: &[PathBuf],
    options: Vec<(String, String)>,
) -> anyhow::Result<ExitCode> {
    check_files(files).await?;
    let stop = shutdown::on_signal().context("cannot install the signal handlers")?;
    let Instance {
        settings,
        backends,
        // The data directory stays locked until this function returns.
        data_dir: _data_dir,
    } = match stop
        .run_until_cancelled(Instance::start(settings, "carga import"))
        .await
    {
        Some(started) => started?,
        None => anyhow::bail!("stopped by a signal before any file was imported"),
    };
    let worker_stop = CancellationToken::new();
    let worker = Runner::new(&settings, backends.clone(), worker_stop.clone());
    let worker = tokio::spawn(worker.run());
    let import = Import {
        intake: LocalIntake::start(&settings.intake, backends.clone(), stop.clone()),
        settings,
        backends,
        stop,
        options,
    };

    let outcome = import.all(files).await;
    import.intake.finish().await;
    worker_stop.cancel();
    worker.await.context(
        "the worker panicked; the next `carga serve` or `carga import` stores the remaining rows",
    )?;
    import.backends.close().await;
    Ok(ExitCode::from(match outcome {
        Outcome::Completed => 0,
        Outcome::Partial => 3,
        Outcome::Failed => 1,
    }))
}

/// Reports a wrong name before any file is imported. The files are opened one by one later, because
/// there may be thousands.
async fn check_files(files: &[PathBuf]) -> anyhow::Result<()> {
    for file in files.iter().filter(|file| !is_stdin(file)) {
        let metadata = tokio::fs::metadata(file).await;
        let metadata = metadata.with_context(|| format!("cannot read {}", file.display()))?;
        anyhow::ensure!(
            !metadata.is_dir(),
            "{} is a directory; name the files in it",
            file.display()
        );
    }
    Ok(())
}

/// The outcome of one file or of several, from best to worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Completed,
    /// Some rows were rejected, or are in dead letters.
    Partial,
    Failed,
}

struct Import {
    settings: Settings,
    backends: Backends,
    intake: LocalIntake,
    stop: CancellationToken,
    options: Vec<(String, String)>,
}

impl Import {
    /// Imports the files one after another, and returns the worst of their outcomes.
    async fn all(&self, files: &[PathBuf]) -> Outcome {
        let mut worst = Outcome::Completed;
        for file in files {
            let imported = if self.stop.is_cancelled() {
                Err(anyhow::anyhow!(
                    "not imported, because a signal stopped the import; import this file again"
                ))
            } else {
                self.import_file(file).await
            };
            let outcome = imported.unwrap_or_else(|error| {
                let message = format!("{}: {error:#}", file.display());
                eprintln!("carga: {}", one_line(&message));
                Outcome::Failed
            });
            worst = worst.max(outcome);
        }
        worst
    }

    /// Imports one file, from its first byte to its last row.
    async fn import_file(&self, file: &Path) -> anyhow::Result<Outcome> {
        let started = Instant::now();
        let (id, input) = (UploadId::generate(), Input::open(file).await?);
        let mut meter = Meter::start(&input.name, input.bytes);
        let imported = self.receive_and_store(id, input, &mut meter).await;
        meter.finish();
        let upload = imported?;
        if let Err(error) = self.report(&upload, started.elapsed()).await {
            // The file is imported, so an error of the report is not an error of the import.
            eprintln!(
                "carga: upload {id} is {}, but cannot be shown: {error:#}",
                upload.status
            );
        }
        Ok(match upload.status {
            Status::Partial => Outcome::Partial,
            _ => Outcome::Completed,
        })
    }

    /// Receives a file, then waits until the upload has ended.
    async fn receive_and_store(
        &self,
        id: UploadId,
        input: Input,
        meter: &mut Meter,
    ) -> anyhow::Result<Upload> {
        let file = LocalFile {
            id,
            filename: Some(input.name.clone()),
            bytes_total: input.bytes,
            options: self.options.clone(),
        };
        let receiving = self.intake.receive(file, input.pieces());
        tokio::pin!(receiving);
        let mut ticks = ticks_every(REFRESH_INTERVAL);
        let sealed = loop {
            tokio::select! {
                sealed = &mut receiving => break sealed,
                _ = ticks.tick() => self.show(id, meter).await,
            }
        };
        let mut upload =
            sealed.map_err(|refusal| anyhow::anyhow!(self.describe_refusal(&refusal)))?;
        let mut ticks = ticks_every(COMPLETION_POLL_INTERVAL);
        while !upload.status.is_terminal() {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.stop.cancelled() => anyhow::bail!(
                    "stopped by a signal before all rows were stored; upload {id} is durable, and the next `carga serve` or `carga import` stores the rest"
                ),
            }
            self.show(upload.id, meter).await;
            let read_upload = || self.backends.store.upload(upload.id);
            let found = retry_while_unavailable(self.stop.cancelled(), read_upload).await;
            let found = found.with_context(|| {
                format!("cannot read upload {id}; it is durable, so do not import the file again; `carga status {id}` shows its status")
            })?;
            upload = found.with_context(|| format!("upload {id} is no longer in the database"))?;
        }
        match &upload.failure {
            Some(failure) => anyhow::bail!("upload {id} failed: {}", describe_failure(failure)),
            None if upload.status.keeps_rows() => Ok(upload),
            None => anyhow::bail!("upload {id} is {}", upload.status),
        }
    }

    async fn show(&self, id: UploadId, meter: &mut Meter) {
        // An import is always an upload's first epoch.
        if let Some(figures) = self.backends.progress.read(UploadKey::first(id)).await {
            meter.show(figures);
        }
    }

    /// The text of a refusal, with its code, which can be looked up in the documentation.
    fn describe_refusal(&self, refusal: &Refusal) -> String {
        let mut text = describe_failure(&refusal.failure);
        if refusal.failure.code == "storage_full"
            && let Some(data_dir) = &self.settings.ports.locations.data_dir
        {
            text.push_str(&format!(" (data directory {})", data_dir.display()));
        }
        match refusal.upload {
            Some(id) => format!("upload {id} failed: {text}"),
            None => text,
        }
    }

    /// Prints what was imported, its first rows, and where rows and archive are.
    async fn report(&self, upload: &Upload, took: Duration) -> anyhow::Result<()> {
        let id = upload.public_id;
        let locations = &self.settings.ports.locations;
        let program = std::env::args()
            .next()
            .unwrap_or_else(|| "carga".to_owned());
        let mut output = Vec::new();
        writeln!(
            output,
            "{}: {} in {:.1} s, every one accounted for",
            printable(upload.filename.as_deref().unwrap_or("-")),
            count_rows(upload.rows_read),
            took.as_secs_f64()
        )?;
        output.extend(describe_outcomes(upload, &program).into_bytes());
        output.extend(describe_columns(upload).into_bytes());
        writeln!(output)?;
        let table = upload.user_table();
        if table.is_none() {
            output.extend(self.sample(upload).await?.into_bytes());
        }
        writeln!(output, "  upload   {id}")?;
        let relation = match &upload.dataset {
            Some(dataset) => printable(&relation(&locations.store, &dataset.key(), table)),
            None => "view upload_rows".to_owned(),
        };
        writeln!(output, "  rows     {} ({relation})", locations.store)?;
        writeln!(
            output,
            "  archive  {}/{}",
            locations.archive,
            ArchiveKey::prefix(upload.id)
        )?;
        if table.is_none() {
            writeln!(output, "  look at  {program} rows {id}")?;
        }
        print(&output)
    }

    /// The first rows, as a terminal can show them, and a blank line.
    async fn sample(&self, upload: &Upload) -> anyhow::Result<String> {
        let mut rows = Vec::new();
        let store = Arc::clone(&self.backends.store);
        write_rows(store, upload, Format::Csv, Some(SAMPLE_ROWS), &mut rows).await?;
        let stored =
            upload.rows_inserted.unwrap_or_default() + upload.rows_updated.unwrap_or_default();
        let end = match stored > SAMPLE_ROWS as u64 {
            true => "…\n\n",
            false => "\n",
        };
        Ok(printable(&String::from_utf8_lossy(&rows)) + end)
    }
}

/// The rows that the intake rejected, and those that violate a constraint of the dataset's table.
fn rejected_rows(upload: &Upload) -> u64 {
    upload.rows_rejected + upload.rows_violating.unwrap_or_default()
}

/// A line about the outcomes of the rows; empty if each of them was stored as a new row.
fn describe_outcomes(upload: &Upload, program: &str) -> String {
    let inserted = HumanCount(upload.rows_inserted.unwrap_or_default());
    let rejected = rejected_rows(upload);
    let mut text = match (upload.rows_updated, upload.rows_duplicate) {
        (Some(updated), Some(duplicate)) if updated + duplicate > 0 => format!(
            "{inserted} were inserted, {} updated, {} changed nothing",
            HumanCount(updated),
            HumanCount(duplicate)
        ),
        _ if rejected + upload.rows_dead > 0 => format!("{inserted} were stored"),
        _ => return String::new(),
    };
    if rejected > 0 {
        let rejected = HumanCount(rejected);
        let id = upload.public_id;
        text.push_str(&format!(
            ", {rejected} rejected; the reasons are in: {program} rejected {id}"
        ));
    }
    if upload.rows_dead > 0 {
        let dead = HumanCount(upload.rows_dead);
        text.push_str(&format!(
            ", {dead} are in dead letters; the reasons are in: {program} dead-letters list"
        ));
    }
    text.push('\n');
    text
}

/// Lines about the differences between the columns of the file and those of the dataset.
fn describe_columns(upload: &Upload) -> String {
    let Some(dataset) = &upload.dataset else {
        return String::new();
    };
    let differences = [
        ("columns that the file lacks, now NULL", &dataset.missing),
        ("columns of the file that were not stored", &dataset.ignored),
    ];
    let differences = differences
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{what}: {}\n", table::list(names)));
    differences.collect()
}

/// Ticks that are not made up for. A store that was unavailable is read once when it is back, and
/// not once for each tick that it missed.
fn ticks_every(every: Duration) -> Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn describe_failure(failure: &Failure) -> String {
    let mut text = format!("{}: {}", failure.code, failure.message);
    let position = [
        failure.row.map(|row| format!("row {row}")),
        failure.line.map(|line| format!("line {line}")),
        failure
            .column
            .as_ref()
            .map(|column| format!("column `{column}`")),
    ];
    let position: Vec<String> = position.into_iter().flatten().collect();
    if !position.is_empty() {
        text.push_str(&format!(" ({})", position.join(", ")));
    }
    text
}
