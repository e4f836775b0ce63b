//! The headers of an object on S3.

use anyhow::{Result, ensure};
use bytes::Bytes;
use carga_common::archive::{ArchiveCompression, ArchiveKey};
use carga_common::upload::UploadId;

use super::fixtures::S3;
use super::{ArchiveFixture, compressed_key};

/// With a `Content-Encoding`, clients would decompress the object unasked.
pub(super) async fn check(s3: &S3) -> Result<()> {
    let archive = s3.open().await?;
    let upload = UploadId::generate();
    let batch = |compression| compressed_key(upload, 1, compression);
    for (key, media_type) in [
        (batch(ArchiveCompression::None), "application/json"),
        (batch(ArchiveCompression::Gzip), "application/gzip"),
        (batch(ArchiveCompression::Zstd), "application/zstd"),
        (ArchiveKey::manifest(upload), "application/json"),
    ] {
        archive.put(&key, Bytes::from_static(b"x")).await?;
        let head = s3.head(&key).await?;
        ensure!(head.content_type() == Some(media_type), "{key}: {head:?}");
        ensure!(head.content_encoding().is_none(), "{key}: {head:?}");
    }
    Ok(())
}
