//! The rows of a failed upload are hidden at once and removed in chunks.

use anyhow::{Result, ensure};
use carga_common::store::Removal;
use carga_common::upload::UploadId;
use futures::future::try_join_all;

use crate::sample::{self, first};
use crate::store::{
    StoreFixture, begin, check_sample_rows, complete, end_well, fail, find, remove_all, rows,
    store_new,
};

/// More rows than one call removes.
const MANY: u32 = 120_000;

pub(crate) async fn an_interrupted_removal_is_resumed_by_another_handle<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let id = begin(store.as_ref()).await?;
    store_new(store.as_ref(), &sample::batches(id, MANY / 1000, 1000)?).await?;
    ensure!(fixture.rows_in_table(id).await? == u64::from(MANY));
    fail(store.as_ref(), id).await?;
    ensure!(rows(store.as_ref(), id).await?.is_empty());

    ensure!(store.remove_rows(id).await? == Removal::More);
    let left = fixture.rows_in_table(id).await?;
    ensure!(0 < left && left < u64::from(MANY), "{left} rows are left");
    ensure!(find(store.as_ref(), id).await?.cleanup_pending);
    store.close().await;

    let resumed = remove_all(other.as_ref(), id).await?;
    ensure!(resumed > 0, "one call removed all remaining rows");
    ensure!(fixture.rows_in_table(id).await? == 0);
    ensure!(other.ledger(first(id)).await?.is_empty());
    let upload = find(other.as_ref(), id).await?;
    ensure!(!upload.cleanup_pending, "{upload:?}");
    ensure!(upload.failure.is_some(), "{upload:?}");
    ensure!(other.remove_rows(id).await? == Removal::Done);
    Ok(())
}

pub(crate) async fn removal_keeps_the_rows_of_other_uploads<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let completed = complete(store.as_ref(), 3, 10).await?;
    let (failed, receiving) = (begin(store.as_ref()).await?, begin(store.as_ref()).await?);
    let also_failed = begin(store.as_ref()).await?;
    // The groups mix batches of the three uploads.
    let three = [failed, receiving, also_failed];
    let batches: Vec<_> = three
        .into_iter()
        .map(|id| sample::batches(id, 3, 10))
        .collect::<Result<_>>()?;
    for ((one, two), three) in batches[0].iter().zip(&batches[1]).zip(&batches[2]) {
        store_new(store.as_ref(), &[one.clone(), two.clone(), three.clone()]).await?;
    }
    fail(store.as_ref(), failed).await?;
    fail(store.as_ref(), also_failed).await?;
    remove_all(store.as_ref(), failed).await?;
    for (id, left) in [
        (failed, 0),
        (also_failed, 30),
        (receiving, 30),
        (completed, 30),
    ] {
        ensure!(
            fixture.rows_in_table(id).await? == left,
            "upload {id} does not have {left} rows"
        );
    }
    ensure!(find(store.as_ref(), also_failed).await?.cleanup_pending);
    ensure!(store.ledger(first(receiving)).await?.len() == 3);
    end_well(store.as_ref(), receiving, 3, 30).await?;
    for id in [receiving, completed] {
        check_sample_rows(store.as_ref(), id, 30).await?;
    }
    Ok(())
}

pub(crate) async fn rows_of_receiving_and_completed_uploads_are_never_removed<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let completed = complete(store.as_ref(), 1, 10).await?;
    let receiving = begin(store.as_ref()).await?;
    store_new(store.as_ref(), &sample::batches(receiving, 1, 10)?).await?;
    for id in [completed, receiving] {
        ensure!(store.remove_rows(id).await? == Removal::Done);
        ensure!(fixture.rows_in_table(id).await? == 10);
        ensure!(store.ledger(first(id)).await?.len() == 1);
    }
    let unknown = UploadId::generate();
    ensure!(store.remove_rows(unknown).await? == Removal::Done);
    check_sample_rows(store.as_ref(), completed, 10).await?;
    end_well(store.as_ref(), receiving, 1, 10).await
}

pub(crate) async fn concurrent_removals_of_an_upload_succeed<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handles = [fixture.open().await?, fixture.open().await?];
    let store = handles[0].as_ref();
    let id = begin(store).await?;
    store_new(store, &sample::batches(id, MANY / 1000, 1000)?).await?;
    fail(store, id).await?;
    let removers = handles.iter().map(|store| {
        let store = store.clone();
        tokio::spawn(async move {
            loop {
                match store.remove_rows(id).await? {
                    Removal::More => {}
                    // `Busy` means that the other task is removing the rows.
                    Removal::Busy | Removal::Done => return anyhow::Ok(()),
                }
            }
        })
    });
    for removed in try_join_all(removers).await? {
        removed?;
    }
    remove_all(store, id).await?;
    ensure!(fixture.rows_in_table(id).await? == 0);
    ensure!(!find(store, id).await?.cleanup_pending);
    Ok(())
}
