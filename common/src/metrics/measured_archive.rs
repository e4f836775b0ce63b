//! An archive whose calls are measured.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::calls::measured;
use crate::archive::{ArchiveKey, BatchArchive};
use crate::error::PortResult;
use crate::upload::UploadId;

/// Measures the calls of another archive.
#[derive(Debug)]
pub(crate) struct MeasuredArchive(pub(crate) Arc<dyn BatchArchive>);

#[async_trait]
impl BatchArchive for MeasuredArchive {
    async fn put(&self, key: &ArchiveKey, body: Bytes) -> PortResult<()> {
        measured("archive.put", self.0.put(key, body)).await
    }

    async fn get(&self, key: &ArchiveKey) -> PortResult<Bytes> {
        measured("archive.get", self.0.get(key)).await
    }

    async fn delete(&self, key: &ArchiveKey) -> PortResult<()> {
        measured("archive.delete", self.0.delete(key)).await
    }

    async fn delete_upload(&self, upload: UploadId) -> PortResult<u64> {
        measured("archive.delete_upload", self.0.delete_upload(upload)).await
    }

    async fn ping(&self) -> PortResult<()> {
        measured("archive.ping", self.0.ping()).await
    }
}
