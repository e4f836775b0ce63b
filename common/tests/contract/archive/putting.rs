//! An object that was put is read back whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use bytes::Bytes;
use carga_common::archive::{ArchiveKey, BatchArchive};
use carga_common::error::ErrorKind;
use carga_common::upload::UploadId;
use futures::future::{try_join, try_join_all};

use super::{ArchiveFixture, key, lone_key, put_batches};

pub(super) async fn a_put_object_is_read_back<F: ArchiveFixture>(fixture: &F) -> Result<()> {
    let archive = fixture.open().await?;
    let upload = UploadId::generate();
    let objects = [
        (key(upload, 1), Bytes::from_static(b"[\n{\"a\":\"1\"}\n]\n")),
        (key(upload, 1_000_000), Bytes::from_static(b"[]")),
        (ArchiveKey::manifest(upload), Bytes::from_static(b"{}\n")),
    ];
    for (key, body) in &objects {
        archive.put(key, body.clone()).await?;
    }
    for (key, body) in &objects {
        ensure!(archive.get(key).await? == body, "{key}");
    }
    Ok(())
}

pub(super) async fn an_object_of_any_bytes_is_read_back_unchanged<F: ArchiveFixture>(
    fixture: &F,
) -> Result<()> {
    let archive = fixture.open().await?;
    let every_byte: Vec<u8> = (0..=u8::MAX).cycle().take(5 << 20).collect();
    let (key, body) = (lone_key(), Bytes::from(every_byte));
    archive.put(&key, body.clone()).await?;
    ensure!(archive.get(&key).await? == body);
    Ok(())
}

pub(super) async fn an_empty_object_is_stored<F: ArchiveFixture>(fixture: &F) -> Result<()> {
    let archive = fixture.open().await?;
    let key = lone_key();
    archive.put(&key, Bytes::new()).await?;
    ensure!(archive.get(&key).await?.is_empty());
    ensure!(fixture.keys().await? == [key.as_str()]);
    Ok(())
}

pub(super) async fn an_object_survives_reopening<F: ArchiveFixture>(fixture: &F) -> Result<()> {
    let (key, body) = (lone_key(), Bytes::from_static(b"kept"));
    let archive = fixture.open().await?;
    archive.put(&key, body.clone()).await?;
    drop(archive);
    ensure!(fixture.open().await?.get(&key).await? == body);
    Ok(())
}

pub(super) async fn a_put_leaves_only_the_object_under_its_key<F: ArchiveFixture>(
    fixture: &F,
) -> Result<()> {
    let archive = fixture.open().await?;
    let upload = UploadId::generate();
    put_batches(archive.as_ref(), upload, 3).await?;
    // A second put of the same objects, so that a staging file would show.
    put_batches(archive.as_ref(), upload, 3).await?;
    let manifest = ArchiveKey::manifest(upload);
    archive.put(&manifest, Bytes::from_static(b"{}")).await?;
    let expected = ["batch-000001", "batch-000002", "batch-000003", "manifest"];
    let expected = expected.map(|name| format!("uploads/{upload}/{name}.json"));
    let found = fixture.keys().await?;
    ensure!(found == expected, "{found:?}");
    Ok(())
}

pub(super) async fn putting_the_same_object_again_changes_nothing<F: ArchiveFixture>(
    fixture: &F,
) -> Result<()> {
    let (one, other) = (fixture.open().await?, fixture.open().await?);
    let (key, body) = (lone_key(), Bytes::from(vec![b'x'; 100_000]));
    for archive in [&one, &other, &one] {
        archive.put(&key, body.clone()).await?;
        ensure!(other.get(&key).await? == body);
    }
    // Two workers put the same batch at once, while others read it.
    let puts = (0..8).map(|number| {
        let archive = if number % 2 == 0 { &one } else { &other };
        archive.put(&key, body.clone())
    });
    let gets = (0..8).map(|_| one.get(&key));
    let (_, found) = try_join(try_join_all(puts), try_join_all(gets)).await?;
    ensure!(found.iter().all(|found| *found == body));
    ensure!(one.get(&key).await? == body);
    ensure!(fixture.keys().await? == [key.as_str()]);
    Ok(())
}

pub(super) async fn readers_see_the_whole_object_or_none<F: ArchiveFixture>(
    fixture: &F,
) -> Result<()> {
    const ROUNDS: usize = 40;
    const READERS: usize = 3;
    const BYTES: usize = 2 << 20;
    let archive = fixture.open().await?;
    let key = lone_key();
    let versions = [
        Bytes::from(vec![b'a'; BYTES]),
        Bytes::from(vec![b'b'; BYTES + 7]),
    ];
    let over = Arc::new(AtomicBool::new(false));
    let readers = (0..READERS).map(|_| {
        let (over, key, versions) = (over.clone(), key.clone(), versions.clone());
        let reader = fixture.open();
        async move {
            let reader = reader.await?;
            anyhow::Ok(tokio::spawn(async move {
                let mut seen = 0;
                while !over.load(Ordering::Relaxed) {
                    match reader.get(&key).await {
                        Ok(body) => {
                            ensure!(versions.contains(&body), "{}", describe_torn(&body));
                            seen += 1;
                        }
                        Err(error) if error.kind() == ErrorKind::NotFound && seen == 0 => {}
                        // An error is not a torn object. s3s-fs keeps the checksum of an object in
                        // a separate file, and the SDK fails if the two do not match.
                        Err(error) if error.is_unavailable() => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(seen)
            }))
        }
    });
    let readers = try_join_all(readers).await?;
    for round in 0..ROUNDS {
        let body = versions[round % 2].clone();
        archive.put(&key, body).await?;
    }
    over.store(true, Ordering::Relaxed);
    for seen in try_join_all(readers).await? {
        ensure!(seen? > 0, "a reader never found the object");
    }
    ensure!(archive.get(&key).await? == versions[(ROUNDS - 1) % 2]);
    Ok(())
}

/// Describes a torn object by the share of its bytes that one put wrote.
fn describe_torn(body: &[u8]) -> String {
    let of_a = body.iter().filter(|byte| **byte == b'a').count();
    format!(
        "torn object: {of_a} of its {} bytes are from one put",
        body.len()
    )
}

pub(super) async fn concurrent_puts_are_all_stored<F: ArchiveFixture>(fixture: &F) -> Result<()> {
    const UPLOADS: usize = 4;
    const BATCHES: u32 = 40;
    let archive = fixture.open().await?;
    let uploads: Vec<_> = (0..UPLOADS).map(|_| UploadId::generate()).collect();
    let puts = uploads
        .iter()
        .map(|upload| put_batches(archive.as_ref(), *upload, BATCHES));
    try_join_all(puts).await?;
    for upload in &uploads {
        for seq in 1..=BATCHES {
            let key = key(*upload, seq);
            ensure!(archive.get(&key).await? == key.as_str(), "{key}");
        }
    }
    ensure!(fixture.keys().await?.len() == UPLOADS * BATCHES as usize);
    Ok(())
}

pub(super) async fn an_archive_can_be_opened_while_another_handle_puts<F: ArchiveFixture>(
    fixture: &F,
) -> Result<()> {
    const OBJECTS: u32 = 300;
    let archive = fixture.open().await?;
    let putting =
        tokio::spawn(
            async move { put_batches(archive.as_ref(), UploadId::generate(), OBJECTS).await },
        );
    while !putting.is_finished() {
        fixture.open().await?;
    }
    putting.await??;
    ensure!(fixture.keys().await?.len() == OBJECTS as usize);
    Ok(())
}

pub(super) async fn an_absent_key_is_not_found<F: ArchiveFixture>(fixture: &F) -> Result<()> {
    let archive = fixture.open().await?;
    let upload = UploadId::generate();
    check_absent(archive.as_ref(), &key(upload, 1)).await?;
    // A key is also absent while other keys of its upload exist.
    put_batches(archive.as_ref(), upload, 1).await?;
    check_absent(archive.as_ref(), &key(upload, 2)).await?;
    check_absent(archive.as_ref(), &ArchiveKey::manifest(upload)).await
}

pub(super) async fn check_absent(archive: &dyn BatchArchive, key: &ArchiveKey) -> Result<()> {
    let found = archive.get(key).await;
    ensure!(
        found.is_err_and(|error| error.kind() == ErrorKind::NotFound),
        "{key}"
    );
    Ok(())
}

pub(super) async fn a_reachable_archive_answers_a_ping<F: ArchiveFixture>(
    fixture: &F,
) -> Result<()> {
    Ok(fixture.open().await?.ping().await?)
}
