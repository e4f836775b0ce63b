//! `leftovers` finds what a crash leaves behind.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_common::archive::{PUT_ATTEMPTS, attempt_timeout};
use carga_common::store::{Completed, Heartbeat, Leftovers, Store};
use carga_common::upload::UploadId;
use carga_testkit::eventually;

use crate::sample::{self, first};
use crate::store::{StoreFixture, begin, complete, fail, remove_all, seal, set_back, store_new};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3600);
const TIMEOUT: Duration = Duration::from_secs(60);

/// Polls until the leftovers are as expected, since some appear only after a time.
async fn wait_until(
    store: &dyn Store,
    lease: Duration,
    archive_grace: Duration,
    expected: impl Fn(&Leftovers) -> bool,
) -> Result<()> {
    let mut last = None;
    let found = eventually(TIMEOUT, "the expected leftovers", async || {
        last = store.leftovers(lease, archive_grace).await.ok();
        last.as_ref().is_some_and(&expected)
    });
    let found = found.await;
    found.with_context(|| format!("found {last:?}"))
}

pub(crate) async fn a_receiving_upload_without_heartbeats_expires<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    // Sealed and ended uploads have no lease.
    let sealed = begin(store.as_ref()).await?;
    ensure!(store.seal(first(sealed), &seal(1, 1)).await?);
    fail(store.as_ref(), begin(store.as_ref()).await?).await?;
    complete(store.as_ref(), 1, 1).await?;
    let only = |found: &Leftovers| found.expired == [first(id)];
    wait_until(store.as_ref(), Duration::ZERO, LONG, only).await?;
    ensure!(store.leftovers(LONG, LONG).await?.expired.is_empty());
    fail(store.as_ref(), id).await?;
    let found = store.leftovers(Duration::ZERO, LONG).await?;
    ensure!(found.expired.is_empty(), "{found:?}");
    Ok(())
}

pub(crate) async fn a_heartbeat_renews_the_lease<F: StoreFixture>(fixture: &F) -> Result<()> {
    let lease = Duration::from_secs(1);
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    let expired = |found: &Leftovers| found.expired == [first(id)];
    wait_until(store.as_ref(), lease, LONG, expired).await?;
    let beat = Heartbeat {
        upload: id,
        rows_read: 1,
        rows_rejected: 0,
        bytes_received: 1,
    };
    // This is repeated, since a busy machine may take a second between the two calls.
    eventually(TIMEOUT, "the lease to be renewed", async || {
        store.heartbeat(&[beat]).await.is_ok()
            && store
                .leftovers(lease, LONG)
                .await
                .is_ok_and(|found| found.expired.is_empty())
    })
    .await
}

pub(crate) async fn a_sealed_upload_without_an_end_is_unfinished<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    ensure!(store.seal(first(id), &seal(1, 1)).await?);
    begin(store.as_ref()).await?;
    complete(store.as_ref(), 1, 1).await?;
    // The workers have some seconds to end the upload before it is listed.
    let found = store.leftovers(LONG, LONG).await?;
    ensure!(found.unfinished.is_empty(), "{found:?}");
    let only = |found: &Leftovers| found.unfinished == [id];
    wait_until(store.as_ref(), LONG, LONG, only).await?;
    store_new(store.as_ref(), &[sample::batch(id)?]).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    let found = store.leftovers(LONG, LONG).await?;
    ensure!(found.unfinished.is_empty(), "{found:?}");
    Ok(())
}

pub(crate) async fn a_failed_upload_is_listed_until_its_rows_are_removed<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let failed = [begin(store.as_ref()).await?, begin(store.as_ref()).await?];
    store_new(store.as_ref(), &sample::batches(failed[0], 2, 10)?).await?;
    begin(store.as_ref()).await?;
    complete(store.as_ref(), 1, 1).await?;
    let to_remove = async || -> Result<Vec<UploadId>> {
        let mut found = store.leftovers(LONG, LONG).await?.to_remove;
        found.sort_unstable();
        Ok(found)
    };
    ensure!(to_remove().await?.is_empty());
    for id in failed {
        fail(store.as_ref(), id).await?;
    }
    ensure!(to_remove().await? == failed);
    remove_all(store.as_ref(), failed[0]).await?;
    ensure!(to_remove().await? == failed[1..]);
    remove_all(store.as_ref(), failed[1]).await?;
    ensure!(to_remove().await?.is_empty());
    Ok(())
}

pub(crate) async fn the_archive_of_a_failed_upload_is_listed_until_it_is_removed<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    complete(store.as_ref(), 1, 1).await?;
    fail(store.as_ref(), id).await?;
    // The archive is listed before and after the rows are removed.
    let only = |found: &Leftovers| found.to_unarchive == [id];
    wait_until(store.as_ref(), LONG, Duration::ZERO, only).await?;
    remove_all(store.as_ref(), id).await?;
    wait_until(store.as_ref(), LONG, Duration::ZERO, only).await?;
    ensure!(store.leftovers(LONG, LONG).await?.to_unarchive.is_empty());
    store.archive_removed(id).await?;
    let found = store.leftovers(LONG, Duration::ZERO).await?;
    ensure!(found.to_unarchive.is_empty(), "{found:?}");
    Ok(())
}

/// Its archive may have a manifest, and an archive with a manifest counts as stored data.
pub(crate) async fn the_archive_of_a_cancelled_upload_is_listed_at_once_and_again<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (receiving, sealed) = (begin(store.as_ref()).await?, begin(store.as_ref()).await?);
    ensure!(store.seal(first(sealed), &seal(1, 1)).await?);
    let mut cancelled = [receiving, sealed];
    cancelled.sort_unstable();
    for id in cancelled {
        ensure!(store.cancel(first(id)).await?);
    }
    let to_unarchive = async || -> Result<Vec<UploadId>> {
        let mut found = store.leftovers(LONG, LONG).await?.to_unarchive;
        found.sort_unstable();
        Ok(found)
    };
    ensure!(to_unarchive().await? == cancelled);
    // They stay listed, since a worker may still write to their archives.
    for id in cancelled {
        store.archive_removed(id).await?;
    }
    ensure!(to_unarchive().await? == cancelled);
    Ok(())
}

/// A worker that was sending an object to a slow archive when the upload was cancelled may finish
/// long afterwards.
pub(crate) async fn the_archive_of_a_cancelled_upload_is_listed_after_the_longest_write<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    /// That of an upload with 200,000 batches.
    const MANIFEST_BYTES: usize = 40_000_000;
    /// Failed uploads have this time; it must not matter here.
    const GRACE: Duration = Duration::from_secs(48 * 3600);
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    ensure!(store.cancel(first(id)).await?);
    store.archive_removed(id).await?;
    // In between, every sweep would list the archive's objects in vain.
    set_back(fixture, id, Duration::from_secs(600)).await?;
    store.archive_removed(id).await?;
    let found = store.leftovers(LONG, GRACE).await?;
    ensure!(found.to_unarchive.is_empty(), "{found:?}");

    let longest_write = PUT_ATTEMPTS * attempt_timeout(MANIFEST_BYTES);
    set_back(fixture, id, longest_write - Duration::from_secs(60)).await?;
    let found = store.leftovers(LONG, GRACE).await?;
    ensure!(found.to_unarchive.is_empty(), "{found:?}");
    set_back(fixture, id, Duration::from_secs(24 * 3600)).await?;
    let found = store.leftovers(LONG, GRACE).await?;
    ensure!(found.to_unarchive == [id], "{found:?}");
    store.archive_removed(id).await?;
    let found = store.leftovers(LONG, GRACE).await?;
    ensure!(found.to_unarchive.is_empty(), "{found:?}");
    Ok(())
}
