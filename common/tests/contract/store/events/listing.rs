//! Pages of events, and how long events are kept.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_common::events::Event;
use carga_common::store::{EventQuery, ForgottenEvents, ListedEvent, Store};
use carga_common::upload::UploadId;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::super::{StoreFixture, begin, complete, new_upload};
use super::{all, kinds, query};
use crate::sample::{self, first};

/// Creates an upload of this tenant that this sender has sent.
async fn begin_of(store: &dyn Store, tenant: &str, sender: Option<&str>) -> Result<UploadId> {
    let mut upload = new_upload(UploadId::generate(), sample::columns());
    upload.tenant = tenant.parse()?;
    upload.created_by = sender.map(str::to_owned);
    Ok(store.create(&upload).await?.public_id)
}

/// The uploads of all events that a query finds, page by page.
async fn uploads(store: &dyn Store, mut query: EventQuery) -> Result<Vec<UploadId>> {
    let mut found = Vec::new();
    loop {
        let page = store.events(&query).await?;
        ensure!(page.len() <= query.limit as usize, "{page:?}");
        ensure!(page.is_sorted_by_key(|listed| listed.position), "{page:?}");
        let Some(last) = page.last() else {
            return Ok(found);
        };
        query.after = last.position;
        found.extend(page.into_iter().map(|listed| listed.event.upload));
    }
}

pub(crate) async fn events_are_listed_by_tenant_and_sender_in_pages<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let mut made = Vec::new();
    for (tenant, sender) in [
        ("acme", Some("one")),
        ("other", Some("one")),
        ("acme", None),
        ("acme", Some("one.a")),
        ("acme", Some("onex")),
        ("other", None),
        ("acme", Some("One.a")),
    ] {
        made.push((tenant, sender, begin_of(store, tenant, sender).await?));
    }
    for (tenant, sender, expected) in [
        ("acme", None, vec![0, 2, 3, 4, 6]),
        ("other", None, vec![1, 5]),
        ("default", None, vec![]),
        ("acme", Some("one"), vec![0, 3]),
        ("acme", Some("one.a"), vec![3]),
        ("acme", Some(""), vec![]),
    ] {
        let expected: Vec<UploadId> = expected.into_iter().map(|at: usize| made[at].2).collect();
        for limit in [1, 2, 100] {
            let query = EventQuery {
                tenant: tenant.parse()?,
                created_by: sender.map(str::to_owned),
                after: 0,
                limit,
            };
            let found = uploads(store, query).await?;
            ensure!(found == expected, "{tenant} {sender:?} {limit}: {found:?}");
        }
    }
    Ok(())
}

/// A reader that follows the list while others change uploads finds each event once, and those of
/// an upload in their order.
pub(crate) async fn no_page_skips_the_event_of_a_concurrent_change<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const WRITERS: usize = 4;
    const UPLOADS: usize = 12;
    let (reader, other) = (fixture.open().await?, fixture.open().await?);
    let mut writing = JoinSet::new();
    for _ in 0..WRITERS {
        let store = fixture.open().await?;
        writing.spawn(async move {
            let mut ended = Vec::new();
            for _ in 0..UPLOADS {
                ended.push(complete(store.as_ref(), 1, 2).await?);
                let cancelled = begin(store.as_ref()).await?;
                ensure!(store.cancel(first(cancelled)).await?);
            }
            Ok(ended)
        });
    }
    let (mut found, mut after, mut ended) = (Vec::<Event>::new(), 0, Vec::new());
    loop {
        // All events were there before the page if no writer is left.
        let is_last = writing.is_empty();
        let mut page = query();
        (page.after, page.limit) = (after, 7);
        // Two readers give positions at the same time.
        let (page, _) = tokio::try_join!(reader.events(&page), other.events(&page))?;
        match page.last() {
            Some(last) => after = last.position,
            None if is_last => break,
            None => {}
        }
        found.extend(page.into_iter().map(|listed| listed.event));
        while let Some(done) = writing.try_join_next() {
            ended.extend(done??);
        }
    }
    ensure!(found.len() == WRITERS * UPLOADS * 5, "{}", found.len());
    let ids: HashMap<Uuid, &Event> = found.iter().map(|event| (event.id, event)).collect();
    ensure!(ids.len() == found.len(), "an event was listed twice");
    ensure!(ended.len() == WRITERS * UPLOADS);
    for id in ended {
        let kinds = kinds(&found, id);
        let expected = ["receiving", "processing", "completed"];
        ensure!(kinds == expected, "{kinds:?}");
    }
    Ok(())
}

async fn last(store: &dyn Store) -> Result<ListedEvent> {
    store.events(&query()).await?.pop().context("no events")
}

pub(crate) async fn a_position_is_never_used_again<F: StoreFixture>(fixture: &F) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    complete(store, 1, 1).await?;
    let before = last(store).await?;
    fixture.execute("DELETE FROM upload_events").await?;
    ensure!(all(store).await?.is_empty());
    let id = begin(store).await?;
    let mut behind = query();
    behind.after = before.position;
    let found = uploads(store, behind).await?;
    ensure!(found == [id], "{found:?}");
    Ok(())
}

pub(crate) async fn only_old_events_are_deleted<F: StoreFixture>(fixture: &F) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let (old, new) = (complete(store, 1, 1).await?, begin(store).await?);
    let lease = Duration::from_secs(60);
    let sent = store.claim_events(1, lease).await?;
    let numbers: Vec<u64> = sent.iter().map(|claimed| claimed.number).collect();
    store.events_sent(&numbers).await?;
    let statement = format!(
        "UPDATE upload_events SET at = '2001-01-01T00:00:00.000000Z' WHERE upload_id = '{old}'"
    );
    fixture.execute(&statement).await?;
    let day = Duration::from_secs(24 * 3600);
    let forgotten = store.forget_events(day).await?;
    let expected = ForgottenEvents {
        events: 3,
        unsent: 2,
    };
    ensure!(forgotten == expected, "{forgotten:?}");
    ensure!(store.forget_events(day).await? == ForgottenEvents::default());
    let left = all(store).await?;
    ensure!(
        left.len() == 1 && kinds(&left, new) == ["receiving"],
        "{left:#?}"
    );
    Ok(())
}
