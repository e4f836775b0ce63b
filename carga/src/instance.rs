//! The start of Carga in this process: it locks the data directory, connects the ports and
//! ends the uploads that the previous process left open.

use std::path::Path;

use anyhow::Context;
use carga_common::backends::{Access, Backends};
use carga_common::error::{ErrorKind, PortResult};
use carga_common::lifecycle;
use carga_common::settings::{PortSettings, Settings, StoreLocation};
use carga_common::store::{Store, UploadQuery};
use carga_common::upload::{Failure, Status};

use crate::data_dir::{DataDir, Entry};

/// Connected backends, and the lock on the data directory.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) settings: Settings,
    pub(crate) backends: Backends,
    /// None when no port keeps its data in the data directory.
    pub(crate) data_dir: Option<DataDir>,
}

impl Instance {
    /// Locks the data directory, connects, and ends interrupted uploads. The lock file names
    /// `holder` to other processes.
    pub(crate) async fn start(settings: Settings, holder: &str) -> anyhow::Result<Self> {
        let data_dir = lock(&settings.ports, holder).await?;
        let access = match data_dir {
            Some(_) => Access::Exclusive,
            None => Access::Shared,
        };
        let backends = Backends::connect(&settings.ports, "carga", access)
            .await
            .map_err(|error| anyhow::anyhow!(error.chain()))
            .context("connecting to the backends")?;
        if store_is_in_data_dir(&settings.ports) {
            match end_interrupted(backends.store.as_ref()).await {
                // The sweeper ends them once the disk has room to record it.
                Err(error) if error.kind() == ErrorKind::Full => {
                    tracing::warn!(error = error.chain(), "no room to end interrupted uploads");
                }
                ended => ended?,
            }
        }
        Ok(Self {
            settings,
            backends,
            data_dir,
        })
    }
}

/// Locks the data directory, if any port keeps its data there.
pub(crate) async fn lock(ports: &PortSettings, holder: &str) -> anyhow::Result<Option<DataDir>> {
    match ports.locations.data_dir.as_deref() {
        Some(path) => Ok(Some(DataDir::lock(path, holder).await?)),
        None => Ok(None),
    }
}

/// The way for a command to change the store: through the `carga serve` that uses the data
/// directory, or with the lock of this directory. `None` if the store is not in the data directory,
/// so that several processes may change it.
pub(crate) async fn enter(ports: &PortSettings, holder: &str) -> anyhow::Result<Option<Entry>> {
    match directory_of_store(ports) {
        Some(path) => Ok(Some(Entry::open(path, holder).await?)),
        None => Ok(None),
    }
}

/// Whether the store is in the locked directory, so that only this process receives uploads.
fn store_is_in_data_dir(ports: &PortSettings) -> bool {
    match &ports.locations.store {
        StoreLocation::Sqlite(file) => ports.locations.is_in_data_dir(file),
        StoreLocation::Postgres(_) => false,
    }
}

/// The data directory, if the store is in it. One process at a time may then change the store.
fn directory_of_store(ports: &PortSettings) -> Option<&Path> {
    match store_is_in_data_dir(ports) {
        true => ports.locations.data_dir.as_deref(),
        false => None,
    }
}

/// Ends the uploads that the previous process was receiving when it died. It ignores their
/// leases: waiting for them takes time, and a clock that was set back would keep them valid.
/// The sweeper removes their rows.
async fn end_interrupted(store: &dyn Store) -> PortResult<()> {
    let message = "Carga stopped while it was receiving the file; send the file again";
    let failure = Failure::new("interrupted", message);
    let receiving = UploadQuery {
        // Of all tenants.
        tenant: None,
        created_by: None,
        status: Some(Status::Receiving),
        dataset: None,
        limit: 100,
        before: None,
    };
    loop {
        let found = store.uploads(&receiving).await?;
        if found.is_empty() {
            return Ok(());
        }
        for upload in found {
            lifecycle::fail(store, upload.key(), &failure).await?;
            tracing::info!(
                upload.public_id = %upload.public_id,
                upload.id = %upload.id,
                "ended an interrupted upload"
            );
        }
    }
}
