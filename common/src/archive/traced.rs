//! Spans around the calls of the archive.

use bytes::Bytes;

use super::{ArchiveKey, BatchArchive};
use crate::error::PortResult;
use crate::traced::traced_port;
use crate::upload::UploadId;

traced_port! { "archive", BatchArchive for dyn BatchArchive {
    async fn put(&self, key: &ArchiveKey, body: Bytes) -> PortResult<()> {
        key = %key, bytes = body.len()
    };
    async fn get(&self, key: &ArchiveKey) -> PortResult<Bytes> { key = %key };
    async fn delete(&self, key: &ArchiveKey) -> PortResult<()> { key = %key };
    async fn delete_upload(&self, upload: UploadId) -> PortResult<u64>;
    async fn ping(&self) -> PortResult<()>;
}}
