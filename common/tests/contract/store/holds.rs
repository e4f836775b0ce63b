//! Lost batches are noticed, and their upload ends once.

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::store::{Completed, Retried, RetryScope, Store};
use carga_common::upload::{Status, UploadId};
use futures::future::try_join_all;

use super::dead_letters::dead;
use super::{StoreFixture, begin, check_status, complete, find, remove_all, seal, store_new};
use crate::sample::{self, first, in_epoch};

/// Longer than any test takes.
const HOUR: Duration = Duration::from_secs(3600);

/// An upload that was sealed with two batches, of which one is stored. Everything that happened to
/// it was years ago.
async fn with_a_missing_batch<F: StoreFixture>(fixture: &F, store: &dyn Store) -> Result<UploadId> {
    let id = begin(store).await?;
    store_new(store, &sample::batches(id, 1, 5)?).await?;
    ensure!(store.seal(first(id), &seal(2, 10)).await?);
    let long_ago = "'2020-01-01T00:00:00.000000Z'";
    for statement in [
        format!("UPDATE uploads SET updated_at = {long_ago} WHERE id = '{id}'"),
        format!("UPDATE batches SET stored_at = {long_ago} WHERE upload_id = '{id}'"),
    ] {
        fixture.execute(&statement).await?;
    }
    Ok(id)
}

pub(super) async fn an_upload_with_a_missing_batch_is_found_and_marked<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let id = with_a_missing_batch(fixture, store.as_ref()).await?;
    ensure!(find(store.as_ref(), id).await?.missing_since.is_none());
    let missing = store.quiet_uploads(HOUR).await?;
    ensure!(missing == [first(id)], "{missing:?}");
    store.mark_missing(&missing).await?;
    let since = find(other.as_ref(), id).await?.missing_since;
    ensure!(since.is_some());
    // Marking again keeps the time, and an empty list ends the mark.
    other.mark_missing(&missing).await?;
    ensure!(find(store.as_ref(), id).await?.missing_since == since);
    other.mark_missing(&[]).await?;
    ensure!(find(store.as_ref(), id).await?.missing_since.is_none());
    Ok(())
}

pub(super) async fn only_a_sealed_upload_with_missing_batches_is_quiet<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    begin(store).await?;
    complete(store, 1, 5).await?;
    // All of its batches are stored, and only its end is missing.
    let unfinished = begin(store).await?;
    store_new(store, &sample::batches(unfinished, 1, 5)?).await?;
    ensure!(store.seal(first(unfinished), &seal(1, 5)).await?);
    // This one has a dead letter, so its batch is not lost.
    let dead_letter = begin(store).await?;
    ensure!(store.seal(first(dead_letter), &seal(1, 5)).await?);
    let batch = sample::batch(dead_letter)?.batch.id;
    store.park(&dead(Some(batch))).await?;
    let recent = begin(store).await?;
    ensure!(store.seal(first(recent), &seal(1, 5)).await?);

    ensure!(store.quiet_uploads(HOUR).await?.is_empty());
    ensure!(store.quiet_uploads(Duration::ZERO).await? == [first(recent)]);
    Ok(())
}

pub(super) async fn a_hold_or_a_stored_batch_ends_the_quiet<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let (held, stored) = (
        with_a_missing_batch(fixture, store).await?,
        with_a_missing_batch(fixture, store).await?,
    );
    store.mark_missing(&[first(held), first(stored)]).await?;
    // A worker may hold messages of another installation, whose uploads are unknown here.
    store.hold(&[held, UploadId::generate()]).await?;
    ensure!(store.quiet_uploads(HOUR).await? == [first(stored)]);
    ensure!(find(store, held).await?.missing_since.is_none());
    ensure!(!store.fail_lost(first(held), HOUR).await?);

    fixture
        .execute(&format!(
            "UPDATE uploads SET batches_total = 3 WHERE id = '{stored}'"
        ))
        .await?;
    store_new(store, &sample::batches(stored, 2, 5)?[1..]).await?;
    ensure!(store.quiet_uploads(HOUR).await?.is_empty());
    ensure!(!store.fail_lost(first(stored), HOUR).await?);
    check_status(store, stored, Status::Processing).await
}

pub(super) async fn an_upload_with_lost_batches_is_ended_once<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handles = [fixture.open().await?, fixture.open().await?];
    let store = handles[0].as_ref();
    let id = with_a_missing_batch(fixture, store).await?;
    ensure!(!store.fail_lost(in_epoch(id, 2), HOUR).await?);
    let calls = handles.iter().map(|store| store.fail_lost(first(id), HOUR));
    let ended = try_join_all(calls).await?;
    ensure!(ended[0] != ended[1], "{ended:?}");
    let upload = find(store, id).await?;
    ensure!(upload.status == Status::Failed && upload.cleanup_pending);
    ensure!(
        upload
            .failure
            .is_some_and(|failure| failure.code == "batches_lost")
    );
    remove_all(store, id).await?;
    ensure!(fixture.rows_in_table(id).await? == 0);
    Ok(())
}

pub(super) async fn a_lost_batch_that_appears_again_completes_its_upload<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let id = with_a_missing_batch(fixture, store).await?;
    store.mark_missing(&[first(id)]).await?;
    store_new(store, &sample::batches(id, 2, 5)?[1..]).await?;
    ensure!(!store.fail_lost(first(id), HOUR).await?);
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    store.mark_missing(&[]).await?;
    ensure!(find(store, id).await?.missing_since.is_none());
    Ok(())
}

pub(super) async fn a_lost_retry_is_a_dead_letter_again<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let id = begin(store).await?;
    let batch = sample::batch(id)?.batch.id;
    store.park(&dead(Some(batch))).await?;
    ensure!(store.seal(first(id), &seal(1, 5)).await?);
    ensure!(store.complete(first(id), 1).await? == Completed::Yes);
    ensure!(store.retry(first(id), RetryScope::Upload).await? == Retried::Batches(1));
    // The message waits for the queue, so it is not lost.
    ensure!(store.quiet_uploads(Duration::ZERO).await?.is_empty());
    let claimed = store.claim_retried(1).await?;
    ensure!(store.quiet_uploads(Duration::ZERO).await?.is_empty());
    store.mark_published(&[claimed[0].number]).await?;
    ensure!(store.quiet_uploads(Duration::ZERO).await? == [first(id)]);

    // The upload does not fail, because its message can be retried again.
    ensure!(!store.fail_lost(first(id), Duration::ZERO).await?);
    ensure!(store.quiet_uploads(Duration::ZERO).await?.is_empty());
    ensure!(find(store, id).await?.batches_dead == 1);
    ensure!(store.complete(first(id), 1).await? == Completed::Yes);
    ensure!(store.retry(first(id), RetryScope::Upload).await? == Retried::Batches(1));
    check_status(store, id, Status::Processing).await
}
