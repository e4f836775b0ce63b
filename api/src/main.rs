//! `carga-api`: receives CSV files over HTTP.

use anyhow::Context;
use carga_api::server::Server;
use carga_common::backends::{Access, Backends};
use carga_common::settings::{Mode, Settings, log_settings};
use carga_common::{healthcheck, shutdown, telemetry};
use clap::{Parser, Subcommand};

/// Receives CSV files over HTTP and turns them into durable batches. Settings come from the
/// environment; .env.example lists them all.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask a running API whether it is alive; for container health checks
    Healthcheck,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    telemetry::init(&log_settings());
    let settings = Settings::from_env(Mode::Distributed)?;
    if let Some(Command::Healthcheck) = arguments.command {
        return Ok(healthcheck::check(settings.intake.listen).await?);
    }
    let authentication = settings.authentication()?;
    let stop = shutdown::on_signal().context("cannot install the signal handlers")?;
    let backends = Backends::connect(&settings.ports, "carga-api", Access::Shared)
        .await
        .context("cannot connect to the servers")?;
    let server = Server::bind(&settings, &authentication, backends.clone(), stop)
        .await
        .with_context(|| format!("cannot listen on {} (CARGA_LISTEN)", settings.intake.listen))?;
    tracing::info!("listening on http://{}", server.address());
    server.run().await;
    backends.close().await;
    tracing::info!("stopped");
    Ok(())
}
