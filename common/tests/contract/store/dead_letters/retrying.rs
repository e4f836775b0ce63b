//! Dead letters are retried, once and without a loss.

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::store::{Completed, Parked, Retried, RetryScope, StoreOutcome};
use carga_common::upload::Status;
use futures::future::{try_join, try_join_all};

use super::{ROWS, check_dead, partial, publish_all, retry, with_rows};
use crate::sample::{self, first, in_epoch};
use crate::store::{
    StoreFixture, begin, check_sample_rows, check_status, fail, find, remove_all, seal, set_back,
    store_new,
};

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) async fn a_retried_upload_completes_in_the_same_epoch<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let id = partial(store.as_ref()).await?;
    // Two people press the button at the same time, and one presses it again.
    let both = try_join(
        store.retry(first(id), RetryScope::Upload),
        other.retry(first(id), RetryScope::Upload),
    );
    let (one, two) = both.await?;
    let counts = [Retried::Batches(2), Retried::Batches(0)];
    ensure!(counts.contains(&one) && counts.contains(&two) && one != two);
    retry(store.as_ref(), id, RetryScope::Upload, 0).await?;

    let store = store.as_ref();
    let upload = find(store, id).await?;
    ensure!(upload.status == Status::Processing && upload.epoch == 1.into());
    ensure!(upload.finished_at.is_none() && upload.rows_inserted.is_none());
    check_dead(store, id, [0, 2, 0]).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::No);
    ensure!(publish_all(store).await? == [2, 3]);
    store_new(store, &sample::batches(id, 3, ROWS)?[1..]).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    check_status(store, id, Status::Completed).await?;
    check_dead(store, id, [0, 0, 0]).await?;
    ensure!(find(store, id).await?.rows_inserted == Some(15));
    check_sample_rows(store, id, 15).await?;
    // No message is left, and a further retry changes nothing.
    ensure!(store.dead_letters(0, 10).await?.is_empty());
    retry(store, id, RetryScope::Upload, 0).await?;
    check_status(store, id, Status::Completed).await
}

pub(crate) async fn a_retry_of_one_batch_or_row_leaves_the_others<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let id = partial(store).await?;
    // Row 12 is in the third batch.
    retry(store, id, RetryScope::Row(12), 1).await?;
    retry(store, id, RetryScope::Row(12), 0).await?;
    retry(store, id, RetryScope::Row(1), 0).await?;
    check_dead(store, id, [1, 1, 5]).await?;
    ensure!(publish_all(store).await? == [3]);
    let batches = sample::batches(id, 3, ROWS)?;
    store_new(store, &batches[2..]).await?;
    ensure!(store.complete(first(id), 1).await? == Completed::Yes);
    check_status(store, id, Status::Partial).await?;
    check_dead(store, id, [1, 0, 5]).await?;

    retry(store, id, RetryScope::Batch(3), 0).await?;
    check_status(store, id, Status::Partial).await?;
    retry(store, id, RetryScope::Batch(2), 1).await?;
    ensure!(publish_all(store).await? == [2]);
    store_new(store, &batches[1..2]).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    check_status(store, id, Status::Completed).await?;
    check_sample_rows(store, id, 15).await
}

pub(crate) async fn a_dead_letter_is_retried_before_its_upload_ends<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let id = begin(store).await?;
    store.park(&with_rows(id, 1)).await?;
    retry(store, id, RetryScope::Upload, 1).await?;
    check_status(store, id, Status::Receiving).await?;
    ensure!(store.seal(first(id), &seal(1, 5)).await?);
    ensure!(store.complete(first(id), 0).await? == Completed::No);
    ensure!(publish_all(store).await? == [1]);
    store_new(store, &sample::batches(id, 1, ROWS)?).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    check_status(store, id, Status::Completed).await
}

pub(crate) async fn a_retried_message_is_claimed_by_one_process<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let id = partial(store.as_ref()).await?;
    ensure!(store.claim_retried(10).await?.is_empty());
    retry(store.as_ref(), id, RetryScope::Upload, 2).await?;
    let claims = [&store, &other, &store, &other].map(|store| store.claim_retried(1));
    let claimed = try_join_all(claims).await?.concat();
    let mut seqs: Vec<u32> = claimed.iter().map(|batch| batch.id.seq).collect();
    seqs.sort_unstable();
    ensure!(seqs == [2, 3], "{seqs:?}");
    let letter = with_rows(id, 2);
    ensure!(claimed.iter().all(|batch| batch.body == letter.body));
    ensure!(claimed.iter().all(|batch| batch.rows == ROWS));

    // One process has published its message, and the other one has died.
    store.mark_published(&[claimed[0].number]).await?;
    let long_ago = "UPDATE parked_batches SET claimed_at = '2020-01-01T00:00:00.000000Z'";
    fixture.execute(long_ago).await?;
    let again = other.claim_retried(10).await?;
    ensure!(
        again.len() == 1 && again[0].number == claimed[1].number,
        "{again:?}"
    );
    Ok(())
}

pub(crate) async fn a_retried_batch_that_fails_again_is_a_dead_letter_again<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let id = partial(store).await?;
    retry(store, id, RetryScope::Batch(2), 1).await?;
    // The broker delivers a dead letter again that was parked before the retry.
    ensure!(store.park(&with_rows(id, 2)).await? == Parked::Kept);
    check_dead(store, id, [1, 1, 5]).await?;
    ensure!(publish_all(store).await? == [2]);

    let mut failed = with_rows(id, 2);
    failed.reason = "still does not fit".to_owned();
    failed.attempts = 3;
    ensure!(store.park(&failed).await? == Parked::Kept);
    check_dead(store, id, [2, 0, 10]).await?;
    let letters = store.dead_letters(0, 10).await?;
    let letter = letters.iter().find(|letter| letter.id == failed.id);
    let is_renewed = letter.is_some_and(|letter| {
        letter.reason == failed.reason && letter.attempts == 7 && letter.retried_at.is_none()
    });
    ensure!(is_renewed, "{letter:?}");
    ensure!(store.complete(first(id), 2).await? == Completed::Yes);
    check_status(store, id, Status::Partial).await?;
    retry(store, id, RetryScope::Upload, 2).await?;
    ensure!(publish_all(store).await? == [2, 3]);
    Ok(())
}

pub(crate) async fn an_upload_that_keeps_no_rows_is_not_retried<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let (undone, failed, expired) = (
        partial(store).await?,
        begin(store).await?,
        partial(store).await?,
    );
    ensure!(store.undo(first(undone)).await?);
    store.park(&with_rows(failed, 1)).await?;
    fail(store, failed).await?;
    set_back(fixture, expired, 2 * HOUR).await?;
    ensure!(store.expire_rows(HOUR).await? == 1);
    for key in [
        first(undone),
        in_epoch(undone, 2),
        first(failed),
        first(expired),
    ] {
        let retried = store.retry(key, RetryScope::Upload).await?;
        ensure!(retried == Retried::Ended, "{key}: {retried:?}");
    }
    ensure!(store.claim_retried(10).await?.is_empty());
    remove_all(store, expired).await?;
    check_status(store, expired, Status::Partial).await
}

pub(crate) async fn a_copy_of_a_dead_letter_is_not_stored_after_the_end<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let id = partial(store).await?;
    let outcome = store.store(&sample::batches(id, 3, ROWS)?[1..2]).await?;
    ensure!(
        outcome == [StoreOutcome::Replay { rejected: 0 }],
        "{outcome:?}"
    );
    check_dead(store, id, [2, 0, 10]).await?;
    check_sample_rows(store, id, 5).await
}
