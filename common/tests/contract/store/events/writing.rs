//! Which changes leave an event, and what it says.

use anyhow::{Context, Result, ensure};
use carga_common::dataset::Mode;
use carga_common::events::EventRows;
use carga_common::idempotency::IdempotentRoute;
use carga_common::store::{Completed, Heartbeat, Seal, Store};
use carga_common::tenant::Tenant;
use carga_common::upload::UploadId;
use jiff::Timestamp;

use super::super::datasets::merging;
use super::super::idempotency::{create_once, request};
use super::super::rejects::rejected;
use super::super::{
    StoreFixture, begin, complete, end_well, fail, failure, new_upload, remove_all, seal, store_new,
};
use super::{all, ended, kinds, query};
use crate::sample::{self, first, in_epoch};

/// Ends an upload whose rows are partly rejected.
async fn partial(store: &dyn Store) -> Result<UploadId> {
    let id = begin(store).await?;
    store_new(store, &sample::batches(id, 2, 10)?).await?;
    ensure!(store.reject(first(id), &[rejected(21)]).await?);
    let seal = Seal {
        rejected: 1,
        ..seal(2, 21)
    };
    ensure!(store.seal(first(id), &seal).await?);
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    Ok(id)
}

pub(crate) async fn every_change_of_a_status_leaves_one_event<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (handle, other) = (fixture.open().await?, fixture.open().await?);
    let store = handle.as_ref();
    let before = Timestamp::now() - jiff::SignedDuration::from_secs(60);
    let receiving = begin(store).await?;
    let completed = complete(store, 2, 5).await?;
    let partial = partial(store).await?;
    let failed = begin(store).await?;
    fail(store, failed).await?;
    let cancelled = begin(store).await?;
    ensure!(store.seal(first(cancelled), &seal(1, 5)).await?);
    ensure!(store.cancel(first(cancelled)).await?);
    let undone = complete(store, 1, 3).await?;
    ensure!(store.undo(first(undone)).await?);
    let events = all(other.as_ref()).await?;
    for (id, expected) in [
        (receiving, &["receiving"][..]),
        (completed, &["receiving", "processing", "completed"]),
        (partial, &["receiving", "processing", "partial"]),
        (failed, &["receiving", "failed"]),
        (cancelled, &["receiving", "processing", "cancelled"]),
        (undone, &["receiving", "processing", "completed", "undone"]),
    ] {
        let found = kinds(&events, id);
        ensure!(found == expected, "{found:?} instead of {expected:?}");
    }
    let mut ids: Vec<_> = events.iter().map(|event| event.id).collect();
    ids.sort_unstable();
    ids.dedup();
    ensure!(
        ids.len() == events.len(),
        "an id is used twice: {events:#?}"
    );
    ensure!(events.iter().all(|event| event.at > before), "{events:#?}");
    ensure!(events.is_sorted_by_key(|event| event.at), "{events:#?}");
    Ok(())
}

pub(crate) async fn an_event_has_the_figures_that_are_known<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let cancelled = begin(store).await?;
    let beat = Heartbeat {
        upload: cancelled,
        rows_read: 7,
        rows_rejected: 0,
        bytes_received: 70,
    };
    store.heartbeat(&[beat]).await?;
    ensure!(store.cancel(first(cancelled)).await?);
    let partial = partial(store).await?;
    ensure!(store.undo(first(partial)).await?);
    let events = all(store).await?;
    let sealed = EventRows {
        read: Some(21),
        rejected: Some(1),
        ..EventRows::default()
    };
    for (id, expected) in [
        (
            cancelled,
            vec![EventRows::default(), ended([7, 0, 0, 0, 0, 7])],
        ),
        (
            partial,
            vec![
                EventRows::default(),
                sealed,
                ended([21, 20, 0, 0, 1, 0]),
                ended([21, 0, 0, 0, 1, 20]),
            ],
        ),
    ] {
        let of_upload = events.iter().filter(|event| event.upload == id);
        let found: Vec<EventRows> = of_upload.map(|event| event.rows.clone()).collect();
        ensure!(found == expected, "{found:#?}");
    }
    Ok(())
}

pub(crate) async fn the_event_of_a_merge_has_its_outcomes<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    merging::create_dataset(store).await?;
    let base = [("a", Some("1"), None), ("b", Some("2"), None)];
    let base = merging::send(store, merging::merged(Mode::Update)?, &base).await?;
    ensure!(store.complete(first(base), 0).await? == Completed::Yes);
    // An equal row, a changed one, a new one, and one without the required number.
    let given = [
        ("a", Some("1"), None),
        ("b", Some("3"), None),
        ("c", Some("4"), None),
        ("d", None, None),
    ];
    let id = merging::send(store, merging::merged(Mode::Update)?, &given).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    ensure!(store.undo(first(id)).await?);
    let events = all(store).await?;
    let rows = |kind: &str| {
        let found = events
            .iter()
            .find(|event| event.upload == id && event.kind == kind);
        let rows = found.map(|event| event.rows.clone());
        rows.with_context(|| format!("no {kind} in {events:#?}"))
    };
    let merged = rows("upload.partial")?;
    ensure!(merged == ended([4, 1, 1, 1, 1, 0]), "{merged:?}");
    let undone = rows("upload.undone")?;
    ensure!(undone == ended([4, 0, 0, 0, 1, 3]), "{undone:?}");
    Ok(())
}

pub(crate) async fn an_event_has_the_public_id_and_the_tenant_of_its_upload<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let id = begin(store).await?;
    let acme: Tenant = "acme".parse()?;
    let mut upload = new_upload(id, sample::columns());
    upload.tenant = acme.clone();
    // The tenant `default` has used the id, so the upload gets another one in the database.
    let created = store.create(&upload).await?;
    ensure!(created.id != id);
    ensure!(store.cancel(created.key()).await?);
    let mut of_acme = query();
    of_acme.tenant = acme;
    let listed = store.events(&of_acme).await?.into_iter();
    let events: Vec<_> = listed.map(|listed| listed.event).collect();
    ensure!(
        kinds(&events, id) == ["receiving", "cancelled"] && events.len() == 2,
        "{events:#?}"
    );
    ensure!(kinds(&all(store).await?, id) == ["receiving"]);
    Ok(())
}

pub(crate) async fn a_call_that_changes_no_status_leaves_no_event<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let completed = complete(store, 1, 2).await?;
    let failed = begin(store).await?;
    fail(store, failed).await?;
    let sending = request(IdempotentRoute::PostUploads, "k")?;
    let upload = || new_upload(UploadId::generate(), sample::columns());
    ensure!(create_once(store, &upload(), &sending).await?.is_some());
    let events = all(store).await?;
    // The first attempt inserts an upload, and takes it back.
    ensure!(create_once(store, &upload(), &sending).await?.is_none());
    let again = new_upload(completed, sample::columns());
    ensure!(store.create(&again).await.is_err(), "an id was used twice");
    ensure!(store.seal(first(completed), &seal(1, 2)).await?);
    ensure!(store.complete(first(completed), 0).await? == Completed::No);
    ensure!(!store.cancel(first(completed)).await?);
    ensure!(!store.fail(first(completed), &failure(), None).await?);
    ensure!(!store.undo(first(failed)).await?);
    ensure!(!store.undo(in_epoch(completed, 2)).await?);
    remove_all(store, failed).await?;
    let now = all(store).await?;
    ensure!(now == events, "{now:#?}");
    Ok(())
}

pub(crate) async fn of_concurrent_changes_of_a_status_one_leaves_an_event<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    for _ in 0..8 {
        let id = begin(store.as_ref()).await?;
        store_new(store.as_ref(), &sample::batches(id, 1, 2)?).await?;
        let cancelling = other.cancel(first(id));
        let (ended, cancelled) = tokio::join!(end_well(store.as_ref(), id, 1, 2), cancelling);
        let events = all(store.as_ref()).await?;
        let last = match (ended.is_ok(), cancelled?) {
            (true, false) => "completed",
            (false, true) => "cancelled",
            both => anyhow::bail!("{both:?}"),
        };
        let found = kinds(&events, id);
        ensure!(found.last() == Some(&last), "{found:?}");
        let is_end = |kind: &&&str| !matches!(**kind, "receiving" | "processing");
        ensure!(found.iter().filter(is_end).count() == 1, "{found:?}");
    }
    Ok(())
}
