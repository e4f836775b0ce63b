//! Events that workers send to the broker.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::events::{ClaimedEvent, Event};
use carga_common::store::Store;
use carga_common::sync::lock;
use carga_testkit::eventually;
use tokio::task::JoinSet;

use super::super::{StoreFixture, begin, complete};
use super::{all, kinds};
use crate::sample::first;

/// Longer than any case takes.
const LEASE: Duration = Duration::from_secs(600);

const TIMEOUT: Duration = Duration::from_secs(30);

fn numbers(claimed: &[ClaimedEvent]) -> Vec<u64> {
    claimed.iter().map(|claimed| claimed.number).collect()
}

fn events(claimed: &[ClaimedEvent]) -> Vec<Event> {
    claimed
        .iter()
        .map(|claimed| claimed.event.clone())
        .collect()
}

pub(crate) async fn a_claimed_event_is_claimed_once<F: StoreFixture>(fixture: &F) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    ensure!(store.claim_events(10, LEASE).await?.is_empty());
    for _ in 0..5 {
        begin(store.as_ref()).await?;
    }
    let listed = all(store.as_ref()).await?;
    let claimed = store.claim_events(2, LEASE).await?;
    ensure!(events(&claimed) == listed[..2], "{claimed:#?}");
    ensure!(claimed.iter().all(|claimed| claimed.tenant.is_default()));
    let others = other.claim_events(10, LEASE).await?;
    ensure!(events(&others) == listed[2..], "{others:#?}");
    ensure!(other.claim_events(10, LEASE).await?.is_empty());
    store.events_sent(&numbers(&claimed)).await?;
    other.release_events(&numbers(&others)).await?;
    // A sent event is not released by its late holder.
    other.release_events(&numbers(&claimed)).await?;
    let again = store.claim_events(10, LEASE).await?;
    ensure!(again == others, "{again:#?}");
    Ok(())
}

pub(crate) async fn a_claim_ends_with_its_lease<F: StoreFixture>(fixture: &F) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    begin(store.as_ref()).await?;
    let lost = store.claim_events(10, Duration::from_millis(300)).await?;
    ensure!(lost.len() == 1);
    let again = eventually(TIMEOUT, "the lease to end", async || {
        let claimed = other.claim_events(10, LEASE).await.ok()?;
        (!claimed.is_empty()).then_some(claimed)
    });
    ensure!(again.await? == lost);
    // The first holder has sent it after all.
    store.events_sent(&numbers(&lost)).await?;
    other.release_events(&numbers(&lost)).await?;
    ensure!(other.claim_events(10, LEASE).await?.is_empty());
    Ok(())
}

/// A clock that was set back leaves claims which end long after the end of every other claim.
pub(crate) async fn a_claim_of_the_future_ends<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    begin(store.as_ref()).await?;
    let claimed = store.claim_events(1, LEASE).await?;
    let statement = "UPDATE upload_events SET claimed_until = '2999-01-01T00:00:00.000000Z'";
    fixture.execute(statement).await?;
    ensure!(store.claim_events(1, LEASE).await? == claimed);
    Ok(())
}

pub(crate) async fn an_event_waits_until_the_earlier_ones_of_its_upload_are_sent<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let id = complete(store.as_ref(), 1, 2).await?;
    let cancelled = begin(store.as_ref()).await?;
    ensure!(store.cancel(first(cancelled)).await?);
    for (of_first, of_second) in [
        (Some("receiving"), Some("receiving")),
        (Some("processing"), Some("cancelled")),
        (Some("completed"), None),
        (None, None),
    ] {
        let claimed = store.claim_events(10, LEASE).await?;
        // Neither this process nor another one may overtake them.
        ensure!(other.claim_events(10, LEASE).await?.is_empty());
        ensure!(store.claim_events(10, LEASE).await?.is_empty());
        let found = events(&claimed);
        ensure!(kinds(&found, id) == Vec::from_iter(of_first), "{found:#?}");
        ensure!(
            kinds(&found, cancelled) == Vec::from_iter(of_second),
            "{found:#?}"
        );
        store.events_sent(&numbers(&claimed)).await?;
    }
    Ok(())
}

/// Claims events and sends them to `sent`. Every third time, the worker gives up before or after it
/// has sent them.
async fn work(store: Arc<dyn Store>, sent: Arc<Mutex<Vec<Event>>>, round: usize) -> Result<()> {
    let claimed = store.claim_events(3, LEASE).await?;
    let numbers = numbers(&claimed);
    if round.is_multiple_of(3) {
        store.release_events(&numbers).await?;
        return Ok(());
    }
    lock(&sent).extend(events(&claimed));
    if round % 3 == 1 && round < 100 {
        store.release_events(&numbers).await?;
    } else {
        store.events_sent(&numbers).await?;
    }
    Ok(())
}

pub(crate) async fn any_number_of_workers_sends_the_events_of_an_upload_in_order<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    const WORKERS: usize = 4;
    const UPLOADS: usize = 15;
    let store = fixture.open().await?;
    let sent: Arc<Mutex<Vec<Event>>> = Arc::default();
    let mut working = JoinSet::new();
    for worker in 0..WORKERS {
        let (store, sent) = (fixture.open().await?, Arc::clone(&sent));
        working.spawn(async move {
            // Each worker goes on until all events have been sent.
            for round in worker.. {
                work(Arc::clone(&store), Arc::clone(&sent), round).await?;
                if store.observe().await?.unsent_events == 0
                    && store.events(&super::query()).await?.len() == UPLOADS * 3
                {
                    break;
                }
            }
            anyhow::Ok(())
        });
    }
    let mut ids = Vec::new();
    for _ in 0..UPLOADS {
        ids.push(complete(store.as_ref(), 1, 2).await?);
    }
    while let Some(ended) = working.join_next().await {
        ended??;
    }
    let sent = lock(&sent).clone();
    for id in ids {
        let mut seen: Vec<&str> = Vec::new();
        for kind in kinds(&sent, id) {
            // A repeated event is one that was received before.
            if !seen.contains(&kind) {
                seen.push(kind);
            }
        }
        ensure!(
            seen == ["receiving", "processing", "completed"],
            "{seen:?} in {sent:#?}"
        );
    }
    Ok(())
}

pub(crate) async fn events_that_are_not_sent_are_counted<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    complete(store.as_ref(), 1, 2).await?;
    ensure!(store.observe().await?.unsent_events == 3);
    let claimed = store.claim_events(10, LEASE).await?;
    ensure!(store.observe().await?.unsent_events == 3);
    store.events_sent(&numbers(&claimed)).await?;
    ensure!(store.observe().await?.unsent_events == 2);
    Ok(())
}
