//! An upload completes when every row is accounted for, and only then.

use anyhow::{Result, ensure};
use carga_common::store::{Completed, Completion, Store};
use carga_common::upload::{Status, UploadId};
use futures::future::try_join_all;

use super::{
    StoreFixture, begin, check_sample_rows, check_status, complete, fail, find, rows, seal,
    store_new,
};
use crate::sample::{self, first};

pub(super) async fn an_upload_is_not_complete_while_a_batch_is_missing<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    let batches = sample::batches(id, 3, 10)?;
    ensure!(store.seal(first(id), &seal(3, 30)).await?);
    // The batch in the middle is stored last.
    for next in [2, 0, 1] {
        check_incomplete(store.as_ref(), id).await?;
        store_new(store.as_ref(), &batches[next..=next]).await?;
    }
    let Completion::Ready {
        upload,
        violating,
        dead: 0,
    } = store.completion(id).await?
    else {
        anyhow::bail!("the upload is not ready to complete");
    };
    ensure!(upload.key() == first(id) && upload.rows_read == 30);
    ensure!(violating == 0);
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    check_sample_rows(store.as_ref(), id, 30).await
}

async fn check_incomplete(store: &dyn Store, id: UploadId) -> Result<()> {
    let completion = store.completion(id).await?;
    ensure!(
        matches!(completion, Completion::Incomplete),
        "{completion:?}"
    );
    ensure!(store.complete(first(id), 0).await? == Completed::No);
    ensure!(rows(store, id).await?.is_empty());
    Ok(())
}

pub(super) async fn an_upload_is_not_complete_before_it_is_sealed<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    check_incomplete(store.as_ref(), id).await?;
    store_new(store.as_ref(), &sample::batches(id, 2, 10)?).await?;
    check_incomplete(store.as_ref(), id).await?;
    check_status(store.as_ref(), id, Status::Receiving).await
}

pub(super) async fn an_upload_without_rows_completes<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    ensure!(store.seal(first(id), &seal(0, 0)).await?);
    let completion = store.completion(id).await?;
    let is_ready = matches!(completion, Completion::Ready { violating: 0, .. });
    ensure!(is_ready, "{completion:?}");
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    ensure!(find(store.as_ref(), id).await?.rows_inserted == Some(0));
    check_sample_rows(store.as_ref(), id, 0).await
}

/// Every worker checks for completion after its commit, and the API does after the seal. The last
/// of them sees every batch.
pub(super) async fn concurrent_last_batches_complete_an_upload_exactly_once<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const ROUNDS: usize = 10;
    const BATCHES: u32 = 8;
    let handles = [fixture.open().await?, fixture.open().await?];
    for _ in 0..ROUNDS {
        let id = begin(handles[0].as_ref()).await?;
        let batches = sample::batches(id, BATCHES, 5)?;
        let mut all = Vec::new();
        for (number, batch) in batches.into_iter().enumerate() {
            let store = handles[number % 2].clone();
            all.push(tokio::spawn(async move {
                store_new(store.as_ref(), &[batch]).await?;
                finish(store.as_ref(), id).await
            }));
        }
        let api = handles[1].clone();
        all.push(tokio::spawn(async move {
            ensure!(api.seal(first(id), &seal(BATCHES, 40)).await?);
            finish(api.as_ref(), id).await
        }));
        let mut completed = 0;
        for ended in try_join_all(all).await? {
            completed += usize::from(ended?);
        }
        ensure!(completed == 1, "the upload was completed {completed} times");
        check_sample_rows(handles[0].as_ref(), id, 40).await?;
    }
    Ok(())
}

/// Completes the upload if it is ready. Returns whether this call completed it.
async fn finish(store: &dyn Store, id: UploadId) -> Result<bool> {
    match store.completion(id).await? {
        Completion::Ready { upload, .. } => {
            Ok(store.complete(upload.key(), 0).await? == Completed::Yes)
        }
        Completion::Incomplete | Completion::Ended => Ok(false),
        other => anyhow::bail!("{other:?}"),
    }
}

pub(super) async fn row_counts_that_do_not_add_up_are_a_mismatch<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    // Two batches of ten rows are stored. The seal announces too few rows, too many rows or too few
    // batches.
    for (batches, read) in [(2, 19), (2, 21), (1, 20)] {
        let id = begin(store.as_ref()).await?;
        store_new(store.as_ref(), &sample::batches(id, 2, 10)?).await?;
        ensure!(store.seal(first(id), &seal(batches, read)).await?);
        let completion = store.completion(id).await?;
        let Completion::Mismatch {
            read: reported,
            stored,
            rejected: 0,
        } = completion
        else {
            anyhow::bail!("{batches} batches and {read} rows: {completion:?}");
        };
        ensure!(
            (reported, stored) == (read, 20),
            "expected ({read}, 20), found ({reported}, {stored})"
        );
        ensure!(store.complete(first(id), 0).await? == Completed::No);
        check_status(store.as_ref(), id, Status::Processing).await?;
        ensure!(rows(store.as_ref(), id).await?.is_empty());
    }
    Ok(())
}

pub(super) async fn an_ended_upload_is_reported_as_ended<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let completed = complete(store.as_ref(), 1, 10).await?;
    let failed = begin(store.as_ref()).await?;
    ensure!(store.seal(first(failed), &seal(0, 0)).await?);
    fail(store.as_ref(), failed).await?;
    for id in [completed, failed] {
        let completion = store.completion(id).await?;
        ensure!(matches!(completion, Completion::Ended), "{completion:?}");
        ensure!(store.complete(first(id), 0).await? == Completed::No);
    }
    check_status(store.as_ref(), failed, Status::Failed).await
}

pub(super) async fn a_completed_upload_has_its_final_figures<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = complete(store.as_ref(), 3, 10).await?;
    let upload = find(store.as_ref(), id).await?;
    ensure!(upload.status == Status::Completed, "{upload:?}");
    ensure!(upload.rows_inserted == Some(30), "{upload:?}");
    ensure!(upload.rows_violating == Some(0), "{upload:?}");
    ensure!((upload.rows_read, upload.bytes_received) == (30, 300));
    ensure!(upload.batches_total == Some(3) && upload.batches_dead == 0);
    ensure!(upload.sha256 == Some([7; 32].into()), "{upload:?}");
    ensure!(upload.failure.is_none() && !upload.cleanup_pending);
    ensure!(upload.finished_at >= Some(upload.created_at), "{upload:?}");
    ensure!(upload.updated_at >= upload.created_at, "{upload:?}");
    Ok(())
}
