//! What an operator watches is counted without the uploads that have ended.

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::batch::BatchId;
use carga_common::rejects::RejectedRow;
use carga_common::store::{Observation, Store};
use carga_common::upload::UploadId;

use super::dead_letters::dead;
use super::rejects::rejected;
use super::{StoreFixture, begin, complete, fail, seal};
use crate::sample::first;

/// Seals an upload whose batches are missing, as if `ago` seconds ago.
async fn sealed<F: StoreFixture>(fixture: &F, store: &dyn Store, ago: i64) -> Result<UploadId> {
    let id = begin(store).await?;
    ensure!(store.seal(first(id), &seal(1, 5)).await?);
    let sealed_at = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(ago);
    let sealed_at = sealed_at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
    let statement = format!("UPDATE uploads SET updated_at = '{sealed_at}' WHERE id = '{id}'");
    fixture.execute(&statement).await?;
    Ok(id)
}

pub(super) async fn unfinished_uploads_are_counted_by_their_status<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    ensure!(store.observe().await? == Observation::default());
    for _ in 0..3 {
        begin(store.as_ref()).await?;
    }
    sealed(fixture, store.as_ref(), 0).await?;
    complete(store.as_ref(), 2, 5).await?;
    let failed = begin(store.as_ref()).await?;
    fail(store.as_ref(), failed).await?;
    let seen = store.observe().await?;
    ensure!((seen.receiving, seen.processing) == (3, 1), "{seen:?}");
    Ok(())
}

pub(super) async fn the_oldest_processing_upload_is_the_one_that_was_sealed_first<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    begin(store.as_ref()).await?;
    ensure!(store.observe().await?.oldest_processing.is_none());
    sealed(fixture, store.as_ref(), 60).await?;
    let oldest = sealed(fixture, store.as_ref(), 3600).await?;
    let age = async || anyhow::Ok(store.observe().await?.oldest_processing.unwrap_or_default());
    let (hour, minute) = (Duration::from_secs(3600), Duration::from_secs(60));
    let found = age().await?;
    ensure!(found > hour - minute && found < hour + minute, "{found:?}");
    fail(store.as_ref(), oldest).await?;
    let found = age().await?;
    ensure!(found < 2 * minute, "{found:?}");
    // A clock that was set back does not make an age negative.
    sealed(fixture, store.as_ref(), -3600).await?;
    let newest = age().await?;
    ensure!(newest < 2 * minute, "{newest:?}");
    Ok(())
}

pub(super) async fn dead_letters_are_counted<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let upload = first(begin(store.as_ref()).await?);
    let letter = dead(Some(BatchId { upload, seq: 1 }));
    store.park(&letter).await?;
    store.park(&letter).await?;
    store.park(&dead(None)).await?;
    ensure!(store.observe().await?.dead_letters == 2);
    Ok(())
}

pub(super) async fn the_rejected_rows_of_an_upload_are_counted_by_their_codes<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (id, other) = (begin(store.as_ref()).await?, begin(store.as_ref()).await?);
    ensure!(store.reject_codes(id).await?.is_empty());
    let with_code = |row: u64, code: &str| RejectedRow {
        code: code.to_owned(),
        ..rejected(row)
    };
    let rows = [
        with_code(1, "bad_quote"),
        with_code(2, "wrong_type"),
        with_code(3, "bad_quote"),
    ];
    ensure!(store.reject(first(id), &rows).await?);
    ensure!(
        store
            .reject(first(other), &[with_code(1, "bad_quote")])
            .await?
    );
    let mut codes = store.reject_codes(id).await?;
    codes.sort();
    let expected = [("bad_quote".to_owned(), 2), ("wrong_type".to_owned(), 1)];
    ensure!(codes == expected, "{codes:?}");
    // They are kept when the upload has failed.
    fail(store.as_ref(), id).await?;
    ensure!(store.reject_codes(id).await?.len() == 2);
    Ok(())
}

pub(super) async fn connections_in_use_stay_within_their_limit<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    store.observe().await?;
    let connections = store.connection_use();
    ensure!(connections.used + connections.idle >= 1, "{connections:?}");
    ensure!(
        connections.used + connections.idle <= connections.max,
        "{connections:?}"
    );
    Ok(())
}
