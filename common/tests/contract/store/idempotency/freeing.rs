//! How long a key stays with its request, and who takes it over.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_common::idempotency::{IdempotentRequest, IdempotentRoute, REQUEST_KEPT, fingerprint};
use carga_common::store::Completed;
use carga_common::upload::Status;
use jiff::{SignedDuration, Timestamp};

use super::{create, create_first, holder, race, request, sending};
use crate::sample::{self, first};
use crate::store::keys::new_key;
use crate::store::{
    StoreFixture, check_status, end_well, fail, failure, seal, set_back, store_new,
};

/// Sets the time of every request back by this time.
async fn age<F: StoreFixture>(fixture: &F, by: Duration) -> Result<()> {
    let time = Timestamp::now().checked_sub(SignedDuration::try_from(by)?)?;
    let time = time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
    let statement = format!("UPDATE idempotency_keys SET created_at = '{time}'");
    fixture.execute(&statement).await
}

pub(crate) async fn a_sealed_upload_keeps_its_key_whatever_becomes_of_it<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let once = sending()?;
    let upload = create_first(store, &once).await?;
    let id = upload.id;
    let is_held = async || {
        let taken = create(store, &once).await?.is_none();
        anyhow::Ok(taken && holder(store, &once).await? == Some(id))
    };
    ensure!(is_held().await?, "receiving");
    store_new(store, &sample::batches(id, 1, 10)?).await?;
    ensure!(store.seal(first(id), &seal(1, 10)).await?);
    ensure!(is_held().await?, "processing");
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    ensure!(is_held().await?, "completed");
    ensure!(store.undo(first(id)).await?);
    ensure!(is_held().await?, "undone");

    let old = request(IdempotentRoute::PostUploads, "old")?;
    let expiring = create_first(store, &old).await?.id;
    store_new(store, &sample::batches(expiring, 1, 10)?).await?;
    end_well(store, expiring, 1, 10).await?;
    set_back(fixture, expiring, YEAR).await?;
    ensure!(store.expire_rows(YEAR / 2).await? == 1);
    ensure!(holder(store, &old).await? == Some(expiring));
    ensure!(create(store, &old).await?.is_none());

    // The client of this upload got its 202, too.
    let dying = request(IdempotentRoute::PostUploads, "dying")?;
    let failing = create_first(store, &dying).await?.id;
    ensure!(store.seal(first(failing), &seal(1, 10)).await?);
    fail(store, failing).await?;
    ensure!(holder(store, &dying).await? == Some(failing));
    ensure!(create(store, &dying).await?.is_none());
    Ok(())
}

pub(crate) async fn a_single_request_takes_over_the_key_of_an_upload_that_was_never_sealed<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let once = sending()?;
    let failed = create_first(store, &once).await?.id;
    ensure!(store.fail(first(failed), &failure(), None).await?);
    ensure!(holder(store, &once).await?.is_none());
    let cancelled = race(fixture, &once).await?.id;
    ensure!(holder(store, &once).await? == Some(cancelled));
    ensure!(store.cancel(first(cancelled)).await?);
    let expired = race(fixture, &once).await?.id;
    ensure!(store.expire(first(expired), Duration::ZERO).await?);
    // A new request with other options replaces the fingerprint.
    let other = IdempotentRequest {
        fingerprint: fingerprint([("trim", "false")]),
        ..once
    };
    let last = race(fixture, &other).await?.id;
    let found = store.first_upload(&other.key).await?;
    let found = found.context("the key is free")?;
    ensure!(found.upload.id == last && found.fingerprint == other.fingerprint);
    for (id, status) in [
        (failed, Status::Failed),
        (cancelled, Status::Cancelled),
        (expired, Status::Failed),
        (last, Status::Receiving),
    ] {
        check_status(store, id, status).await?;
    }
    Ok(())
}

pub(crate) async fn the_key_of_an_upload_without_a_record_is_free<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let once = sending()?;
    let deleted = create_first(store.as_ref(), &once).await?.id;
    let lease = format!("DELETE FROM upload_leases WHERE upload_id = '{deleted}'");
    fixture.execute(&lease).await?;
    let record = format!("DELETE FROM uploads WHERE id = '{deleted}'");
    fixture.execute(&record).await?;
    ensure!(store.first_upload(&once.key).await?.is_none());
    let created = race(fixture, &once).await?.id;
    ensure!(created != deleted);
    Ok(())
}

pub(crate) async fn a_key_is_free_after_24_hours<F: StoreFixture>(fixture: &F) -> Result<()> {
    const MINUTE: Duration = Duration::from_secs(60);
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let sending = sending()?;
    let making = request(IdempotentRoute::PostKeys, "k")?;
    let sent = create_first(store, &sending).await?.id;
    store_new(store, &sample::batches(sent, 1, 10)?).await?;
    end_well(store, sent, 1, 10).await?;
    let make = async |answer: &str| {
        let (key, record) = new_key("acme", Timestamp::now())?;
        let digest = key.digest();
        let made = store.create_key_once(&record, &digest, &making, answer);
        anyhow::Ok(made.await?)
    };
    ensure!(make("1").await?);
    age(fixture, REQUEST_KEPT - MINUTE).await?;
    ensure!(store.forget_requests().await? == 0);
    ensure!(holder(store, &sending).await? == Some(sent));
    ensure!(create(store, &sending).await?.is_none() && !make("2").await?);
    ensure!(store.first_answer(&making.key).await?.is_some());

    age(fixture, REQUEST_KEPT + MINUTE).await?;
    ensure!(store.first_upload(&sending.key).await?.is_none());
    ensure!(store.first_answer(&making.key).await?.is_none());
    let again = race(fixture, &sending).await?.id;
    ensure!(make("3").await?);
    // A key that was taken again is new.
    ensure!(store.forget_requests().await? == 0);
    ensure!(holder(store, &sending).await? == Some(again));
    let answer = store.first_answer(&making.key).await?;
    ensure!(answer.is_some_and(|answer| answer.body == "3"));
    Ok(())
}

pub(crate) async fn keys_of_old_requests_are_forgotten_in_bounded_steps<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const OLD: u64 = 2500;
    let store = fixture.open().await?;
    let once = sending()?;
    create_first(store.as_ref(), &once).await?;
    let numbers = (0..OLD).map(|number| format!("({number})"));
    let numbers = numbers.collect::<Vec<_>>().join(", ");
    let copy = format!(
        "INSERT INTO idempotency_keys (tenant, route, sender, key, fingerprint, upload_id, created_at)
         SELECT k.tenant, k.route, k.sender, CAST(n.column1 AS text), k.fingerprint, k.upload_id, k.created_at
         FROM idempotency_keys k CROSS JOIN (VALUES {numbers}) n"
    );
    fixture.execute(&copy).await?;
    age(fixture, REQUEST_KEPT * 2).await?;
    let recent = request(IdempotentRoute::PostUploads, "recent")?;
    let kept = create_first(store.as_ref(), &recent).await?.id;
    let mut forgotten = 0;
    loop {
        let step = store.forget_requests().await?;
        ensure!(step <= 1000, "{step} at once");
        forgotten += step;
        if step == 0 {
            break;
        }
    }
    ensure!(forgotten == OLD + 1, "{forgotten}");
    ensure!(holder(store.as_ref(), &recent).await? == Some(kept));
    Ok(())
}
