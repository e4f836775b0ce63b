//! Spans around the calls of the live counters.

use super::{Counters, Presence, ProgressStore, Snapshot, StoredBatch};
use crate::error::PortResult;
use crate::traced::traced_port;
use crate::upload::UploadKey;

traced_port! { "progress", ProgressStore for dyn ProgressStore {
    async fn received(
        &self,
        upload: UploadKey,
        rows_read: u64,
        bytes_received: u64,
    ) -> PortResult<Presence>;
    async fn stored(&self, upload: UploadKey, batches: &[StoredBatch]) -> PortResult<Presence> {
        batches = batches.len()
    };
    async fn restore(&self, upload: UploadKey, snapshot: &Snapshot) -> PortResult<()> {
        batches = snapshot.stored.len()
    };
    async fn read(&self, upload: UploadKey) -> PortResult<Option<Counters>>;
    async fn ping(&self) -> PortResult<()>;
} plain {
    async fn close(&self) {
        self.0.close().await;
    }
}}
