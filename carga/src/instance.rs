//! Carga in this process: its data directory, its ports, and the end of whatever its last life left open.

use anyhow::Context;
use carga_common::backends::{Access, Backends};
use carga_common::error::{ErrorKind, PortResult};
use carga_common::settings::{PortSettings, Settings, StoreLocation};
use carga_common::store::{Store, UploadQuery};
use carga_common::upload::{Failure, Status};

use crate::data_dir::DataDir;

/// Connected, and alone in its data directory.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) settings: Settings,
    pub(crate) backends: Backends,
    /// None when every port has a place of its own.
    pub(crate) data_dir: Option<DataDir>,
}

impl Instance {
    /// Locks, connects, and recovers. `user` is what the lock tells others.
    pub(crate) async fn start(settings: Settings, user: &str) -> anyhow::Result<Self> {
        let data_dir = lock(&settings.ports, user)?;
        let access = match data_dir {
            Some(_) => Access::Exclusive,
            None => Access::Shared,
        };
        let backends = Backends::connect(&settings.ports, "carga", access)
            .await
            .map_err(|error| anyhow::anyhow!(error.chain()))
            .context("connecting")?;
        if store_is_ours(&settings.ports) {
            match end_interrupted(backends.store.as_ref()).await {
                // The sweeper ends them as soon as there is room to write it down.
                Err(error) if error.kind() == ErrorKind::Full => {
                    tracing::warn!(error = error.chain(), "interrupted uploads were not ended");
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

/// Locks the data directory, if anything is in it.
pub(crate) fn lock(ports: &PortSettings, user: &str) -> anyhow::Result<Option<DataDir>> {
    let path = ports.locations.data_dir.as_deref();
    path.map(|path| DataDir::lock(path, user)).transpose()
}

/// The store is in the locked directory, so nobody else receives uploads into it.
fn store_is_ours(ports: &PortSettings) -> bool {
    match &ports.locations.store {
        StoreLocation::Sqlite(file) => ports.locations.is_in_data_dir(file),
        StoreLocation::Postgres(_) => false,
    }
}

/// Ends the uploads that a process was receiving when it died: their leases need not run out first, and a clock that was set
/// back does not hide them. Their rows are for the sweeper.
async fn end_interrupted(store: &dyn Store) -> PortResult<()> {
    let message = "Carga was stopped in the middle of receiving the file; send it again";
    let failure = Failure::new("interrupted", message);
    let receiving = UploadQuery {
        status: Some(Status::Receiving),
        limit: 100,
        before: None,
    };
    loop {
        let found = store.uploads(&receiving).await?;
        if found.is_empty() {
            return Ok(());
        }
        for upload in found {
            store.fail(upload.key(), &failure, None).await?;
            tracing::info!(upload.id = %upload.id, "ended an upload that was interrupted");
        }
    }
}
