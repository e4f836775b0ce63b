//! The archive of an upload is deleted as a whole, or one object is deleted.

use anyhow::{Result, ensure};
use bytes::Bytes;
use carga_common::archive::{ArchiveCompression, ArchiveKey};
use carga_common::upload::UploadId;
use futures::future::try_join_all;

use super::putting::check_absent;
use super::{ArchiveFixture, compressed_key, key, put_batches};

pub(super) async fn deleting_an_upload_deletes_and_counts_only_its_objects<F: ArchiveFixture>(
    fixture: &F,
) -> Result<()> {
    let archive = fixture.open().await?;
    let (failed, kept) = (UploadId::generate(), UploadId::generate());
    put_batches(archive.as_ref(), failed, 3).await?;
    put_batches(archive.as_ref(), kept, 2).await?;
    let manifest = ArchiveKey::manifest(failed);
    archive.put(&manifest, Bytes::from_static(b"{}")).await?;
    ensure!(archive.delete_upload(failed).await? == 4);
    for key in [manifest, key(failed, 1), key(failed, 3)] {
        check_absent(archive.as_ref(), &key).await?;
    }
    let left = [key(kept, 1), key(kept, 2)].map(|key| key.to_string());
    ensure!(fixture.keys().await? == left);
    // A repeated deletion and the deletion of an upload without objects delete nothing.
    ensure!(archive.delete_upload(failed).await? == 0);
    ensure!(archive.delete_upload(UploadId::generate()).await? == 0);
    ensure!(fixture.keys().await? == left);
    Ok(())
}

/// Two workers with different settings may archive one batch under two keys.
pub(super) async fn deleting_an_upload_deletes_its_objects_of_every_compression<
    F: ArchiveFixture,
>(
    fixture: &F,
) -> Result<()> {
    let archive = fixture.open().await?;
    let upload = UploadId::generate();
    let compressions = [
        ArchiveCompression::None,
        ArchiveCompression::Gzip,
        ArchiveCompression::Zstd,
    ];
    let keys = compressions.map(|compression| compressed_key(upload, 1, compression));
    for key in &keys {
        archive.put(key, Bytes::from(key.to_string())).await?;
    }
    for key in &keys {
        ensure!(archive.get(key).await? == key.as_str(), "{key}");
    }
    ensure!(archive.delete_upload(upload).await? == 3);
    ensure!(fixture.keys().await?.is_empty());
    Ok(())
}

/// Every worker runs a sweeper, and two sweepers may delete the same archive at once.
pub(super) async fn concurrent_deletions_of_an_upload_succeed<F: ArchiveFixture>(
    fixture: &F,
) -> Result<()> {
    const ROUNDS: usize = 5;
    let (one, other) = (fixture.open().await?, fixture.open().await?);
    for _ in 0..ROUNDS {
        let upload = UploadId::generate();
        put_batches(one.as_ref(), upload, 50).await?;
        let deletions = [one.delete_upload(upload), other.delete_upload(upload)];
        try_join_all(deletions).await?;
        ensure!(fixture.keys().await?.is_empty());
    }
    Ok(())
}

/// S3 lists and deletes at most 1,000 objects per request.
pub(super) async fn an_upload_of_1100_objects_is_deleted_completely<F: ArchiveFixture>(
    fixture: &F,
) -> Result<()> {
    const OBJECTS: u32 = 1_100;
    let archive = fixture.open().await?;
    let upload = UploadId::generate();
    put_batches(archive.as_ref(), upload, OBJECTS).await?;
    ensure!(archive.delete_upload(upload).await? == u64::from(OBJECTS));
    ensure!(fixture.keys().await?.is_empty());
    Ok(())
}

pub(super) async fn a_deleted_object_can_be_put_again<F: ArchiveFixture>(
    fixture: &F,
) -> Result<()> {
    let archive = fixture.open().await?;
    let upload = UploadId::generate();
    put_batches(archive.as_ref(), upload, 1).await?;
    archive.delete_upload(upload).await?;
    put_batches(archive.as_ref(), upload, 1).await?;
    let key = key(upload, 1);
    ensure!(archive.get(&key).await? == key.as_str());
    Ok(())
}

pub(super) async fn deleting_an_object_keeps_the_others<F: ArchiveFixture>(
    fixture: &F,
) -> Result<()> {
    let archive = fixture.open().await?;
    let upload = UploadId::generate();
    put_batches(archive.as_ref(), upload, 2).await?;
    let manifest = ArchiveKey::manifest(upload);
    archive.put(&manifest, Bytes::from_static(b"{}")).await?;
    archive.delete(&manifest).await?;
    check_absent(archive.as_ref(), &manifest).await?;
    let left = [key(upload, 1), key(upload, 2)].map(|key| key.to_string());
    ensure!(fixture.keys().await? == left);
    // An absent key may be deleted, also when its upload has no objects at all.
    archive.delete(&manifest).await?;
    let unknown = ArchiveKey::manifest(UploadId::generate());
    archive.delete(&unknown).await?;
    ensure!(fixture.keys().await? == left);
    Ok(())
}
