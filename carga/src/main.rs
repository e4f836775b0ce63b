//! `carga`: API and worker in one process, on local files unless the settings name servers.

mod arguments;
mod commands;
mod data_dir;
mod instance;
mod meter;
mod output;
mod table;

use std::process::ExitCode;

use carga_common::settings::telemetry_settings;
use carga_common::telemetry;
use clap::Parser;

use crate::arguments::{Arguments, Command};
use crate::output::printable;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("carga: cannot start the async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(start());
    // A blocking read of stdin may still be running; do not wait for it.
    runtime.shutdown_background();
    code
}

async fn start() -> ExitCode {
    let command = Arguments::parse().command.unwrap_or(Command::Serve);
    let (mut log, traces) = telemetry_settings();
    if !matches!(command, Command::Serve) && std::env::var_os("CARGA_LOG").is_none() {
        // A command prints its own result, so the log has only errors and retries.
        log.filter = "error,carga_common::retry=warn".to_owned();
    }
    let telemetry = telemetry::init(&log, &traces, "carga");
    let code = match commands::run(command, &telemetry.log_filter).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("carga: {}", printable(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    };
    telemetry.close().await;
    code
}
