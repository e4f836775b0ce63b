//! What `carga` can be told to do: one file each.

pub(crate) mod config;
pub(crate) mod exports;
pub(crate) mod import;
mod input;
pub(crate) mod migrate;
pub(crate) mod preview;
pub(crate) mod reverse;
pub(crate) mod serve;
pub(crate) mod status;

use std::sync::Arc;

use anyhow::{Context, bail};
use carga_common::backends;
use carga_common::settings::{Settings, StoreLocation};
use carga_common::store::{Store, UploadQuery};
use carga_common::upload::{Status, Upload};

use crate::arguments::UploadRef;

/// The store, to look into: another process may be using it meanwhile.
async fn store_to_read(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    if let StoreLocation::Sqlite(file) = &settings.ports.locations.store
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

/// The upload that is meant; the last of those with one of some statuses, if any are given.
async fn find(store: &dyn Store, which: UploadRef, statuses: &[Status]) -> anyhow::Result<Upload> {
    if let UploadRef::Id(id) = which {
        let found = store.upload(id).await?;
        return found.with_context(|| format!("there is no upload {id}"));
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
            status: *status,
            limit: 1,
            before: None,
        };
        let found = store.uploads(&query).await?.pop();
        latest = latest
            .into_iter()
            .chain(found)
            .max_by_key(|upload| upload.created_at);
    }
    latest.context("there is no such upload yet")
}
