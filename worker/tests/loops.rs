//! A panic ends one step of a worker's loop, and a silent server holds up one step. The loops go
//! on.

mod fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, ensure};
use async_trait::async_trait;
use carga_common::error::PortResult;
use carga_common::live_progress::LiveProgress;
use carga_common::progress::{Counters, Presence, ProgressStore, Snapshot, StoredBatch};
use carga_common::upload::{Status, UploadId, UploadKey};

use self::fixture::faulty_store::FaultyStore;
use self::fixture::{Fault, FaultyArchive, Fixture, TIMEOUT, take_one};

/// Passes every call to `inner`, but panics when batches are counted, until `panics_left` is zero.
#[derive(Debug)]
struct PanickingProgress {
    inner: Arc<dyn ProgressStore>,
    panics_left: AtomicU32,
}

#[async_trait]
impl ProgressStore for PanickingProgress {
    async fn received(&self, upload: UploadKey, rows: u64, bytes: u64) -> PortResult<Presence> {
        self.inner.received(upload, rows, bytes).await
    }

    async fn stored(&self, upload: UploadKey, batches: &[StoredBatch]) -> PortResult<Presence> {
        assert!(!take_one(&self.panics_left), "the counters are broken");
        self.inner.stored(upload, batches).await
    }

    async fn restore(&self, upload: UploadKey, snapshot: &Snapshot) -> PortResult<()> {
        self.inner.restore(upload, snapshot).await
    }

    async fn read(&self, upload: UploadKey) -> PortResult<Option<Counters>> {
        self.inner.read(upload).await
    }

    async fn ping(&self) -> PortResult<()> {
        self.inner.ping().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[tokio::test]
async fn a_panic_while_batches_are_counted_does_not_end_the_storing() -> Result<()> {
    let mut fixture = Fixture::new(&[("CARGA_STORE_SESSIONS", "1")]).await?;
    let progress = PanickingProgress {
        inner: Arc::clone(&fixture.backends.progress_store),
        panics_left: AtomicU32::new(1),
    };
    let store = Arc::clone(&fixture.backends.store);
    fixture.backends.progress = Arc::new(LiveProgress::new(Arc::new(progress), store));
    let worker = tokio::spawn(fixture.runner().run());
    // The sweeper would complete the first upload even if nothing could be stored any more.
    for _ in 0..2 {
        let id = UploadId::generate();
        fixture.create(id).await?;
        fixture.publish(id, 1).await?;
        fixture.seal(id, 1).await?;
        let upload = fixture.wait_until_ended(id).await?;
        ensure!(upload.status == Status::Completed, "{upload:?}");
        ensure!(upload.rows_inserted == Some(1), "{upload:?}");
    }
    fixture.stop.cancel();
    Ok(worker.await?)
}

#[tokio::test]
async fn a_panic_in_a_completion_does_not_end_the_sweeper() -> Result<()> {
    let mut fixture = Fixture::new(&[("CARGA_SWEEP_MS", "250")]).await?;
    FaultyArchive::install(&mut fixture, "manifest.json", Fault::Panic, 1);
    let worker = tokio::spawn(fixture.runner().run());
    // Only the sweeper completes an upload without batches.
    let id = UploadId::generate();
    fixture.create(id).await?;
    fixture.seal(id, 0).await?;
    let upload = fixture.wait_until_ended(id).await?;
    ensure!(upload.status == Status::Completed, "{upload:?}");
    fixture.stop.cancel();
    Ok(worker.await?)
}

#[tokio::test]
async fn an_expired_upload_ends_while_the_archive_does_not_answer() -> Result<()> {
    let settings = [("CARGA_SWEEP_MS", "250"), ("CARGA_LEASE_SECS", "1")];
    let mut fixture = Fixture::new(&settings).await?;
    let archive = FaultyArchive::install(&mut fixture, "manifest.json", Fault::Hang, 1);
    let worker = tokio::spawn(fixture.runner().run());
    let sealed = UploadId::generate();
    fixture.create(sealed).await?;
    fixture.seal(sealed, 0).await?;
    let hangs = async || archive.faults_left.load(Ordering::Relaxed) == 0;
    carga_testkit::eventually(TIMEOUT, "the completion to hang", hangs).await?;

    let expired = UploadId::generate();
    fixture.create(expired).await?;
    let upload = fixture.wait_until_ended(expired).await?;
    ensure!(upload.status == Status::Failed, "{upload:?}");
    fixture.stop.cancel();
    Ok(worker.await?)
}

#[tokio::test]
async fn a_worker_forgets_the_keys_of_old_requests_and_the_usage_of_old_days() -> Result<()> {
    let mut fixture = Fixture::new(&[]).await?;
    let store = Arc::new(FaultyStore::around(&fixture.backends.store));
    fixture.backends.store = Arc::<FaultyStore>::clone(&store);
    let worker = tokio::spawn(fixture.runner().run());
    let is_counted = |calls: &AtomicU32| calls.load(Ordering::Relaxed) > 0;
    let has_forgotten =
        async || is_counted(&store.requests_forgotten) && is_counted(&store.usage_forgotten);
    carga_testkit::eventually(TIMEOUT, "the worker to forget both", has_forgotten).await?;
    fixture.stop.cancel();
    Ok(worker.await?)
}
