//! The archive port: every batch is a JSON object that people and tools can read.
//!
//! # Promises
//!
//! - `put` is atomic: readers see the whole object or none.
//! - A repeated `put` changes nothing, because keys and bytes are deterministic.
//! - Keys are made from ids, never from a client's file name.
//! - `get` of an absent key fails with *not found*.
//! - Readers ignore a prefix without a manifest, because its upload failed or has not ended.

#[cfg(feature = "filesystem")]
mod filesystem;
mod object;
#[cfg(feature = "s3")]
mod s3;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

#[cfg(feature = "filesystem")]
pub use filesystem::{FilesystemArchive, FilesystemArchiveSettings};
pub use object::{Manifest, ManifestBatch, batch_object, batch_object_bytes};
#[cfg(feature = "s3")]
pub use s3::S3Archive;

use crate::batch::BatchId;
use crate::error::PortResult;
use crate::upload::UploadId;

/// The key of an object, below the archive's own prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArchiveKey(String);

impl ArchiveKey {
    /// `uploads/{upload}/batch-{seq:06}.json`.
    pub fn batch(id: BatchId) -> Self {
        Self(format!("uploads/{}/batch-{:06}.json", id.upload.id, id.seq))
    }

    /// `uploads/{upload}/manifest.json`.
    pub fn manifest(upload: UploadId) -> Self {
        Self(format!("uploads/{upload}/manifest.json"))
    }

    /// The prefix of all objects of an upload.
    pub fn prefix(upload: UploadId) -> String {
        format!("uploads/{upload}/")
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ArchiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The archive of batches. See the module for its promises.
#[async_trait]
pub trait BatchArchive: fmt::Debug + Send + Sync {
    /// Writes an object.
    async fn put(&self, key: &ArchiveKey, body: Bytes) -> PortResult<()>;

    /// Reads an object.
    async fn get(&self, key: &ArchiveKey) -> PortResult<Bytes>;

    /// Deletes an object. Deleting an absent key changes nothing.
    async fn delete(&self, key: &ArchiveKey) -> PortResult<()>;

    /// Deletes every object of an upload. Returns how many were deleted.
    async fn delete_upload(&self, upload: UploadId) -> PortResult<u64>;

    /// Proves that the archive can be reached.
    async fn ping(&self) -> PortResult<()>;
}
