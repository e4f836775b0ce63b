//! Promises of the store on Postgres.

mod errors;
mod fence;
mod merging;
mod sessions;
mod staging;
mod user_tables;
mod validation;
mod violations;
mod written_rows;

use anyhow::Result;
use carga_common::settings::SecretUrl;
use carga_common::store::{NewUpload, PostgresSettings, PostgresStore};
use carga_common::upload::{Dialect, UploadId};

fn settings(url: &str) -> PostgresSettings {
    PostgresSettings {
        url: SecretUrl::new(url.to_owned()),
        program: "servers".to_owned(),
        connections: 2,
        migrate: true,
    }
}

async fn connect(url: &str) -> Result<PostgresStore> {
    Ok(PostgresStore::connect(settings(url)).await?)
}

fn new_upload() -> NewUpload {
    NewUpload {
        id: UploadId::generate(),
        filename: None,
        dialect: Dialect::rfc4180(false),
        columns: vec!["a".to_owned()],
        dataset: None,
        bytes_total: None,
    }
}
