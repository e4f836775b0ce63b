//! The subcommands of `carga`, one file each.

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

/// Connects to the store without locking the data directory, because a running server may use
/// it at the same time.
async fn store_to_read(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    if let StoreLocation::Sqlite(file) = &settings.ports.locations.store
        && !file.exists()
    {
        bail!(
            "nothing has been imported yet: {} does not exist",
            file.display()
        );
    }
    let store = backends::store(&settings.ports, "carga", false).await;
    store
        .map_err(|error| anyhow::anyhow!(error.chain()))
        .context("connecting to the store")
}

/// The upload with the given id. For `last`, the latest upload, or the latest with one of
/// `statuses` if there are any.
async fn find(store: &dyn Store, which: UploadRef, statuses: &[Status]) -> anyhow::Result<Upload> {
    if let UploadRef::Id(id) = which {
        let found = store.upload(id).await?;
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
    latest.context("no upload matches `last` yet")
}
