//! Of several requests with one key, one creates something, together with the key.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use anyhow::{Context, Result, ensure};
use carga_common::error::ErrorKind;
use carga_common::idempotency::IdempotentRoute;
use carga_common::upload::{Status, UploadId};
use futures::future::try_join_all;
use jiff::Timestamp;

use super::{
    CALLERS, create, create_first, create_once, holder, race, request, sending, sent_by, upload_of,
    uploads,
};
use crate::sample;
use crate::store::datasets::{key, new_typed_upload, sample_definition};
use crate::store::keys::new_key;
use crate::store::{StoreFixture, end_well, new_upload, seal, store_new};

pub(crate) async fn a_request_is_found_with_its_upload_and_fingerprint<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let once = sending()?;
    ensure!(store.first_upload(&once.key).await?.is_none());
    let created = create_first(store.as_ref(), &once).await?;
    ensure!(created.status == Status::Receiving, "{created:?}");
    let found = other.first_upload(&once.key).await?;
    let found = found.context("the key is free")?;
    ensure!(found.is_being_received(), "{found:?}");
    ensure!(found.upload.key() == created.key(), "{found:?}");
    ensure!(found.fingerprint == once.fingerprint, "{found:?}");
    // The upload is like any other.
    store_new(store.as_ref(), &sample::batches(created.id, 2, 10)?).await?;
    end_well(store.as_ref(), created.id, 2, 20).await?;
    let found = other.first_upload(&once.key).await?;
    let found = found.context("the key is free")?;
    ensure!(found.upload.status == Status::Completed && !found.is_being_received());
    ensure!(found.upload.sha256 == Some(seal(2, 20).sha256), "{found:?}");
    Ok(())
}

pub(crate) async fn of_concurrent_requests_with_one_key_a_single_one_creates_an_upload<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    for number in 0..5 {
        let once = request(IdempotentRoute::PostUploads, &format!("k{number}"))?;
        let once = sent_by(&once, &format!("t{number}"), None)?;
        let created = race(fixture, &once).await?;
        ensure!(holder(store.as_ref(), &once).await? == Some(created.id));
        let all = uploads(store.as_ref(), &once.key.tenant).await?;
        ensure!(all == [created.id], "{all:?}");
    }
    Ok(())
}

/// Polls the future this many times, and drops it. Returns what it gives, if it ends before.
async fn polled<T>(times: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = times;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// A creation is dropped at each point at which it waits for the database. Either the upload and
/// the key are there, or neither is.
pub(crate) async fn an_interrupted_creation_leaves_an_upload_with_its_key_or_nothing<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let mut without = 0;
    for times in 1..500 {
        let once = request(IdempotentRoute::PostUploads, "k")?;
        let once = sent_by(&once, &format!("t{times}"), None)?;
        let upload = upload_of(&once);
        let dropped = polled(times, create_once(store.as_ref(), &upload, &once)).await;
        // This request waits for the end of the dropped one, if that has its key.
        let second = create(other.as_ref(), &once).await?;
        let expected = match &second {
            Some(second) => {
                without += 1;
                second.id
            }
            None => upload.id,
        };
        ensure!(holder(other.as_ref(), &once).await? == Some(expected));
        let all = uploads(other.as_ref(), &once.key.tenant).await?;
        ensure!(all == [expected], "{times}: {all:?} instead of {expected}");
        if let Some(created) = dropped {
            ensure!(created?.is_some() && second.is_none(), "{times}");
            ensure!(without > 1, "the creation was never interrupted");
            return Ok(());
        }
    }
    anyhow::bail!("the creation did not end")
}

pub(crate) async fn an_upload_that_is_not_created_leaves_its_key_free<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let once = sending()?;
    let dataset = key("missing")?;
    let definition = sample_definition()?;
    let missing = new_typed_upload(UploadId::generate(), &dataset, &definition);
    let outcome = create_once(store.as_ref(), &missing, &once).await;
    let error = outcome.err().context("the upload was created")?;
    ensure!(error.kind() == ErrorKind::NotFound, "{}", error.chain());
    let created = create_first(store.as_ref(), &once).await?;
    // The public id is used.
    let other = request(IdempotentRoute::PostUploads, "other")?;
    let used = new_upload(created.public_id, sample::columns());
    let outcome = create_once(store.as_ref(), &used, &other).await;
    let error = outcome.err().context("the id was used twice")?;
    ensure!(error.kind() == ErrorKind::Conflict, "{}", error.chain());
    ensure!(store.first_upload(&other.key).await?.is_none());
    Ok(())
}

pub(crate) async fn keys_of_other_tenants_senders_and_routes_make_no_difference<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let anonymous = sending()?;
    let mut requests = vec![anonymous.clone()];
    for (tenant, sender) in [
        ("acme", None),
        ("default", Some("0123456789ab")),
        ("default", Some("0123456789aB")),
        ("acme", Some("0123456789ab")),
    ] {
        requests.push(sent_by(&anonymous, tenant, sender)?);
    }
    let mut other_case = anonymous.clone();
    other_case.key.text = "K".parse()?;
    requests.push(other_case);
    let mut created = Vec::new();
    for once in &requests {
        created.push(create_first(store, once).await?.id);
    }
    for (once, id) in requests.iter().zip(&created) {
        ensure!(holder(store, once).await? == Some(*id), "{once:?}");
        ensure!(create(store, once).await?.is_none());
    }
    let making = request(IdempotentRoute::PostKeys, "k")?;
    ensure!(store.first_answer(&making.key).await?.is_none());
    let (key, record) = new_key("acme", Timestamp::now())?;
    let digest = key.digest();
    let made = store.create_key_once(&record, &digest, &making, "{}");
    ensure!(made.await?);
    ensure!(store.first_upload(&making.key).await?.is_none());
    ensure!(holder(store, &anonymous).await? == Some(created[0]));
    Ok(())
}

pub(crate) async fn of_concurrent_requests_for_an_api_key_a_single_one_makes_it<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handles = [fixture.open().await?, fixture.open().await?];
    let making = request(IdempotentRoute::PostKeys, "k")?;
    let calls = (0..CALLERS).map(|number| {
        let (store, making) = (Arc::clone(&handles[number % 2]), making.clone());
        tokio::spawn(async move {
            let (key, record) = new_key("acme", Timestamp::now())?;
            let answer = format!(
                "{{\"key\":null,\"name\":\"é\\u0000\",\"id\":\"{}\"}}",
                record.id
            );
            let digest = key.digest();
            let made = store.create_key_once(&record, &digest, &making, &answer);
            anyhow::Ok(made.await?.then_some((record, answer)))
        })
    });
    let mut made = Vec::new();
    for outcome in try_join_all(calls).await? {
        made.extend(outcome?);
    }
    let [(record, answer)] = &made[..] else {
        anyhow::bail!("{made:?}");
    };
    let keys = handles[0].keys(None, None, 100).await?;
    ensure!(keys == std::slice::from_ref(record), "{keys:?}");
    let first = handles[1].first_answer(&making.key).await?;
    let first = first.context("the key is free")?;
    ensure!(first.body == *answer, "{first:?}");
    ensure!(first.fingerprint == making.fingerprint, "{first:?}");
    Ok(())
}
