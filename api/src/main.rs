//! `carga-api`: receives CSV files over HTTP.

use anyhow::Context;
use carga_api::access::JwtVerifier;
use carga_api::server::Server;
use carga_api::transport::Transport;
use carga_common::backends::{Access, Backends};
use carga_common::settings::{Mode, Settings, telemetry_settings};
use carga_common::{healthcheck, metrics, shutdown, telemetry};
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
    let (log, traces) = telemetry_settings();
    let telemetry = telemetry::init(&log, &traces, "carga-api");
    let settings = Settings::from_env(Mode::Distributed)?;
    if let Some(Command::Healthcheck) = arguments.command {
        return Ok(healthcheck::check(&settings.intake).await?);
    }
    let authentication = settings.authentication()?;
    let exposition = metrics::install(Mode::Distributed)?;
    let transport = Transport::open(&settings.intake)?;
    let jwt = JwtVerifier::start(&settings.access, &authentication).await?;
    let stop = shutdown::on_signal().context("cannot install the signal handlers")?;
    let backends = Backends::connect(&settings.ports, "carga-api", Access::Shared)
        .await
        .context("cannot connect to the servers")?;
    let server = Server::bind(
        &settings,
        &authentication,
        transport,
        jwt,
        backends.clone(),
        stop,
    )
    .await
    .with_context(|| format!("cannot listen on {} (CARGA_LISTEN)", settings.intake.listen))?
    .with_log_filter(telemetry.log_filter.clone());
    server.watch(&exposition);
    exposition.watch_state(backends.clone());
    let metrics_listener = metrics::listener::listen(&settings, &exposition).await?;
    let server = match &metrics_listener {
        Some(_) => server,
        None => server.with_metrics(exposition),
    };
    tracing::info!("listening on {}", server.url());
    server.run().await;
    drop(metrics_listener);
    backends.close().await;
    tracing::info!("stopped");
    telemetry.close().await;
    Ok(())
}
