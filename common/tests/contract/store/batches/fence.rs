//! After an upload has failed, none of its batches is stored.

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::store::{Store, StoreOutcome};
use carga_common::upload::{Status, UploadId};
use carga_testkit::eventually;
use futures::future::try_join_all;

use crate::sample::{self, first, in_epoch};
use crate::store::{
    STORED, StoreFixture, begin, check_status, complete, end_well, fail, find, remove_all, rows,
    store_new,
};

pub(crate) async fn a_batch_of_a_failed_upload_is_fenced_and_leaves_no_row<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let id = begin(store.as_ref()).await?;
    let batches = sample::batches(id, 3, 100)?;
    store_new(store.as_ref(), &batches[..1]).await?;
    fail(store.as_ref(), id).await?;
    // Both new and stored batches are fenced, before and after the rows are removed.
    for store in [&store, &other] {
        let outcomes = store.store(&batches).await?;
        ensure!(outcomes == [StoreOutcome::Fenced; 3], "{outcomes:?}");
    }
    ensure!(rows(store.as_ref(), id).await?.is_empty());
    remove_all(store.as_ref(), id).await?;
    ensure!(store.store(&batches).await? == [StoreOutcome::Fenced; 3]);
    ensure!(fixture.rows_in_table(id).await? == 0);
    ensure!(store.ledger(first(id)).await?.is_empty());
    check_status(store.as_ref(), id, Status::Failed).await
}

/// The upload fails while workers store its batches, and its rows are removed at once.
pub(crate) async fn a_batch_being_stored_does_not_outlive_a_failure<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const ROUNDS: usize = 10;
    const WORKERS: u32 = 4;
    let handles = [fixture.open().await?, fixture.open().await?];
    let store = handles[0].as_ref();
    for round in 0..ROUNDS {
        let id = begin(store).await?;
        let workers = (0..WORKERS).map(|number| {
            let store = handles[number as usize % 2].clone();
            tokio::spawn(async move {
                let mine = (number + 1..).step_by(WORKERS as usize);
                store_until_fenced(store.as_ref(), id, mine).await
            })
        });
        let workers: Vec<_> = workers.collect();
        // In every round the upload fails at a different moment.
        let stored_before_failure = 2 + 4 * round;
        eventually(
            Duration::from_secs(60),
            "some batches to be stored",
            async || {
                let ledger = store.ledger(first(id)).await;
                ledger.is_ok_and(|ledger| ledger.len() >= stored_before_failure)
            },
        )
        .await?;
        fail(store, id).await?;
        remove_all(store, id).await?;
        for fenced in try_join_all(workers).await? {
            fenced?;
        }
        ensure!(fixture.rows_in_table(id).await? == 0);
        ensure!(store.ledger(first(id)).await?.is_empty());
        ensure!(!find(store, id).await?.cleanup_pending);
    }
    Ok(())
}

/// Stores batches with these numbers, two at a time, until they are fenced.
async fn store_until_fenced(
    store: &dyn Store,
    id: UploadId,
    seqs: impl Iterator<Item = u32>,
) -> Result<()> {
    const ROWS: u64 = 10;
    let mut group = Vec::new();
    for seq in seqs {
        let first = u64::from(seq - 1) * ROWS + 1;
        group.push(sample::batch_of(id, seq, first..first + ROWS)?);
        if group.len() < 2 {
            continue;
        }
        // Both batches have the same upload, so both get the same outcome.
        let mut outcomes = store.store(&group).await?;
        while outcomes == [StoreOutcome::Locked; 2] {
            outcomes = store.store(&group).await?;
        }
        if outcomes == [StoreOutcome::Fenced; 2] {
            break;
        }
        ensure!(outcomes == [STORED; 2], "{outcomes:?}");
        group.clear();
    }
    Ok(())
}

/// The store does not check a batch that is fenced; only a batch that could be stored can be
/// invalid.
pub(crate) async fn a_fenced_batch_is_not_validated<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let (failed, unknown) = (begin(store.as_ref()).await?, UploadId::generate());
    let other = begin(store.as_ref()).await?;
    fail(store.as_ref(), failed).await?;
    let invalid = |id| sample::by_hand(id, 1, &sample::columns(), r#"[["7","\u0000"]]"#);
    let group = [
        sample::archived(invalid(failed)?),
        sample::archived(invalid(unknown)?),
        sample::batch(other)?,
    ];
    let outcomes = store.store(&group).await?;
    let expected = [StoreOutcome::Fenced, StoreOutcome::UnknownUpload, STORED];
    ensure!(outcomes == expected, "{outcomes:?}");
    Ok(())
}

pub(crate) async fn a_batch_of_another_epoch_is_fenced<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let receiving = begin(store.as_ref()).await?;
    let completed = complete(store.as_ref(), 1, 1).await?;
    for (id, rows) in [(receiving, 0), (completed, 1)] {
        for epoch in [0, 2] {
            let mut batch = sample::batch(id)?;
            batch.batch.id.upload = in_epoch(id, epoch);
            let outcomes = store.store(&[batch]).await?;
            ensure!(outcomes == [StoreOutcome::Fenced], "{outcomes:?}");
            ensure!(store.ledger(in_epoch(id, epoch)).await?.is_empty());
        }
        ensure!(fixture.rows_in_table(id).await? == rows);
    }
    Ok(())
}

pub(crate) async fn a_batch_of_an_unknown_upload_is_reported<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = UploadId::generate();
    let batch = sample::batch(id)?;
    let outcomes = store.store(std::slice::from_ref(&batch)).await?;
    ensure!(outcomes == [StoreOutcome::UnknownUpload], "{outcomes:?}");
    ensure!(fixture.rows_in_table(id).await? == 0);
    ensure!(store.ledger(first(id)).await?.is_empty());
    // The first attempt left nothing behind that prevents storing the batch later.
    let new = crate::store::new_upload(id, sample::columns());
    store.create(&new).await?;
    store_new(store.as_ref(), &[batch]).await?;
    end_well(store.as_ref(), id, 1, 1).await
}
