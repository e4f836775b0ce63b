//! The slots of a tenant for uploads.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_common::dataset::Definition;
use carga_common::store::{
    CreateConditions, DatasetStore, NewUpload, PostgresStore, UploadSlots, UploadStore,
};
use carga_common::upload::{RejectLimit, UploadDataset};
use carga_testkit::{Scope, eventually};
use sqlx::Connection;

use super::{connect, dataset_key, new_upload};

const COLUMNS: &[u8] = br#"{ "columns": [{ "name": "sku", "type": "text" }] }"#;

/// Longer than a creation that waits for nothing takes, and shorter than the time limit of one that
/// waits.
const DEADLINE: Duration = Duration::from_secs(5);

/// How many creations wait for a lock.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'servers' AND wait_event_type = 'Lock'";

async fn create(store: &PostgresStore, upload: &NewUpload) -> Result<bool> {
    let conditions = CreateConditions {
        slots: Some(UploadSlots {
            most: 10,
            lease: Duration::from_secs(60),
        }),
        ..CreateConditions::default()
    };
    let creation = store.create_if(upload, conditions).await?;
    Ok(creation.upload().is_some())
}

/// An upload into the dataset `sales`.
fn into_sales() -> Result<NewUpload> {
    let dataset = UploadDataset {
        name: "sales".parse()?,
        tenant: Default::default(),
        columns: Definition::from_json(COLUMNS)?.typed_columns(),
        missing: Vec::new(),
        ignored: Vec::new(),
        sources: vec![Some(0)],
        reject_limit: RejectLimit::default(),
        merge: None,
        table: None,
    };
    Ok(NewUpload {
        dataset: Some(dataset),
        ..new_upload()
    })
}

#[tokio::test]
async fn an_upload_that_waits_for_a_change_of_its_dataset_holds_up_no_other_upload() -> Result<()> {
    let scope = Scope::new().await?;
    let store = connect(scope.database_url()).await?;
    let definition = Definition::from_json(COLUMNS)?;
    store
        .put_dataset(&dataset_key("sales")?, &definition)
        .await?;
    let pool = scope.pool();
    let mut connection = pool.acquire().await?;
    let mut change = connection.begin().await?;
    sqlx::query("SELECT 1 FROM datasets FOR UPDATE")
        .execute(&mut *change)
        .await?;
    let (waiting, upload) = (store.clone(), into_sales()?);
    let waiting = tokio::spawn(async move { create(&waiting, &upload).await });
    eventually(DEADLINE, "the creation to wait", async || {
        let waiting = sqlx::query_scalar::<_, i64>(WAITING).fetch_one(&pool).await;
        waiting.is_ok_and(|waiting| waiting == 1)
    })
    .await?;
    let upload = new_upload();
    let other = create(&store, &upload);
    let other = tokio::time::timeout(DEADLINE, other).await;
    ensure!(other.context("the other upload waits, too")??);
    change.commit().await?;
    ensure!(waiting.await??);
    scope.close().await
}
