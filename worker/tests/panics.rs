//! A panic counts as one failed attempt of one batch. The tests use the embedded adapters, with an
//! archive that panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use carga_common::archive::{ArchiveKey, BatchArchive};
use carga_common::backends::{Access, Backends};
use carga_common::batch::{BatchEncoder, BatchLimits};
use carga_common::error::PortResult;
use carga_common::settings::{Mode, Settings};
use carga_common::store::{NewUpload, Seal};
use carga_common::upload::{Dialect, Status, Upload, UploadId};
use carga_worker::runner::Runner;
use tokio_util::sync::CancellationToken;

/// Passes every call to `inner`, but panics when the second batch is written, until `panics_left`
/// is zero.
#[derive(Debug)]
struct PanickingArchive {
    inner: Arc<dyn BatchArchive>,
    panics_left: AtomicU32,
}

#[async_trait]
impl BatchArchive for PanickingArchive {
    async fn put(&self, key: &ArchiveKey, body: Bytes) -> PortResult<()> {
        let decrement = |panics_left: u32| panics_left.checked_sub(1);
        let panics = key.as_str().ends_with("batch-000002.json")
            && self
                .panics_left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, decrement)
                .is_ok();
        assert!(!panics, "the archive is broken");
        self.inner.put(key, body).await
    }

    async fn get(&self, key: &ArchiveKey) -> PortResult<Bytes> {
        self.inner.get(key).await
    }

    async fn delete(&self, key: &ArchiveKey) -> PortResult<()> {
        self.inner.delete(key).await
    }

    async fn delete_upload(&self, upload: UploadId) -> PortResult<u64> {
        self.inner.delete_upload(upload).await
    }

    async fn ping(&self) -> PortResult<()> {
        self.inner.ping().await
    }
}

/// Sends three batches of one row through a worker whose archive panics `panics` times, and returns
/// the ended upload.
async fn import(panics: u32) -> Result<Upload> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().display().to_string();
    let settings = Settings::read(Mode::Embedded, &|name| {
        (name == "CARGA_DATA_DIR").then(|| path.clone())
    })?;
    let mut backends = Backends::connect(&settings.ports, "test", Access::Exclusive).await?;
    backends.archive = Arc::new(PanickingArchive {
        inner: Arc::clone(&backends.archive),
        panics_left: AtomicU32::new(panics),
    });

    let id = send_three_batches(&backends).await?;
    let stop = CancellationToken::new();
    let worker = Runner::new(&settings, backends.clone(), stop.clone());
    let worker = tokio::spawn(worker.run());
    let ended =
        carga_testkit::eventually(Duration::from_secs(60), "the upload to end", async || {
            let upload = backends.store.upload(id).await.ok().flatten()?;
            upload.status.is_terminal().then_some(upload)
        });
    let ended = ended.await?;
    stop.cancel();
    worker.await?;
    backends.close().await;
    Ok(ended)
}

/// Publishes three batches of one row and seals their upload, as the API does.
async fn send_three_batches(backends: &Backends) -> Result<UploadId> {
    let new = NewUpload {
        id: UploadId::generate(),
        filename: None,
        dialect: Dialect::rfc4180(false),
        columns: vec!["a".to_owned()],
        bytes_total: None,
    };
    let upload = backends.store.create(&new).await?;
    let limits = BatchLimits {
        rows: 1,
        bytes: 1000,
    };
    let mut encoder = BatchEncoder::new(upload.key(), &new.columns, "", limits);
    let publisher = backends.queue.publisher();
    for (number, row) in (1..).zip(["x", "y", "z"]) {
        if let Some(batch) = encoder.push(number, [row].into_iter())? {
            publisher.publish(&batch).await?;
        }
    }
    let seal = Seal {
        rows: 3,
        rejected: 0,
        blank_lines: 0,
        batches: 3,
        bytes: 8,
        sha256: [0; 32].into(),
        duplicate_of: None,
    };
    ensure!(backends.store.seal(upload.key(), &seal).await?);
    Ok(new.id)
}

#[tokio::test]
async fn a_batch_that_panics_twice_is_stored_by_the_third_attempt() -> Result<()> {
    let upload = import(2).await?;
    ensure!(upload.status == Status::Completed, "{upload:?}");
    ensure!(upload.rows_inserted == Some(3));
    Ok(())
}

#[tokio::test]
async fn a_batch_that_always_panics_becomes_a_dead_letter_with_the_panic_message() -> Result<()> {
    let upload = import(u32::MAX).await?;
    ensure!(
        upload.status == Status::Failed && upload.batches_dead == 1,
        "{upload:?}"
    );
    let message = upload.failure.map(|failure| failure.message);
    let message = message.unwrap_or_default();
    ensure!(
        message.contains("batch 2") && message.contains("the archive is broken"),
        "{message}"
    );
    Ok(())
}
