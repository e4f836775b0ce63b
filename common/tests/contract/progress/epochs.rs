//! A new epoch of an upload has new counters.

use anyhow::{Result, ensure};
use carga_common::progress::{Presence, Snapshot};
use carga_common::upload::UploadId;

use super::{LONG, ProgressFixture, check, snapshot, stored};
use crate::sample::{first, in_epoch};

pub(super) async fn a_newer_epoch_starts_with_new_counters<F: ProgressFixture>(
    fixture: &F,
) -> Result<()> {
    let progress = fixture.open(LONG).await?;
    let id = UploadId::generate();
    progress
        .restore(first(id), &snapshot(100, 1000, [1, 2]))
        .await?;
    // The newer epoch does not have the counters of the older epoch.
    ensure!(progress.read(in_epoch(id, 2)).await?.is_none());
    ensure!(progress.stored(in_epoch(id, 2), &stored([1])).await? == Presence::Absent);
    ensure!(progress.received(in_epoch(id, 2), 5, 50).await? == Presence::Absent);
    check(progress.as_ref(), first(id), (100, 1000, 2)).await?;

    progress
        .restore(in_epoch(id, 2), &Snapshot::default())
        .await?;
    check(progress.as_ref(), in_epoch(id, 2), (0, 0, 0)).await?;
    // A batch that was counted in the older epoch is counted again.
    ensure!(progress.stored(in_epoch(id, 2), &stored([1])).await? == Presence::Present);
    check(progress.as_ref(), in_epoch(id, 2), (0, 0, 1)).await
}

pub(super) async fn a_report_of_an_older_epoch_changes_nothing<F: ProgressFixture>(
    fixture: &F,
) -> Result<()> {
    let progress = fixture.open(LONG).await?;
    let id = UploadId::generate();
    progress
        .restore(in_epoch(id, 2), &snapshot(5, 50, [1]))
        .await?;
    // The answer is `Present`, since the caller must not rebuild the counters.
    ensure!(progress.stored(first(id), &stored([2, 3])).await? == Presence::Present);
    ensure!(progress.received(first(id), 400, 4000).await? == Presence::Present);
    progress
        .restore(first(id), &snapshot(400, 4000, [4]))
        .await?;
    check(progress.as_ref(), in_epoch(id, 2), (5, 50, 1)).await?;
    // The older epoch has no counters any more.
    ensure!(progress.read(first(id)).await?.is_none());
    Ok(())
}
