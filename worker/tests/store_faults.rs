//! A panic in the store does not end the worker's loops, and a long removal of rows does not hold
//! them up.

mod fixture;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use anyhow::{Result, ensure};
use carga_common::upload::{Failure, Status, UploadId, UploadKey};

use self::fixture::Fixture;
use self::fixture::faulty_store::FaultyStore;

/// Makes an upload whose only message is no batch.
async fn publish_malformed(fixture: &Fixture) -> Result<UploadId> {
    let id = UploadId::generate();
    fixture.create(id).await?;
    fixture
        .publish_body(id, 1, "this is no JSON".to_owned())
        .await?;
    fixture.seal(id, 1).await?;
    Ok(id)
}

async fn expect_failed(fixture: &Fixture, id: UploadId, code: &str) -> Result<()> {
    let upload = fixture.wait_until_ended(id).await?;
    let is_failure = |failure: &Failure| failure.code == code;
    ensure!(
        upload.failure.as_ref().is_some_and(is_failure),
        "{upload:?}"
    );
    Ok(())
}

/// Fails unless the upload ends without its only batch.
async fn expect_dead(fixture: &Fixture, id: UploadId) -> Result<()> {
    let upload = fixture.wait_until_ended(id).await?;
    let is_dead = upload.status == Status::Partial && upload.batches_dead == 1;
    ensure!(is_dead, "{upload:?}");
    Ok(())
}

#[tokio::test]
async fn a_panic_while_leftovers_are_listed_does_not_end_the_sweeper() -> Result<()> {
    let settings = [("CARGA_SWEEP_MS", "250"), ("CARGA_LEASE_SECS", "1")];
    let mut fixture = Fixture::new(&settings).await?;
    fixture.backends.store = Arc::new(FaultyStore {
        leftovers_panics: AtomicU32::new(1),
        ..FaultyStore::around(&fixture.backends.store)
    });
    let worker = tokio::spawn(fixture.runner().run());
    let id = UploadId::generate();
    fixture.create(id).await?;
    expect_failed(&fixture, id, "interrupted").await?;
    fixture.stop.cancel();
    Ok(worker.await?)
}

#[tokio::test]
async fn dead_letters_are_still_moved_after_a_panic_while_one_was_stored() -> Result<()> {
    let mut fixture = Fixture::new(&[]).await?;
    fixture.backends.store = Arc::new(FaultyStore {
        park_panics: AtomicU32::new(1),
        ..FaultyStore::around(&fixture.backends.store)
    });
    let worker = tokio::spawn(fixture.runner().run());
    let id = publish_malformed(&fixture).await?;
    expect_dead(&fixture, id).await?;
    fixture.stop.cancel();
    Ok(worker.await?)
}

#[tokio::test]
async fn a_long_removal_of_rows_does_not_hold_up_the_next_dead_letter() -> Result<()> {
    let mut fixture = Fixture::new(&[]).await?;
    fixture.backends.store = Arc::new(FaultyStore {
        removals_hang: true,
        ..FaultyStore::around(&fixture.backends.store)
    });
    let worker = tokio::spawn(fixture.runner().run());
    let failed = UploadId::generate();
    fixture.create(failed).await?;
    let failure = Failure::new("interrupted", "for this test");
    let key = UploadKey::first(failed);
    ensure!(fixture.backends.store.fail(key, &failure, None).await?);
    for _ in 0..2 {
        let id = publish_malformed(&fixture).await?;
        expect_dead(&fixture, id).await?;
    }
    fixture.stop.cancel();
    Ok(worker.await?)
}
