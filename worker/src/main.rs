//! `carga-worker`: archives and stores batches. Run as many as you like.

use anyhow::Context;
use carga_common::backends::Backends;
use carga_common::settings::{Settings, log_settings};
use carga_common::{shutdown, telemetry};
use carga_worker::heartbeat;
use carga_worker::runner::Runner;
use clap::{Parser, Subcommand};

/// Writes batches to the archive and their rows to Postgres. Settings come from the environment; .env.example names them
/// all.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask whether the worker on this machine is alive; for container health checks
    Healthcheck,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    telemetry::init(&log_settings());
    let settings = Settings::from_env()?;
    if let Some(Command::Healthcheck) = arguments.command {
        return heartbeat::check(&settings.worker.heartbeat_file);
    }
    let stop = shutdown::on_signal().context("listening for signals")?;
    let backends = Backends::connect(&settings.ports, "carga-worker")
        .await
        .context("connecting")?;
    Runner::new(&settings, backends, stop).run().await;
    tracing::info!("stopped");
    Ok(())
}
