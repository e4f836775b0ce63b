//! `carga`: API and worker in one process, on local files unless the settings name servers.

mod arguments;
mod commands;
mod data_dir;
mod instance;
mod meter;
mod output;

use std::process::ExitCode;

use carga_common::lifecycle::Reversal;
use carga_common::settings::{Mode, Settings, log_settings};
use carga_common::{healthcheck, telemetry};
use carga_intake::csv::rejected_rows::Formulas;
use clap::Parser;

use crate::arguments::{Arguments, Command};

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
    let mut log = log_settings();
    if !matches!(command, Command::Serve) && std::env::var_os("CARGA_LOG").is_none() {
        // A command prints its own result, so the log has only errors and retries.
        log.filter = "error,carga_common::retry=warn".to_owned();
    }
    telemetry::init(&log);
    match run(command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("carga: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    let settings = Settings::from_env(Mode::Embedded)?;
    match command {
        Command::Serve => commands::serve::run(settings).await,
        Command::Import { files, options } => {
            commands::import::run(settings, &files, options.by_name()).await
        }
        Command::Preview { file, options } => {
            commands::preview::run(&settings, &file, &options.by_name()).await
        }
        Command::Status { id } => commands::status::run(&settings, id).await,
        Command::Rows { id, format, limit } => {
            commands::exports::rows(&settings, id, format, limit).await
        }
        Command::Rejected {
            id,
            format,
            spreadsheet_safe,
        } => {
            let formulas = match spreadsheet_safe {
                true => Formulas::Escape,
                false => Formulas::Keep,
            };
            commands::exports::rejected(&settings, id, format, formulas).await
        }
        Command::Cancel { id } => commands::reverse::run(&settings, id, Reversal::Cancel).await,
        Command::Undo { id } => commands::reverse::run(&settings, id, Reversal::Undo).await,
        Command::Healthcheck => {
            healthcheck::check(settings.intake.listen).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Migrate => commands::migrate::run(settings).await,
        Command::Config => commands::config::run(&settings),
    }
}
