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

use super::exports::write_rows;
use super::input::{Input, is_stdin};
use crate::instance::Instance;
use crate::meter::Meter;
use crate::output::print;

/// How often figures are looked at while a file is read.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often the upload is looked at afterwards: the next file waits for its end, and there may
/// be thousands of small ones.
const LOOK_FOR_THE_END_EVERY: Duration = Duration::from_millis(10);

/// Rows shown of an import that is done.
const SAMPLE_ROWS: usize = 3;

pub(crate) async fn run(
    settings: Settings,
    files: &[PathBuf],
    options: Vec<(String, String)>,
) -> anyhow::Result<ExitCode> {
    // A wrong name is reported before any file is imported. The files are opened one by one later,
    // because there may be thousands.
    for file in files.iter().filter(|file| !is_stdin(file)) {
        let metadata = tokio::fs::metadata(file).await;
        let metadata = metadata.with_context(|| format!("opening {}", file.display()))?;
        anyhow::ensure!(!metadata.is_dir(), "{} is a directory", file.display());
    }
    let stop = shutdown::on_signal().context("listening for signals")?;
    let Instance {
        settings,
        backends,
        data_dir: _data_dir,
    } = match stop
        .run_until_cancelled(Instance::start(settings, "carga import"))
        .await
    {
        Some(started) => started?,
        None => anyhow::bail!("told to stop before anything was imported"),
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

    let mut worst = Outcome::Completed;
    for file in files {
        let imported = if import.stop.is_cancelled() {
            Err(anyhow::anyhow!("not imported: told to stop before"))
        } else {
            import.one(file).await
        };
        let outcome = imported.unwrap_or_else(|problem| {
            eprintln!("carga: {}: {problem:#}", file.display());
            Outcome::Failed
        });
        worst = worst.max(outcome);
    }
    import.intake.finish().await;
    worker_stop.cancel();
    worker.await.context("the worker broke off")?;
    import.backends.close().await;
    Ok(ExitCode::from(match worst {
        Outcome::Completed => 0,
        Outcome::Partial => 3,
        Outcome::Failed => 1,
    }))
}

/// What became of a file, the worst last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Completed,
    /// Some rows were rejected.
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
    /// One file, from its first byte to its last row.
    async fn one(&self, file: &Path) -> anyhow::Result<Outcome> {
        let started = Instant::now();
        let (id, input) = (UploadId::generate(), Input::open(file).await?);
        let mut meter = Meter::start(&input.name, input.bytes);
        let imported = self.import(id, input, &mut meter).await;
        meter.finish();
        let upload = imported?;
        if let Err(error) = self.report(&upload, started.elapsed()).await {
            // It is imported, whatever keeps it from being shown.
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

    async fn import(
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
        let mut ticks = looks(LOOK_EVERY);
        let sealed = loop {
            tokio::select! {
                sealed = &mut receiving => break sealed,
                _ = ticks.tick() => self.show(id, meter).await,
            }
        };
        let mut upload = sealed.map_err(|refusal| anyhow::anyhow!(self.describe(&refusal)))?;
        let mut ticks = looks(LOOK_FOR_THE_END_EVERY);
        while !upload.status.is_terminal() {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.stop.cancelled() => anyhow::bail!(
                    "stopped while its rows were being stored; all of it is durable, and the next `carga serve` or `carga import` goes on with upload {id}"
                ),
            }
            self.show(id, meter).await;
            let look = || self.backends.store.upload(id);
            let found = retry_while_unavailable(self.stop.cancelled(), look).await;
            let found = found.with_context(|| {
                format!("upload {id} is durable, do not import the file again; `carga status {id}` tells what became of it")
            })?;
            upload = found.context("the upload is gone")?;
        }
        match &upload.failure {
            Some(failure) => anyhow::bail!("upload {id} failed: {}", describe(failure)),
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

    /// A refusal for people: the code for programs stays, since it can be looked up.
    fn describe(&self, refusal: &Refusal) -> String {
        let mut text = describe(&refusal.failure);
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

    /// Where everything is, and how to look at it.
    async fn report(&self, upload: &Upload, took: Duration) -> anyhow::Result<()> {
        let id = upload.id;
        let locations = &self.settings.ports.locations;
        let program = std::env::args()
            .next()
            .unwrap_or_else(|| "carga".to_owned());
        let rows = upload.rows_inserted.unwrap_or_default();
        let mut output = Vec::new();
        writeln!(
            output,
            "{}: {} rows in {:.1} s, every one accounted for",
            upload.filename.as_deref().unwrap_or("-"),
            HumanCount(upload.rows_read),
            took.as_secs_f64()
        )?;
        if upload.rows_rejected > 0 {
            writeln!(
                output,
                "{} were stored, {} rejected; each of those with its reason: {program} rejected {id}",
                HumanCount(rows),
                HumanCount(upload.rows_rejected),
            )?;
        }
        writeln!(output)?;
        write_rows(
            Arc::clone(&self.backends.store),
            upload,
            Format::Csv,
            Some(SAMPLE_ROWS),
            &mut output,
        )
        .await?;
        writeln!(
            output,
            "{}",
            if rows > SAMPLE_ROWS as u64 {
                "…\n"
            } else {
                ""
            }
        )?;
        writeln!(output, "  upload   {id}")?;
        writeln!(output, "  rows     {} (view upload_rows)", locations.store)?;
        writeln!(
            output,
            "  archive  {}/{}",
            locations.archive,
            ArchiveKey::prefix(id)
        )?;
        writeln!(output, "  look at  {program} rows {id}")?;
        print(&output)
    }
}

/// A store that was away gets one look when it is back, not all that were missed.
fn looks(every: Duration) -> Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn describe(failure: &Failure) -> String {
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
