//! Workers with different settings archive the batches of one upload.

mod fixture;

use anyhow::{Result, ensure};
use carga_common::archive::{ArchiveCompression, ArchiveKey, Manifest};
use carga_common::batch::BatchId;
use carga_common::upload::{Status, UploadId, UploadKey};
use carga_testkit::eventually;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::fixture::{Fixture, TIMEOUT};

#[tokio::test]
async fn the_manifest_names_the_objects_that_count_whatever_each_worker_compresses() -> Result<()> {
    let mut fixture = Fixture::new(&[]).await?;
    let id = UploadId::generate();
    fixture.create(id).await?;
    let worker = start(&mut fixture, ArchiveCompression::None);
    fixture.publish(id, 1).await?;
    wait_for_batches(&fixture, id, 1).await?;
    stop(&fixture, worker).await?;

    let worker = start(&mut fixture, ArchiveCompression::Gzip);
    // The first batch is delivered again, and this worker archives it under another key.
    fixture.publish(id, 1).await?;
    fixture.publish(id, 2).await?;
    wait_for_batches(&fixture, id, 2).await?;
    let archive = fixture.backends.archive.clone();
    let again = key(id, 1, ArchiveCompression::Gzip);
    let is_there = async || archive.get(&again).await.is_ok();
    eventually(TIMEOUT, "the first batch's second object", is_there).await?;
    stop(&fixture, worker).await?;

    let worker = start(&mut fixture, ArchiveCompression::Zstd);
    fixture.seal(id, 3).await?;
    fixture.publish(id, 3).await?;
    let upload = fixture.wait_until_ended(id).await?;
    ensure!(upload.status == Status::Completed, "{upload:?}");
    stop(&fixture, worker).await?;

    let manifest = archive.get(&ArchiveKey::manifest(id)).await?;
    let manifest: Manifest = serde_json::from_slice(&manifest)?;
    ensure!(manifest.batches.len() == 3, "{manifest:?}");
    let expected: [(_, &[u8]); 3] = [
        (ArchiveCompression::None, b"["),
        (ArchiveCompression::Gzip, &[0x1f, 0x8b]),
        (ArchiveCompression::Zstd, &[0x28, 0xb5, 0x2f, 0xfd]),
    ];
    for (named, (seq, (compression, magic))) in manifest.batches.iter().zip((1..).zip(expected)) {
        let key = key(id, seq, compression);
        ensure!(named.key == key.as_str(), "{named:?} instead of {key}");
        let object = archive.get(&key).await?;
        ensure!(object.starts_with(magic), "{key} begins otherwise");
        ensure!(named.bytes == object.len() as u64, "{named:?}");
        let crc32 = crc32fast::hash(&object);
        ensure!(named.crc32 == format!("{crc32:08x}"), "{named:?}");
    }
    // The three objects, the manifest and the object that does not count.
    ensure!(archive.delete_upload(id).await? == 5);
    Ok(())
}

/// Starts a worker with this compression.
fn start(fixture: &mut Fixture, compression: ArchiveCompression) -> JoinHandle<()> {
    fixture.settings.worker.archive_compression = compression;
    fixture.stop = CancellationToken::new();
    tokio::spawn(fixture.runner().run())
}

/// Stops the worker after it has settled its batches.
async fn stop(fixture: &Fixture, worker: JoinHandle<()>) -> Result<()> {
    fixture.stop.cancel();
    Ok(worker.await?)
}

/// Polls until the ledger has this many batches.
async fn wait_for_batches(fixture: &Fixture, id: UploadId, batches: usize) -> Result<()> {
    let store = &fixture.backends.store;
    eventually(TIMEOUT, "the batches to be stored", async || {
        let ledger = store.ledger(UploadKey::first(id)).await;
        ledger.is_ok_and(|ledger| ledger.len() == batches)
    })
    .await
}

fn key(id: UploadId, seq: u32, compression: ArchiveCompression) -> ArchiveKey {
    let upload = UploadKey::first(id);
    ArchiveKey::batch(BatchId { upload, seq }, compression)
}
