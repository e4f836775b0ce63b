//! A dead letter is kept, and prevents the completion of its upload.

use anyhow::{Result, ensure};
use bytes::Bytes;
use carga_common::batch::BatchId;
use carga_common::store::{Completed, Completion, DeadBatch, Parked};
use carga_common::upload::{Status, UploadId};
use futures::future::try_join;

use super::{
    StoreFixture, begin, check_sample_rows, check_status, end_well, find, seal, store_new,
};
use crate::sample::{self, first, in_epoch};

pub(super) fn dead(id: Option<BatchId>) -> DeadBatch {
    DeadBatch {
        id,
        attempts: 4,
        reason: "row 3: \"é🦀\"\n\\ does not fit".to_owned(),
        body: Bytes::from_static(b"\0\xff no JSON \""),
    }
}

fn dead_batch(upload: UploadId, epoch: i32, seq: u32) -> DeadBatch {
    let upload = in_epoch(upload, epoch);
    dead(Some(BatchId { upload, seq }))
}

pub(super) async fn a_dead_letter_is_kept_once_and_counted<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let (id, untouched) = (begin(store.as_ref()).await?, begin(store.as_ref()).await?);
    // The broker may deliver a dead letter twice, even to two workers at once.
    let letter = dead_batch(id, 1, 2);
    let parked = try_join(store.park(&letter), other.park(&letter)).await?;
    ensure!(parked == (Parked::Kept, Parked::Kept), "{parked:?}");
    ensure!(store.park(&letter).await? == Parked::Kept);
    ensure!(find(store.as_ref(), id).await?.batches_dead == 1);
    ensure!(store.park(&dead_batch(id, 1, 3)).await? == Parked::Kept);
    ensure!(find(store.as_ref(), id).await?.batches_dead == 2);
    // A dead letter of another epoch is not counted in this epoch.
    store.park(&dead_batch(id, 2, 9)).await?;
    ensure!(find(store.as_ref(), id).await?.batches_dead == 2);
    ensure!(find(store.as_ref(), untouched).await?.batches_dead == 0);
    // A dead letter does not change the status of its upload.
    check_status(store.as_ref(), id, Status::Receiving).await
}

pub(super) async fn a_dead_letter_of_a_stored_batch_is_not_kept<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    store_new(store.as_ref(), &sample::batches(id, 2, 5)?).await?;
    let copy = dead_batch(id, 1, 2);
    ensure!(store.park(&copy).await? == Parked::AlreadyStored);
    ensure!(find(store.as_ref(), id).await?.batches_dead == 0);
    end_well(store.as_ref(), id, 2, 10).await?;
    ensure!(store.park(&copy).await? == Parked::AlreadyStored);
    check_sample_rows(store.as_ref(), id, 10).await
}

pub(super) async fn a_dead_letter_without_an_upload_is_kept<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    ensure!(store.park(&dead(None)).await? == Parked::Kept);
    // Two dead letters without an id are distinct.
    ensure!(store.park(&dead(None)).await? == Parked::Kept);
    let of_unknown_upload = dead_batch(UploadId::generate(), 1, 1);
    ensure!(store.park(&of_unknown_upload).await? == Parked::Kept);
    ensure!(find(store.as_ref(), id).await?.batches_dead == 0);
    Ok(())
}

pub(super) async fn an_upload_with_a_dead_letter_does_not_complete<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    let batches = sample::batches(id, 2, 5)?;
    store_new(store.as_ref(), &batches[..1]).await?;
    ensure!(store.park(&dead_batch(id, 1, 2)).await? == Parked::Kept);
    ensure!(store.seal(first(id), &seal(2, 10)).await?);
    let completion = store.completion(id).await?;
    ensure!(
        matches!(completion, Completion::Incomplete),
        "{completion:?}"
    );
    ensure!(store.complete(first(id)).await? == Completed::No);
    check_status(store.as_ref(), id, Status::Processing).await
}
