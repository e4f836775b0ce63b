//! What `carga` can be told to do: one file each.

pub(crate) mod config;
pub(crate) mod import;
pub(crate) mod migrate;
pub(crate) mod rows;
pub(crate) mod serve;
pub(crate) mod status;

use std::sync::Arc;

use anyhow::{Context, bail};
use carga_common::backends;
use carga_common::settings::{Settings, StorePlace};
use carga_common::store::{Store, UploadQuery};
use carga_common::upload::{Status, Upload};

use crate::arguments::Which;

/// The store, to look into: another process may be using it meanwhile.
async fn store_to_read(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    if let StorePlace::Sqlite(file) = &settings.ports.places.store
        && !file.exists()
    {
        bail!(
            "nothing has been imported yet: there is no {}",
            file.display()
        );
    }
    let store = backends::store(&settings.ports, "carga", false).await;
    store
        .map_err(|error| anyhow::anyhow!(error.chain()))
        .context("connecting")
}

/// The upload that is meant; the last of those with a status, if one is given.
async fn find(store: &dyn Store, which: Which, status: Option<Status>) -> anyhow::Result<Upload> {
    match which {
        Which::Id(id) => {
            let found = store.upload(id).await?;
            found.with_context(|| format!("there is no upload {id}"))
        }
        Which::Last => {
            let query = UploadQuery {
                status,
                limit: 1,
                before: None,
            };
            let found = store.uploads(&query).await?.pop();
            found.context("there is no such upload yet")
        }
    }
}
