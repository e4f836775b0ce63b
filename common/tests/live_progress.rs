//! What a failed call of the live counters means for other uploads, on the embedded adapters.

#![cfg(feature = "sqlite")]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use carga_common::error::{ErrorKind, PortError, PortResult};
use carga_common::live_progress::LiveProgress;
use carga_common::progress::{
    Counters, Presence, ProgressStore, Snapshot, SqliteProgress, SqliteProgressSettings,
    StoredBatch,
};
use carga_common::store::{NewUpload, SqliteStore, SqliteStoreSettings, Store};
use carga_common::upload::{Dialect, UploadId, UploadKey};
use tempfile::TempDir;

/// Passes every call to `inner`, but fails to restore one upload.
#[derive(Debug)]
struct FailingRestore {
    inner: SqliteProgress,
    fails_for: UploadKey,
    kind: ErrorKind,
}

#[async_trait]
impl ProgressStore for FailingRestore {
    async fn received(
        &self,
        upload: UploadKey,
        rows_read: u64,
        bytes_received: u64,
    ) -> PortResult<Presence> {
        self.inner.received(upload, rows_read, bytes_received).await
    }

    async fn stored(&self, upload: UploadKey, batches: &[StoredBatch]) -> PortResult<Presence> {
        self.inner.stored(upload, batches).await
    }

    async fn restore(&self, upload: UploadKey, snapshot: &Snapshot) -> PortResult<()> {
        if upload == self.fails_for {
            return Err(PortError::new(self.kind, "progress.restore", "injected"));
        }
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

/// Lets the restore of one upload fail, and returns the counters of another upload right after.
async fn read_other_after(kind: ErrorKind) -> Result<Option<Counters>> {
    let directory = TempDir::new()?;
    let settings = SqliteStoreSettings {
        file: directory.path().join("carga.db"),
        migrate: true,
    };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(settings).await?);
    let mut keys = Vec::new();
    for _ in 0..2 {
        let new = NewUpload {
            id: UploadId::generate(),
            tenant: Default::default(),
            created_by: None,
            filename: None,
            dialect: Dialect::rfc4180(false),
            columns: vec!["a".to_owned()],
            dataset: None,
            bytes_total: None,
        };
        keys.push(store.create(&new).await?.key());
    }
    let settings = SqliteProgressSettings {
        file: directory.path().join("progress.db"),
        ttl: Duration::from_secs(600),
    };
    let failing = FailingRestore {
        inner: SqliteProgress::open(settings).await?,
        fails_for: keys[0],
        kind,
    };
    let live = LiveProgress::new(Arc::new(failing), store);
    ensure!(live.read(keys[1]).await == Some(Counters::default()));
    ensure!(live.read(keys[0]).await.is_none());
    Ok(live.read(keys[1]).await)
}

#[tokio::test]
async fn a_failed_restore_of_one_upload_does_not_pause_the_others() -> Result<()> {
    let counters = read_other_after(ErrorKind::Internal).await?;
    ensure!(counters == Some(Counters::default()), "{counters:?}");
    Ok(())
}

#[tokio::test]
async fn an_absent_server_pauses_all_uploads() -> Result<()> {
    let counters = read_other_after(ErrorKind::Unavailable).await?;
    ensure!(counters.is_none(), "{counters:?}");
    Ok(())
}
