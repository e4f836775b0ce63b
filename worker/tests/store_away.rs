//! A worker returns its batches to the queue while it cannot reach the store, or while their upload
//! is locked for long.

mod fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::upload::{Status, UploadId};

use self::fixture::faulty_store::FaultyStore;
use self::fixture::{Fixture, TIMEOUT};

#[tokio::test]
async fn a_worker_that_cannot_reach_the_store_leaves_its_batches_to_other_workers() -> Result<()> {
    let settings = [("CARGA_SWEEP_MS", "250"), ("CARGA_LOST_SECS", "8")];
    let mut fixture = Fixture::new(&settings).await?;
    let store = Arc::new(FaultyStore {
        is_away: AtomicBool::new(true),
        ..FaultyStore::around(&fixture.backends.store)
    });
    let id = UploadId::generate();
    fixture.create(id).await?;
    fixture.publish(id, 1).await?;
    fixture.seal(id, 1).await?;
    fixture.backends.store = Arc::<FaultyStore>::clone(&store);
    let worker = tokio::spawn(fixture.runner().run());
    let queue = &fixture.backends.queue;
    let ready = async || queue.depth().await.ok().map(|depth| depth.ready);
    let is_taken = async || ready().await == Some(0);
    carga_testkit::eventually(TIMEOUT, "the worker to take the batch", is_taken).await?;
    let is_released = async || ready().await == Some(1);
    let within = Duration::from_secs(20);
    carga_testkit::eventually(within, "the worker to release the batch", is_released).await?;

    store.is_away.store(false, Ordering::Relaxed);
    let upload = fixture.wait_until_ended(id).await?;
    ensure!(upload.status == Status::Completed, "{upload:?}");
    fixture.stop.cancel();
    Ok(worker.await?)
}

/// Starts a worker whose store has a locked upload with eight batches.
async fn lock_eight_batches(fixture: &mut Fixture) -> Result<(UploadId, Arc<FaultyStore>)> {
    let locked = UploadId::generate();
    fixture.create(locked).await?;
    for seq in 1..=8 {
        fixture.publish(locked, seq).await?;
    }
    let store = Arc::new(FaultyStore {
        is_locked: AtomicBool::new(true),
        lockable: Some(locked),
        ..FaultyStore::around(&fixture.backends.store)
    });
    fixture.backends.store = Arc::<FaultyStore>::clone(&store);
    Ok((locked, store))
}

#[tokio::test]
async fn locked_batches_are_stored_by_the_storing_sessions_alone() -> Result<()> {
    let settings = [
        ("CARGA_STORE_SESSIONS", "1"),
        ("CARGA_GROUP_BATCHES", "1"),
        ("CARGA_PREFETCH", "32"),
    ];
    let mut fixture = Fixture::new(&settings).await?;
    let (locked, store) = lock_eight_batches(&mut fixture).await?;
    let worker = tokio::spawn(fixture.runner().run());
    tokio::time::sleep(Duration::from_secs(3)).await;
    store.is_locked.store(false, Ordering::Relaxed);
    fixture.seal(locked, 8).await?;
    let upload = fixture.wait_until_ended(locked).await?;
    ensure!(upload.status == Status::Completed, "{upload:?}");
    let most = store.most_locked_calls.load(Ordering::Relaxed);
    ensure!(most == 1, "{most} transactions of one session");
    fixture.stop.cancel();
    Ok(worker.await?)
}

#[tokio::test]
async fn an_upload_that_is_locked_for_long_leaves_room_for_others() -> Result<()> {
    let mut fixture = Fixture::new(&[("CARGA_PREFETCH", "8")]).await?;
    let (locked, store) = lock_eight_batches(&mut fixture).await?;
    let worker = tokio::spawn(fixture.runner().run());
    let is_taken = async || {
        let depth = fixture.backends.queue.depth().await;
        depth.is_ok_and(|depth| depth.ready == 0)
    };
    carga_testkit::eventually(TIMEOUT, "the worker to take the batches", is_taken).await?;
    let other = UploadId::generate();
    fixture.create(other).await?;
    fixture.publish(other, 1).await?;
    fixture.seal(other, 1).await?;
    let upload = fixture.wait_until_ended(other).await?;
    ensure!(upload.status == Status::Completed, "{upload:?}");

    store.is_locked.store(false, Ordering::Relaxed);
    fixture.seal(locked, 8).await?;
    let upload = fixture.wait_until_ended(locked).await?;
    ensure!(upload.status == Status::Completed, "{upload:?}");
    ensure!(upload.batches_dead == 0, "{upload:?}");
    fixture.stop.cancel();
    Ok(worker.await?)
}
