//! A batch that cannot be stored now, but perhaps later, is postponed.

mod fixture;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use carga_common::batch::TYPED_MESSAGE_VERSION;
use carga_common::upload::{Status, UploadId};

use self::fixture::faulty_store::FaultyStore;
use self::fixture::{Fixture, TIMEOUT};

async fn wait_until_postponed(fixture: &Fixture) -> Result<()> {
    carga_testkit::eventually(TIMEOUT, "the batch to be postponed", async || {
        let depth = fixture.backends.queue.depth().await;
        depth.is_ok_and(|depth| depth.retrying == 1)
    })
    .await
}

#[tokio::test]
async fn a_batch_whose_upload_is_missing_is_stored_when_the_upload_appears() -> Result<()> {
    let fixture = Fixture::new(&[]).await?;
    let worker = tokio::spawn(fixture.runner().run());
    let id = UploadId::generate();
    fixture.publish(id, 1).await?;
    wait_until_postponed(&fixture).await?;

    fixture.create(id).await?;
    fixture.seal(id, 1).await?;
    let upload = fixture.wait_until_ended(id).await?;
    ensure!(upload.status == Status::Completed, "{upload:?}");
    ensure!(upload.rows_inserted == Some(1), "{upload:?}");
    fixture.stop.cancel();
    Ok(worker.await?)
}

#[tokio::test]
async fn a_batch_whose_upload_has_an_unknown_status_is_stored_later() -> Result<()> {
    let mut fixture = Fixture::new(&[]).await?;
    let store = FaultyStore::around(&fixture.backends.store);
    store.unknown_statuses.store(1, Ordering::Relaxed);
    fixture.backends.store = Arc::new(store);
    let worker = tokio::spawn(fixture.runner().run());
    let id = UploadId::generate();
    fixture.create(id).await?;
    fixture.publish(id, 1).await?;
    wait_until_postponed(&fixture).await?;

    fixture.seal(id, 1).await?;
    let upload = fixture.wait_until_ended(id).await?;
    ensure!(upload.status == Status::Completed, "{upload:?}");
    ensure!(upload.batches_dead == 0, "{upload:?}");
    fixture.stop.cancel();
    Ok(worker.await?)
}

#[tokio::test]
async fn a_message_of_a_newer_version_does_not_fail_its_upload() -> Result<()> {
    let fixture = Fixture::new(&[]).await?;
    let worker = tokio::spawn(fixture.runner().run());
    let id = UploadId::generate();
    fixture.create(id).await?;
    let newer = TYPED_MESSAGE_VERSION + 1;
    fixture.publish_version(id, 1, newer).await?;
    wait_until_postponed(&fixture).await?;

    let upload = fixture.backends.store.upload(id).await?;
    let upload = upload.context("the upload is missing")?;
    ensure!(upload.status == Status::Receiving, "{upload:?}");
    ensure!(upload.batches_dead == 0, "{upload:?}");
    fixture.stop.cancel();
    Ok(worker.await?)
}
