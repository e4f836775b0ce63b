//! The archive port: every batch is a JSON object that people and tools can read. With
//! `CARGA_ARCHIVE_COMPRESSION`, the object is compressed.
//!
//! # Promises
//!
//! - `put` is atomic: readers see the whole object or none.
//! - A `put` that the same build repeats changes nothing, because keys and bytes are deterministic.
//! - Keys are made from ids, never from a client's file name.
//! - `get` of an absent key fails with *not found*.
//! - Readers ignore a prefix without a manifest, because its upload failed or has not ended. They
//!   also ignore an object that the manifest does not name: a batch that was delivered twice to
//!   workers with different compressions has two objects, and the ledger has one of them.

mod compression;
#[cfg(feature = "filesystem")]
mod filesystem;
mod object;
#[cfg(feature = "s3")]
mod s3;
mod traced;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use compression::ArchiveCompression;
#[cfg(feature = "filesystem")]
pub use filesystem::{FilesystemArchive, FilesystemArchiveSettings};
#[cfg(feature = "compression")]
pub use object::BatchObject;
pub use object::{Manifest, ManifestBatch, batch_object, batch_object_bytes};
#[cfg(feature = "s3")]
pub use s3::S3Archive;

use crate::batch::BatchId;
use crate::error::PortResult;
use crate::upload::UploadId;

/// How often an adapter sends an object before `put` fails.
pub const PUT_ATTEMPTS: u32 = 3;

/// The time limit of an attempt, apart from the time that its bytes need. Without a limit, a server
/// that accepts connections and never answers would block a batch for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// The slowest transfer of an object. Many objects share one connection to the network, so each may
/// be slow: 64 objects at this rate need 8 Mbit/s together.
const LOWEST_BYTES_PER_SECOND: u64 = 16 << 10;

/// The time limit of one attempt to send an object of this size.
pub fn attempt_timeout(bytes: usize) -> Duration {
    ANSWER_TIMEOUT + Duration::from_secs(bytes as u64 / LOWEST_BYTES_PER_SECOND)
}

/// The key of an object, below the archive's own prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArchiveKey {
    path: String,
    compression: ArchiveCompression,
}

impl ArchiveKey {
    /// `uploads/{upload}/batch-{seq:06}.json`, with the suffix of the compression.
    pub fn batch(id: BatchId, compression: ArchiveCompression) -> Self {
        let (upload, seq, suffix) = (id.upload.id, id.seq, compression.suffix());
        Self {
            path: format!("uploads/{upload}/batch-{seq:06}.json{suffix}"),
            compression,
        }
    }

    /// `uploads/{upload}/manifest.json`.
    pub fn manifest(upload: UploadId) -> Self {
        Self {
            path: format!("uploads/{upload}/manifest.json"),
            compression: ArchiveCompression::None,
        }
    }

    /// The prefix of all objects of an upload.
    pub fn prefix(upload: UploadId) -> String {
        format!("uploads/{upload}/")
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// The media type of the object.
    pub fn media_type(&self) -> &'static str {
        self.compression.media_type()
    }
}

impl fmt::Display for ArchiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::UploadKey;

    #[test]
    fn the_key_of_a_batch_ends_with_its_compression() {
        let upload = UploadId::generate();
        let id = BatchId {
            upload: UploadKey::first(upload),
            seq: 7,
        };
        for (compression, name) in [
            (ArchiveCompression::None, "batch-000007.json"),
            (ArchiveCompression::Gzip, "batch-000007.json.gz"),
            (ArchiveCompression::Zstd, "batch-000007.json.zst"),
        ] {
            let key = ArchiveKey::batch(id, compression);
            assert_eq!(key.as_str(), format!("uploads/{upload}/{name}"));
            assert_eq!(key.media_type(), compression.media_type());
        }
        let manifest = ArchiveKey::manifest(upload);
        assert_eq!(manifest.as_str(), format!("uploads/{upload}/manifest.json"));
        assert_eq!(manifest.media_type(), "application/json");
    }

    #[test]
    fn the_time_limit_of_an_attempt_grows_with_the_object() {
        assert_eq!(attempt_timeout(0), Duration::from_secs(20));
        // A manifest of 200,000 batches, at 1 Mbit/s.
        let manifest = 40_000_000;
        assert!(attempt_timeout(manifest) > Duration::from_secs(manifest as u64 * 8 / 1_000_000));
        // A server that never answers still ends the attempt.
        assert!(attempt_timeout(manifest) < Duration::from_secs(3600));
    }
}
