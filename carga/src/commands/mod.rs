//! The subcommands of `carga`, one file each. All but `keys` and `dead-letters` act for the tenant
//! `default`.

mod config;
mod datasets;
mod dead_letters;
mod exports;
mod import;
mod input;
mod keys;
mod migrate;
mod preview;
mod reverse;
mod serve;
mod server;
mod status;
mod suggest;
mod validate;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use carga_common::audit::{Actor, acting_as};
use carga_common::backends;
use carga_common::healthcheck;
use carga_common::lifecycle::Reversal;
use carga_common::settings::{Mode, PortSettings, Settings, StoreLocation};
use carga_common::store::{Store, UploadQuery};
use carga_common::telemetry::LogFilter;
use carga_common::tenant::Tenant;
use carga_common::upload::{Status, Upload};
use carga_intake::csv::rejected_rows::Formulas;

use crate::arguments::{Command, UploadRef};
use crate::data_dir::Entry;
use crate::instance;
use crate::output::print;

/// Runs one command, and returns the exit code of the program.
pub(crate) async fn run(command: Command, log_filter: &LogFilter) -> anyhow::Result<ExitCode> {
    let settings = Settings::from_env(Mode::Embedded)?;
    if let Command::Serve = command {
        return serve::run(settings, log_filter).await;
    }
    acting_as(Actor::command_line(), run_once(settings, command)).await
}

/// Runs a command that ends by itself.
async fn run_once(settings: Settings, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve => bail!("the server does not end by itself"),
        Command::Import { files, options } => {
            import::run(settings, &files, options.by_name()).await
        }
        Command::Preview {
            file,
            json,
            options,
        } => preview::run(&settings, &file, &options.by_name(), json).await,
        Command::Validate {
            file,
            format,
            options,
        } => validate::run(&settings, &file, &options.by_name(), format).await,
        Command::Status { id } => status::run(&settings, id).await,
        Command::Rows { id, format, limit } => exports::rows(&settings, id, format, limit).await,
        Command::Rejected {
            id,
            format,
            spreadsheet_safe,
        } => {
            let formulas = match spreadsheet_safe {
                true => Formulas::Escape,
                false => Formulas::Keep,
            };
            exports::rejected(&settings, id, format, formulas).await
        }
        Command::Cancel { id } => reverse::run(&settings, id, Reversal::Cancel).await,
        Command::Undo { id } => reverse::run(&settings, id, Reversal::Undo).await,
        Command::Dataset(command) => datasets::run(&settings, command).await,
        Command::DeadLetters(command) => dead_letters::run(&settings, command).await,
        Command::Keys(command) => keys::run(&settings, command).await,
        Command::Healthcheck => {
            healthcheck::check(&settings.intake).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Migrate => migrate::run(settings).await,
        Command::Config => config::run(&settings),
        Command::Openapi => openapi(),
    }
}

/// `carga openapi`: the OpenAPI document.
fn openapi() -> anyhow::Result<ExitCode> {
    print(carga_api::openapi::DOCUMENT.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Connects to the store without locking the data directory, because a running server may use
/// it at the same time.
async fn store_to_read(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    if !has_store(settings) {
        bail!(
            "nothing has been imported yet: {} does not exist",
            settings.ports.locations.store
        );
    }
    connect(&settings.ports, false).await
}

/// Opens the store to change it. If no server uses the data directory, this process locks the
/// directory as `holder`, and brings the schema up to date. A server has done both.
async fn store_to_change(
    settings: &Settings,
    holder: &str,
) -> anyhow::Result<(Arc<dyn Store>, Option<Entry>)> {
    let ports = &settings.ports;
    let entry = instance::enter(ports, holder).await;
    let entry = entry.context("cannot change the store")?;
    let is_served = matches!(entry, Some(Entry::Server(_)));
    let store = connect(ports, ports.migrate && !is_served).await?;
    Ok((store, entry))
}

/// Whether there is a store. The file of SQLite is missing until something is stored.
fn has_store(settings: &Settings) -> bool {
    match &settings.ports.locations.store {
        StoreLocation::Sqlite(file) => file.exists(),
        StoreLocation::Postgres(_) => true,
    }
}

/// Connects to the store, and brings its schema up to date if `migrate` is set.
async fn connect(ports: &PortSettings, migrate: bool) -> anyhow::Result<Arc<dyn Store>> {
    let store = backends::store(ports, "carga", migrate).await;
    store
        .map_err(|error| anyhow::anyhow!(error.chain()))
        .context("cannot connect to the store")
}

/// Finds an upload by its public id. `last` is the latest upload whose status is in `statuses`; an
/// empty slice allows every status.
async fn find(store: &dyn Store, which: UploadRef, statuses: &[Status]) -> anyhow::Result<Upload> {
    if let UploadRef::Id(id) = which {
        let found = store.upload_of(&Tenant::default(), id).await?;
        return found.with_context(|| format!("upload {id} does not exist"));
    }
    let any = [None];
    let statuses: Vec<Option<Status>> = statuses.iter().copied().map(Some).collect();
    let mut latest: Option<Upload> = None;
    for status in if statuses.is_empty() {
        &any[..]
    } else {
        &statuses
    } {
        let query = UploadQuery {
            tenant: Some(Tenant::default()),
            created_by: None,
            status: *status,
            dataset: None,
            limit: 1,
            before: None,
        };
        let found = store.uploads(&query).await?.pop();
        latest = latest
            .into_iter()
            .chain(found)
            .max_by_key(|upload| upload.created_at);
    }
    latest.context("there is no upload for `last` yet; import a file first")
}
