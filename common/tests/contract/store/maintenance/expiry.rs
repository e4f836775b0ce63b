//! `expire` ends an upload only if its lease is still expired at that moment.

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::store::{Completed, Heartbeat, Store};
use carga_common::upload::{Status, UploadId};
use futures::future::try_join_all;

use crate::sample::{self, first, in_epoch};
use crate::store::{
    StoreFixture, begin, check_status, end_well, find, remove_all, rows, seal, store_new,
};

/// Longer than any test takes.
const LEASE: Duration = Duration::from_secs(3600);

fn heartbeat(upload: UploadId) -> Heartbeat {
    Heartbeat {
        upload,
        rows_read: 7,
        rows_rejected: 0,
        bytes_received: 70,
    }
}

/// Sets all leases back by years, and checks that the sweeper's selection finds exactly `id`.
async fn select<F: StoreFixture>(fixture: &F, store: &dyn Store, id: UploadId) -> Result<()> {
    let statement = "UPDATE upload_leases SET renewed_at = '2020-01-01T00:00:00.000000Z'";
    fixture.execute(statement).await?;
    let found = store.leftovers(LEASE, LEASE).await?;
    ensure!(found.expired == [first(id)], "{found:?}");
    Ok(())
}

pub(crate) async fn an_expired_upload_is_ended_once<F: StoreFixture>(fixture: &F) -> Result<()> {
    let handles = [fixture.open().await?, fixture.open().await?];
    let store = handles[0].as_ref();
    let id = begin(store).await?;
    ensure!(!store.expire(first(id), LEASE).await?);
    check_status(store, id, Status::Receiving).await?;

    select(fixture, store, id).await?;
    let calls = handles.iter().map(|store| store.expire(first(id), LEASE));
    let ended = try_join_all(calls).await?;
    ensure!(ended[0] != ended[1], "{ended:?}");
    check_status(store, id, Status::Failed).await?;
    ensure!(!store.expire(first(id), LEASE).await?);
    ensure!(!store.expire(first(UploadId::generate()), LEASE).await?);
    let found = store.leftovers(LEASE, LEASE).await?;
    ensure!(found.expired.is_empty(), "{found:?}");
    Ok(())
}

pub(crate) async fn an_expired_upload_ends_like_any_failed_upload<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    store_new(store.as_ref(), &sample::batches(id, 1, 5)?).await?;
    ensure!(store.heartbeat(&[heartbeat(id)]).await? == [id]);
    select(fixture, store.as_ref(), id).await?;
    ensure!(store.expire(first(id), LEASE).await?);

    let upload = find(store.as_ref(), id).await?;
    ensure!(upload.key() == first(id), "{upload:?}");
    let failure = upload.failure.as_ref();
    ensure!(
        failure.is_some_and(|failure| failure.code == "interrupted"
            && failure.message.contains("silent for 3600 s")),
        "{upload:?}"
    );
    ensure!(upload.cleanup_pending, "{upload:?}");
    ensure!(upload.finished_at >= Some(upload.created_at), "{upload:?}");
    ensure!((upload.rows_read, upload.bytes_received) == (7, 70));
    ensure!(rows(store.as_ref(), id).await?.is_empty());
    ensure!(store.heartbeat(&[heartbeat(id)]).await?.is_empty());
    ensure!(store.leftovers(LEASE, LEASE).await?.to_remove == [id]);
    let unarchived = store.leftovers(LEASE, Duration::ZERO).await?.to_unarchive;
    ensure!(unarchived == [id], "{unarchived:?}");
    remove_all(store.as_ref(), id).await?;
    ensure!(fixture.rows_in_table(id).await? == 0);
    Ok(())
}

pub(crate) async fn a_heartbeat_after_the_selection_keeps_the_upload<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, api) = (fixture.open().await?, fixture.open().await?);
    let id = begin(api.as_ref()).await?;
    store_new(store.as_ref(), &sample::batches(id, 1, 10)?).await?;
    select(fixture, store.as_ref(), id).await?;
    ensure!(api.heartbeat(&[heartbeat(id)]).await? == [id]);
    ensure!(!store.expire(first(id), LEASE).await?);
    check_status(store.as_ref(), id, Status::Receiving).await?;
    ensure!(api.heartbeat(&[heartbeat(id)]).await? == [id]);
    end_well(api.as_ref(), id, 1, 10).await
}

pub(crate) async fn a_seal_after_the_selection_keeps_the_upload<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, api) = (fixture.open().await?, fixture.open().await?);
    let id = begin(api.as_ref()).await?;
    select(fixture, store.as_ref(), id).await?;
    ensure!(api.seal(first(id), &seal(1, 10)).await?);
    ensure!(!store.expire(first(id), LEASE).await?);
    check_status(store.as_ref(), id, Status::Processing).await?;
    store_new(store.as_ref(), &sample::batches(id, 1, 10)?).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    Ok(())
}

pub(crate) async fn another_epoch_does_not_expire<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    select(fixture, store.as_ref(), id).await?;
    ensure!(!store.expire(in_epoch(id, 2), LEASE).await?);
    check_status(store.as_ref(), id, Status::Receiving).await
}
