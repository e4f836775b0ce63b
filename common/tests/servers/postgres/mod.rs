//! Promises of the store on Postgres.

mod audit;
mod errors;
mod events;
mod fence;
mod merging;
mod server;
mod sessions;
mod slots;
mod staging;
mod tenants;
mod user_tables;
mod validation;
mod violations;
mod worker_role;
mod written_rows;

use anyhow::Result;
use carga_common::dataset::DatasetKey;
use carga_common::rejects::RejectedRow;
use carga_common::settings::SecretUrl;
use carga_common::store::{NewUpload, PostgresSettings, PostgresStore, RejectStore};
use carga_common::upload::{Dialect, UploadId};

fn settings(url: &str) -> PostgresSettings {
    PostgresSettings {
        url: SecretUrl::new(url.to_owned()),
        program: "servers".to_owned(),
        connections: 2,
        migrate: true,
        allow_unknown: false,
    }
}

async fn connect(url: &str) -> Result<PostgresStore> {
    Ok(PostgresStore::connect(settings(url)).await?)
}

/// A dataset of the tenant `default`.
fn dataset_key(name: &str) -> Result<DatasetKey> {
    Ok(DatasetKey::new(Default::default(), name.parse()?))
}

/// All rejected rows of an upload.
async fn rejected(store: &PostgresStore, id: UploadId) -> Result<Vec<RejectedRow>> {
    let mut rejected: Vec<RejectedRow> = Vec::new();
    loop {
        let after = rejected.last().map_or(0, |row| row.row);
        let page = store.rejected_page(id, after).await?;
        if page.is_empty() {
            return Ok(rejected);
        }
        rejected.extend(page);
    }
}

/// Pseudo-random numbers below a limit, the same in each run.
fn random(seed: &mut u64, limit: u64) -> u64 {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % limit
}

fn new_upload() -> NewUpload {
    NewUpload {
        id: UploadId::generate(),
        tenant: Default::default(),
        created_by: None,
        filename: None,
        dialect: Dialect::rfc4180(false),
        columns: vec!["a".to_owned()],
        dataset: None,
        bytes_total: None,
    }
}
