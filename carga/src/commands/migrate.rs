//! `carga migrate`.

use std::process::ExitCode;

use carga_common::backends;
use carga_common::settings::Settings;

use crate::instance::lock;
use crate::output::print;

pub(crate) async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let _data_dir = lock(&settings.ports, "carga migrate").await?;
    let store = backends::store(&settings.ports, "carga", true).await;
    let store = store.map_err(|error| anyhow::anyhow!(error.chain()))?;
    store.close().await;
    let message = format!(
        "the schema of {} is up to date\n",
        settings.ports.locations.store
    );
    print(message.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
