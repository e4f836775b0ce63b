//! A dead letter is kept once, listed and counted.

use anyhow::{Context, Result, ensure};
use carga_common::batch::BatchId;
use carga_common::store::{BatchQuery, BatchStatus, Completed, Completion, Parked, RetryScope};
use carga_common::upload::{Status, UploadId};
use futures::future::try_join;

use super::{ROWS, check_dead, dead, dead_batch, partial, retry, with_rows};
use crate::sample::{self, first};
use crate::store::{
    StoreFixture, begin, check_sample_rows, check_status, end_well, find, remove_all, seal,
    store_new,
};

pub(crate) async fn a_dead_letter_is_kept_once_and_counted<F: StoreFixture>(
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
    // A dead letter of another epoch is not kept.
    ensure!(store.park(&dead_batch(id, 2, 9)).await? == Parked::Ended);
    ensure!(find(store.as_ref(), id).await?.batches_dead == 2);
    ensure!(find(store.as_ref(), untouched).await?.batches_dead == 0);
    // A dead letter does not change the status of its upload.
    check_status(store.as_ref(), id, Status::Receiving).await
}

pub(crate) async fn a_dead_letter_of_a_stored_batch_is_not_kept<F: StoreFixture>(
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

pub(crate) async fn a_dead_letter_without_an_upload_is_kept<F: StoreFixture>(
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
    let listed = store.dead_letters(0, 10).await?;
    let ids: Vec<_> = listed.iter().map(|letter| letter.id).collect();
    ensure!(ids == [None, None, of_unknown_upload.id], "{ids:?}");
    ensure!(listed.iter().all(|letter| letter.upload.is_none()));
    Ok(())
}

pub(crate) async fn dead_letters_are_listed_with_their_messages<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let id = begin(store).await?;
    let (decoded, broken) = (with_rows(id, 7), dead_batch(id, 1, 8));
    for letter in [&decoded, &broken] {
        store.park(letter).await?;
    }
    let first_page = store.dead_letters(0, 1).await?;
    let found = first_page.first().context("no dead letter")?;
    ensure!(found.id == decoded.id && found.upload == Some(id));
    ensure!(found.rows == decoded.rows && found.attempts == 4);
    ensure!(found.reason == decoded.reason && found.retried_at.is_none());
    let second_page = store.dead_letters(found.number, 10).await?;
    ensure!(second_page.len() == 1 && second_page[0].id == broken.id);
    ensure!(second_page[0].rows.is_none());
    let body = store.dead_message(broken.id.context("no id")?).await?;
    ensure!(body == Some(broken.body));
    let none = BatchId {
        upload: first(id),
        seq: 9,
    };
    ensure!(store.dead_message(none).await?.is_none());
    Ok(())
}

pub(crate) async fn an_upload_ends_without_its_dead_letters<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let id = begin(store).await?;
    let batches = sample::batches(id, 3, ROWS)?;
    store_new(store, &batches[..1]).await?;
    // The rows of the second message are not known.
    store.park(&with_rows(id, 2)).await?;
    ensure!(store.seal(first(id), &seal(3, 15)).await?);
    check_dead(store, id, [1, 0, 5]).await?;
    let completion = store.completion(id).await?;
    let is_incomplete = matches!(completion, Completion::Incomplete);
    ensure!(is_incomplete, "{completion:?}");
    ensure!(store.complete(first(id), 1).await? == Completed::No);

    store.park(&dead_batch(id, 1, 3)).await?;
    let completion = store.completion(id).await?;
    let is_ready = matches!(completion, Completion::Ready { dead: 2, .. });
    ensure!(is_ready, "{completion:?}");
    // Nothing changes if there are more or fewer dead letters than the caller has found.
    for other in [0, 1, 3] {
        ensure!(store.complete(first(id), other).await? == Completed::No);
    }
    ensure!(store.complete(first(id), 2).await? == Completed::Yes);
    check_status(store, id, Status::Partial).await?;
    check_dead(store, id, [2, 0, 10]).await?;
    let upload = find(store, id).await?;
    ensure!(upload.rows_inserted == Some(5), "{upload:?}");
    check_sample_rows(store, id, 5).await
}

pub(crate) async fn a_message_beyond_the_last_batch_does_not_end_its_upload<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let id = begin(store).await?;
    let batches = sample::batches(id, 2, ROWS)?;
    store_new(store, &batches[..1]).await?;
    store.park(&dead_batch(id, 1, 900)).await?;
    ensure!(store.seal(first(id), &seal(2, 10)).await?);
    check_dead(store, id, [0, 0, 0]).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::No);
    store_new(store, &batches[1..]).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    check_status(store, id, Status::Completed).await
}

pub(crate) async fn batches_are_listed_by_their_status<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let id = partial(store).await?;
    retry(store, id, RetryScope::Batch(3), 1).await?;
    let list = async |status, after, limit| {
        let query = BatchQuery {
            status,
            after,
            limit,
        };
        store.batches(first(id), query).await
    };
    let all = list(None, 0, 10).await?;
    let found: Vec<_> = all.iter().map(|batch| (batch.seq, batch.status)).collect();
    let expected = [
        (1, BatchStatus::Stored),
        (2, BatchStatus::Dead),
        (3, BatchStatus::Retrying),
    ];
    ensure!(found == expected, "{found:?}");
    for (seq, status) in expected {
        let some = list(Some(status), 0, 10).await?;
        ensure!(
            some.len() == 1 && some[0] == all[seq as usize - 1],
            "{some:?}"
        );
    }
    let dead = &all[1];
    ensure!(
        dead.first_row == Some(6) && dead.rows == Some(5),
        "{dead:?}"
    );
    ensure!(
        dead.attempts == Some(4) && dead.reason.is_some(),
        "{dead:?}"
    );
    let stored = &all[0];
    ensure!(stored.first_row == Some(1) && stored.rows == Some(5));
    ensure!(stored.attempts.is_none() && stored.reason.is_none());
    ensure!(list(None, 1, 1).await? == all[1..2]);
    // A batch that is stored after all is listed once.
    store_new(store, &sample::batches(id, 3, ROWS)?[2..]).await?;
    ensure!(list(Some(BatchStatus::Stored), 0, 10).await?.len() == 2);
    ensure!(list(None, 0, 10).await?.len() == 3);
    Ok(())
}

pub(crate) async fn the_messages_of_an_upload_are_deleted_with_its_rows<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let (id, other) = (partial(store).await?, partial(store).await?);
    ensure!(store.undo(first(id)).await?);
    remove_all(store, id).await?;
    let left: Vec<_> = store.dead_letters(0, 10).await?;
    ensure!(left.len() == 2 && left.iter().all(|letter| letter.upload == Some(other)));
    // A dead letter that arrives now is not kept.
    ensure!(store.park(&with_rows(id, 2)).await? == Parked::Ended);
    ensure!(store.dead_letters(0, 10).await?.len() == 2);
    Ok(())
}
