//! A worker limits the bytes of the objects that it writes to the archive at once.

mod fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use carga_common::archive::{ArchiveKey, BatchArchive};
use carga_common::batch::MESSAGE_VERSION;
use carga_common::error::PortResult;
use carga_common::upload::{Status, UploadId};

use self::fixture::Fixture;

/// How long a write takes. Without a limit, the writes of all batches overlap.
const WRITE: Duration = Duration::from_millis(500);

/// Passes every call to `inner`, with slow writes, and adds up the objects that are being written.
#[derive(Debug)]
struct SlowArchive {
    inner: Arc<dyn BatchArchive>,
    bytes: AtomicUsize,
    most_bytes: AtomicUsize,
}

impl SlowArchive {
    fn install(fixture: &mut Fixture) -> Arc<Self> {
        let archive = Arc::new(Self {
            inner: Arc::clone(&fixture.backends.archive),
            bytes: AtomicUsize::new(0),
            most_bytes: AtomicUsize::new(0),
        });
        fixture.backends.archive = Arc::<Self>::clone(&archive);
        archive
    }
}

#[async_trait]
impl BatchArchive for SlowArchive {
    async fn put(&self, key: &ArchiveKey, body: Bytes) -> PortResult<()> {
        let length = body.len();
        let bytes = self.bytes.fetch_add(length, Ordering::Relaxed) + length;
        self.most_bytes.fetch_max(bytes, Ordering::Relaxed);
        tokio::time::sleep(WRITE).await;
        let written = self.inner.put(key, body).await;
        self.bytes.fetch_sub(length, Ordering::Relaxed);
        written
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

#[tokio::test]
async fn the_objects_that_are_written_at_once_stay_within_the_limit() -> Result<()> {
    const LIMIT: usize = 1 << 20;
    const CELL_BYTES: usize = 400 << 10;
    const BATCHES: u32 = 10;
    let limit = LIMIT.to_string();
    let mut fixture = Fixture::new(&[("CARGA_ARCHIVE_BYTES", &limit)]).await?;
    let archive = SlowArchive::install(&mut fixture);
    let id = UploadId::generate();
    fixture.create(id).await?;
    let cell = "x".repeat(CELL_BYTES);
    for seq in 1..=BATCHES {
        let body = format!(
            r#"{{"v":{MESSAGE_VERSION},"upload":"{id}","epoch":1,"seq":{seq},"trace":"","columns":["a"],"rows":[["{cell}"]],"runs":[[{seq},1]]}}"#
        );
        fixture.publish_body(id, seq, body).await?;
    }
    fixture.seal(id, BATCHES).await?;
    let worker = tokio::spawn(fixture.runner().run());
    let upload = fixture.wait_until_ended(id).await?;
    ensure!(upload.status == Status::Completed, "{upload:?}");
    let most = archive.most_bytes.load(Ordering::Relaxed);
    // Two objects fit.
    ensure!(
        (2 * CELL_BYTES..=LIMIT).contains(&most),
        "{most} bytes at once"
    );
    fixture.stop.cancel();
    Ok(worker.await?)
}
