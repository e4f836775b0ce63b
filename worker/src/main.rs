//! `carga-worker`: archives and stores batches. Several can run side by side.

use anyhow::Context;
use carga_common::backends::{Access, Backends};
use carga_common::settings::{Mode, Settings, telemetry_settings};
use carga_common::{metrics, shutdown, telemetry};
use carga_worker::heartbeat;
use carga_worker::runner::Runner;
use clap::{Parser, Subcommand};

/// Writes batches to the archive and their rows to Postgres. Settings come from the environment;
/// .env.example lists them all.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check whether the worker on this machine is alive; for container health checks
    Healthcheck,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (log, traces) = telemetry_settings();
    let telemetry = telemetry::init(&log, &traces, "carga-worker");
    let settings = Settings::from_env(Mode::Distributed)?;
    if let Some(Command::Healthcheck) = arguments.command {
        let file = settings.worker.heartbeat_file;
        return Ok(heartbeat::check(
            &file.context("CARGA_HEARTBEAT_FILE is not set")?,
        )?);
    }
    let exposition = metrics::install(Mode::Distributed)?;
    let stop = shutdown::on_signal().context("cannot install the signal handlers")?;
    let backends = Backends::connect(&settings.ports, "carga-worker", Access::Shared)
        .await
        .context("cannot connect to the servers")?;
    let worker = Runner::new(&settings, backends.clone(), stop);
    worker.watch(&exposition);
    exposition.watch_state(backends.clone());
    let metrics_listener = metrics::listener::listen(&settings, &exposition).await?;
    let ended = worker.run_unless_stuck().await;
    drop(metrics_listener);
    backends.close().await;
    if let Err(stuck) = ended {
        tracing::error!(
            error = %stuck,
            "the worker was stuck and ends; its batches return to the queue"
        );
        telemetry.close().await;
        // A call that hangs in a blocking thread would keep the runtime from ending.
        std::process::exit(1);
    }
    tracing::info!("stopped");
    telemetry.close().await;
    Ok(())
}
