//! Uploads that are cancelled before their end or undone afterwards.

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::store::{Completed, StoreOutcome};
use carga_common::tenant::Tenant;
use carga_common::upload::Status;
use futures::future::try_join_all;

use crate::sample::{self, first, in_epoch};
use crate::store::{
    StoreFixture, begin, complete, end_well, fail, find, remove_all, rows, seal, store_new,
};

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) async fn a_cancelled_upload_stores_nothing_more_and_leaves_no_row<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (receiving, sealed) = (begin(store.as_ref()).await?, begin(store.as_ref()).await?);
    ensure!(store.seal(first(sealed), &seal(2, 20)).await?);
    for id in [receiving, sealed] {
        let batches = sample::batches(id, 2, 10)?;
        store_new(store.as_ref(), &batches[..1]).await?;
        ensure!(
            !store.cancel(in_epoch(id, 2)).await?,
            "cancelled in another epoch"
        );
        ensure!(store.cancel(first(id)).await?);
        ensure!(store.store(&batches[1..]).await? == [StoreOutcome::Fenced]);
        remove_all(store.as_ref(), id).await?;
        ensure!(fixture.rows_in_table(id).await? == 0);
        let upload = find(store.as_ref(), id).await?;
        ensure!(
            upload.status == Status::Cancelled && upload.failure.is_none(),
            "{upload:?}"
        );
        ensure!(
            upload.finished_at.is_some() && !upload.cleanup_pending,
            "{upload:?}"
        );
    }
    ensure!(!store.seal(first(receiving), &seal(2, 20)).await?);
    let leftovers = store.leftovers(HOUR, Duration::ZERO).await?;
    ensure!(leftovers.to_unarchive.contains(&receiving), "{leftovers:?}");
    Ok(())
}

pub(crate) async fn an_ended_upload_is_not_cancelled<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let (completed, failed) = (
        complete(store.as_ref(), 1, 10).await?,
        begin(store.as_ref()).await?,
    );
    fail(store.as_ref(), failed).await?;
    ensure!(!store.cancel(first(completed)).await?);
    ensure!(!store.cancel(first(failed)).await?);
    ensure!(find(store.as_ref(), completed).await?.status == Status::Completed);
    ensure!(find(store.as_ref(), failed).await?.status == Status::Failed);
    ensure!(rows(store.as_ref(), completed).await?.len() == 10);
    Ok(())
}

pub(crate) async fn an_undone_upload_leaves_no_row_and_no_archive<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (id, other) = (
        complete(store.as_ref(), 2, 10).await?,
        complete(store.as_ref(), 2, 10).await?,
    );
    ensure!(store.undo(first(id)).await?);
    ensure!(rows(store.as_ref(), id).await?.is_empty());
    // A redelivered batch belongs to the previous epoch.
    let outcomes = store.store(&sample::batches(id, 1, 10)?).await?;
    ensure!(outcomes == [StoreOutcome::Fenced], "{outcomes:?}");
    let leftovers = store.leftovers(HOUR, HOUR).await?;
    ensure!(leftovers.to_remove == [id], "{leftovers:?}");
    // The archive is listed at once, since an archive with a manifest counts as stored data.
    ensure!(leftovers.to_unarchive == [id], "{leftovers:?}");
    // It stays listed, since a worker may still write to it.
    store.archive_removed(id).await?;
    let leftovers = store.leftovers(HOUR, HOUR).await?;
    ensure!(leftovers.to_unarchive == [id], "{leftovers:?}");
    remove_all(store.as_ref(), id).await?;
    ensure!(fixture.rows_in_table(id).await? == 0);
    let upload = find(store.as_ref(), id).await?;
    ensure!(
        upload.status == Status::Undone && upload.key() == in_epoch(id, 2),
        "{upload:?}"
    );
    ensure!(
        upload.rows_read == 20 && upload.rows_inserted.is_none(),
        "{upload:?}"
    );
    ensure!(rows(store.as_ref(), other).await?.len() == 20);
    Ok(())
}

pub(crate) async fn an_upload_is_undone_once_and_only_if_it_ended_well<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (failed, receiving) = (begin(store.as_ref()).await?, begin(store.as_ref()).await?);
    fail(store.as_ref(), failed).await?;
    for id in [failed, receiving] {
        ensure!(!store.undo(first(id)).await?);
    }
    let id = complete(store.as_ref(), 1, 10).await?;
    ensure!(
        !store.undo(in_epoch(id, 2)).await?,
        "undone in another epoch"
    );
    ensure!(store.undo(first(id)).await?);
    ensure!(!store.undo(first(id)).await? && !store.undo(in_epoch(id, 2)).await?);
    Ok(())
}

pub(crate) async fn same_content_is_found_only_while_its_rows_are_visible<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (tenant, content) = (Tenant::default(), seal(1, 10).sha256);
    let id = begin(store.as_ref()).await?;
    store_new(store.as_ref(), &sample::batches(id, 1, 10)?).await?;
    let another = begin(store.as_ref()).await?;
    ensure!(
        store
            .same_content(&tenant, content, another)
            .await?
            .is_none()
    );
    end_well(store.as_ref(), id, 1, 10).await?;
    ensure!(store.same_content(&tenant, content, another).await? == Some(id));
    ensure!(
        store.same_content(&tenant, content, id).await?.is_none(),
        "the upload is its own duplicate"
    );
    ensure!(
        store
            .same_content(&tenant, [8; 32].into(), another)
            .await?
            .is_none()
    );
    ensure!(store.undo(first(id)).await?);
    ensure!(
        store
            .same_content(&tenant, content, another)
            .await?
            .is_none()
    );
    Ok(())
}

pub(crate) async fn of_concurrent_claims_to_one_content_a_single_one_succeeds<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let content = [9; 32].into();
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(begin(store.as_ref()).await?);
    }
    let stores = [&store, &other];
    let claims = ids.iter().zip(stores.iter().cycle());
    let claims = claims.map(|(id, store)| store.claim_content(first(*id), content));
    let holders = try_join_all(claims).await?;
    let claimed: Vec<_> = ids
        .iter()
        .zip(&holders)
        .filter(|(_, holder)| holder.is_none())
        .map(|(id, _)| *id)
        .collect();
    ensure!(claimed.len() == 1, "{holders:?}");
    let others = holders.iter().flatten();
    ensure!(
        others.clone().all(|holder| *holder == claimed[0]),
        "{holders:?}"
    );
    // The holder may repeat its claim, and its failure releases the content.
    ensure!(
        store
            .claim_content(first(claimed[0]), content)
            .await?
            .is_none()
    );
    fail(store.as_ref(), claimed[0]).await?;
    let rest: Vec<_> = ids.iter().filter(|id| **id != claimed[0]).collect();
    ensure!(
        store
            .claim_content(first(*rest[0]), content)
            .await?
            .is_none()
    );
    ensure!(store.claim_content(first(*rest[1]), content).await? == Some(*rest[0]));
    Ok(())
}

pub(crate) async fn an_upload_holds_its_content_while_it_is_processed_and_afterwards<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (holder, other) = (begin(store.as_ref()).await?, begin(store.as_ref()).await?);
    let sealed = seal(1, 1);
    let claim = async |id| store.claim_content(first(id), sealed.sha256).await;
    ensure!(claim(holder).await?.is_none());
    ensure!(claim(other).await? == Some(holder), "while it is received");
    ensure!(store.seal(first(holder), &sealed).await?);
    ensure!(claim(other).await? == Some(holder), "while it is processed");
    store_new(store.as_ref(), &[sample::batch(holder)?]).await?;
    ensure!(store.complete(first(holder), 0).await? == Completed::Yes);
    ensure!(
        claim(other).await? == Some(holder),
        "after it has completed"
    );
    ensure!(store.undo(first(holder)).await?);
    ensure!(claim(other).await?.is_none(), "after it was undone");
    Ok(())
}
