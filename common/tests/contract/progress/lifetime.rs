//! Live counters expire.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use carga_common::progress::{Presence, Snapshot};
use carga_common::upload::UploadId;
use carga_testkit::eventually;

use super::{LONG, ProgressFixture, check, snapshot, stored};
use crate::sample::first;

pub(super) async fn counters_expire_after_their_time_to_live<F: ProgressFixture>(
    fixture: &F,
) -> Result<()> {
    let ttl = Duration::from_secs(1);
    let (progress, lasting) = (fixture.open(ttl).await?, fixture.open(LONG).await?);
    let (id, other) = (UploadId::generate(), UploadId::generate());
    lasting.restore(first(other), &Snapshot::default()).await?;
    let created = Instant::now();
    progress
        .restore(first(id), &snapshot(100, 1000, [1, 2]))
        .await?;
    eventually(
        Duration::from_secs(20),
        "the counters to expire",
        async || {
            progress
                .read(first(id))
                .await
                .is_ok_and(|found| found.is_none())
        },
    )
    .await?;
    let lived = created.elapsed();
    ensure!(lived > ttl * 9 / 10, "the counters expired after {lived:?}");
    ensure!(progress.stored(first(id), &stored([3])).await? == Presence::Absent);
    ensure!(progress.received(first(id), 500, 5000).await? == Presence::Absent);
    // The restored counters start at zero, and the counters of the other upload have not expired.
    progress.restore(first(id), &Snapshot::default()).await?;
    check(progress.as_ref(), first(id), (0, 0, 0)).await?;
    check(progress.as_ref(), first(other), (0, 0, 0)).await
}

pub(super) async fn every_change_renews_the_time_to_live<F: ProgressFixture>(
    fixture: &F,
) -> Result<()> {
    let ttl = Duration::from_secs(2);
    let progress = fixture.open(ttl).await?;
    let (read, counted) = (UploadId::generate(), UploadId::generate());
    progress.restore(first(read), &Snapshot::default()).await?;
    progress
        .restore(first(counted), &Snapshot::default())
        .await?;
    let created = Instant::now();
    let (mut rows, mut seq) = (0, 0);
    eventually(ttl * 10, "twice the time to live to pass", async || {
        (rows, seq) = (rows + 1, seq + 1);
        let reported = [
            progress.received(first(read), rows, rows).await,
            progress.stored(first(counted), &stored([seq])).await,
        ];
        let present = |presence: &Result<_, _>| matches!(presence, Ok(Presence::Present));
        // Counters that expire stay absent, so the deadline passes.
        reported.iter().all(present) && created.elapsed() > ttl * 2
    })
    .await?;
    check(progress.as_ref(), first(read), (rows, rows, 0)).await?;
    check(progress.as_ref(), first(counted), (0, 0, seq.into())).await
}
