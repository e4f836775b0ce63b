//! `carga serve`: API and worker in one process, under one shutdown.

use std::process::ExitCode;

use anyhow::Context;
use carga_api::access::JwtVerifier;
use carga_api::server::Server;
use carga_api::transport::Transport;
use carga_common::settings::{Mode, Settings};
use carga_common::telemetry::LogFilter;
use carga_common::{metrics, shutdown};
use carga_worker::runner::Runner;

use crate::instance::Instance;

pub(crate) async fn run(settings: Settings, log_filter: &LogFilter) -> anyhow::Result<ExitCode> {
    let authentication = settings.authentication()?;
    let exposition = metrics::install(Mode::Embedded)?;
    let transport = Transport::open(&settings.intake)?;
    let jwt = JwtVerifier::start(&settings.access, &authentication).await?;
    let stop = shutdown::on_signal().context("cannot install the signal handlers")?;
    let Instance {
        settings,
        backends,
        mut data_dir,
    } = match stop
        .run_until_cancelled(Instance::start(settings, "carga serve"))
        .await
    {
        Some(started) => started?,
        None => return Ok(ExitCode::SUCCESS),
    };
    let bound = Server::bind(
        &settings,
        &authentication,
        transport,
        jwt,
        backends.clone(),
        stop.clone(),
    );
    let server = bound
        .await
        .with_context(|| format!("cannot listen on {} (CARGA_LISTEN)", settings.intake.listen))?
        .with_log_filter(log_filter.clone());
    if let Some(data_dir) = &mut data_dir {
        data_dir.record_url(&server.url());
    }
    let worker = Runner::new(&settings, backends.clone(), stop);
    server.watch(&exposition);
    worker.watch(&exposition);
    exposition.watch_state(backends.clone());
    let metrics_listener = metrics::listener::listen(&settings, &exposition).await?;
    let server = match &metrics_listener {
        Some(_) => server,
        None => server.with_metrics(exposition),
    };
    let locations = &settings.ports.locations;
    tracing::info!(rows = %locations.store, archive = %locations.archive, "listening on {}", server.url());
    tokio::join!(server.run(), worker.run());
    drop(metrics_listener);
    backends.close().await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}
