//! `carga serve`: API and worker in one process, under one shutdown.

use std::process::ExitCode;

use anyhow::Context;
use carga_api::server::Server;
use carga_common::settings::Settings;
use carga_common::shutdown;
use carga_worker::runner::Runner;

use crate::instance::Instance;

pub(crate) async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let authentication = settings.authentication()?;
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
    let server = Server::bind(&settings, &authentication, backends.clone(), stop.clone())
        .await
        .with_context(|| format!("cannot listen on {} (CARGA_LISTEN)", settings.intake.listen))?;
    if let Some(data_dir) = &mut data_dir {
        data_dir.record_address(server.address());
    }
    let worker = Runner::new(&settings, backends.clone(), stop);
    let locations = &settings.ports.locations;
    tracing::info!(rows = %locations.store, archive = %locations.archive, "listening on http://{}", server.address());
    tokio::join!(server.run(), worker.run());
    backends.close().await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}
