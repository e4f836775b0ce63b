//! Live counters are exact.

use anyhow::{Result, ensure};
use carga_common::progress::{Presence, Snapshot};
use carga_common::upload::UploadId;
use futures::future::try_join_all;

use super::{LONG, ProgressFixture, check, snapshot, stored};
use crate::sample::first;

pub(super) async fn absent_counters_are_reported_and_nothing_is_added<F: ProgressFixture>(
    fixture: &F,
) -> Result<()> {
    let progress = fixture.open(LONG).await?;
    let id = UploadId::generate();
    ensure!(progress.read(first(id)).await?.is_none());
    ensure!(progress.stored(first(id), &stored([1])).await? == Presence::Absent);
    ensure!(progress.received(first(id), 5, 50).await? == Presence::Absent);
    ensure!(progress.read(first(id)).await?.is_none());
    // These reports are not counted later either.
    progress.restore(first(id), &Snapshot::default()).await?;
    check(progress.as_ref(), first(id), (0, 0, 0)).await
}

pub(super) async fn a_batch_counted_twice_changes_nothing<F: ProgressFixture>(
    fixture: &F,
) -> Result<()> {
    let progress = fixture.open(LONG).await?;
    let id = UploadId::generate();
    progress.restore(first(id), &Snapshot::default()).await?;
    for _ in 0..3 {
        let counted = progress.stored(first(id), &stored([1, 2, 2, 7])).await?;
        ensure!(counted == Presence::Present);
        check(progress.as_ref(), first(id), (0, 0, 3)).await?;
    }
    // Another process reports batch 7 again, together with a new batch.
    let other = fixture.open(LONG).await?;
    ensure!(other.stored(first(id), &stored([7, 8])).await? == Presence::Present);
    check(progress.as_ref(), first(id), (0, 0, 4)).await
}

pub(super) async fn concurrent_adds_are_exact<F: ProgressFixture>(fixture: &F) -> Result<()> {
    const BATCHES: u32 = 40;
    let id = UploadId::generate();
    let handles = [fixture.open(LONG).await?, fixture.open(LONG).await?];
    handles[0].restore(first(id), &Snapshot::default()).await?;
    // Eight tasks report every batch, in groups of different sizes, and restore a snapshot of the
    // ledger.
    let reports = (0..8u32).map(|number| {
        let progress = handles[number as usize % handles.len()].clone();
        tokio::spawn(async move {
            let all_seqs: Vec<u32> = (1..=BATCHES).collect();
            for seqs in all_seqs.chunks(number as usize + 1) {
                let counted = progress.stored(first(id), &stored(seqs.to_vec())).await?;
                ensure!(counted == Presence::Present);
                let rows = u64::from(*seqs.last().unwrap_or(&0)) * 10;
                progress.received(first(id), rows, rows * 10).await?;
            }
            progress
                .restore(first(id), &snapshot(100, 1000, 1..=10))
                .await?;
            Ok(())
        })
    });
    for reported in try_join_all(reports).await? {
        reported?;
    }
    for progress in &handles {
        check(progress.as_ref(), first(id), (400, 4000, BATCHES.into())).await?;
    }
    Ok(())
}

pub(super) async fn counters_never_go_backwards<F: ProgressFixture>(fixture: &F) -> Result<()> {
    let progress = fixture.open(LONG).await?;
    let id = UploadId::generate();
    progress
        .restore(first(id), &snapshot(100, 1000, []))
        .await?;
    for (rows, bytes, expected) in [
        (400, 4000, (400, 4000, 0)),
        (300, 3000, (400, 4000, 0)),
        // Rows and bytes are raised independently.
        (500, 0, (500, 4000, 0)),
        (0, 5000, (500, 5000, 0)),
    ] {
        let raised = progress.received(first(id), rows, bytes).await?;
        ensure!(raised == Presence::Present);
        check(progress.as_ref(), first(id), expected).await?;
    }
    Ok(())
}

pub(super) async fn restore_creates_counters_from_a_snapshot<F: ProgressFixture>(
    fixture: &F,
) -> Result<()> {
    let progress = fixture.open(LONG).await?;
    let id = UploadId::generate();
    // Figures that do not fit into 32 bits.
    let (rows, bytes) = (5_000_000_000, 500_000_000_000);
    let figures = snapshot(rows, bytes, [3, 1, 9]);
    progress.restore(first(id), &figures).await?;
    let other = fixture.open(LONG).await?;
    for progress in [progress, other] {
        check(progress.as_ref(), first(id), (rows, bytes, 3)).await?;
    }
    Ok(())
}

pub(super) async fn restore_adds_missing_figures_and_removes_none<F: ProgressFixture>(
    fixture: &F,
) -> Result<()> {
    let progress = fixture.open(LONG).await?;
    let id = UploadId::generate();
    progress
        .restore(first(id), &snapshot(100, 1000, [1, 2]))
        .await?;
    progress.stored(first(id), &stored([3])).await?;
    // A snapshot from before batch 3 was stored, which also has batch 4.
    progress
        .restore(first(id), &snapshot(90, 2000, [1, 4]))
        .await?;
    check(progress.as_ref(), first(id), (100, 2000, 4)).await?;
    progress.restore(first(id), &Snapshot::default()).await?;
    check(progress.as_ref(), first(id), (100, 2000, 4)).await
}

/// A file of 10 GiB with short rows has about 200,000 batches. While its counters are restored,
/// workers report more batches, and some of the ledger's again.
pub(super) async fn a_snapshot_of_200000_batches_is_restored_while_others_are_counted<
    F: ProgressFixture,
>(
    fixture: &F,
) -> Result<()> {
    const BATCHES: u32 = 200_000;
    let (progress, other) = (fixture.open(LONG).await?, fixture.open(LONG).await?);
    let id = UploadId::generate();
    let ledger = snapshot(1, 1, 1..=BATCHES);
    let restoring = tokio::spawn(async move { progress.restore(first(id), &ledger).await });
    let mut new_batches = 0;
    let mut last_seen = u64::from(BATCHES);
    while !restoring.is_finished() {
        let (new, again) = (BATCHES + new_batches + 1, BATCHES - new_batches);
        let reported = other.stored(first(id), &stored([new, again])).await?;
        if reported == Presence::Present {
            new_batches += 1;
        }
        // A reader never sees a part of the snapshot.
        if let Some(counters) = other.read(first(id)).await? {
            ensure!(counters.batches_stored >= last_seen, "{counters:?}");
            last_seen = counters.batches_stored;
        }
    }
    restoring.await??;
    let all = u64::from(BATCHES + new_batches);
    check(other.as_ref(), first(id), (1, 1, all)).await?;
    other
        .stored(first(id), &stored([BATCHES, BATCHES + new_batches + 1]))
        .await?;
    check(other.as_ref(), first(id), (1, 1, all + 1)).await
}

pub(super) async fn each_upload_has_its_own_counters<F: ProgressFixture>(
    fixture: &F,
) -> Result<()> {
    let progress = fixture.open(LONG).await?;
    let (one, other) = (UploadId::generate(), UploadId::generate());
    progress.restore(first(one), &snapshot(1, 10, [1])).await?;
    ensure!(progress.read(first(other)).await?.is_none());
    progress.restore(first(other), &Snapshot::default()).await?;
    progress.stored(first(other), &stored([1, 2])).await?;
    check(progress.as_ref(), first(one), (1, 10, 1)).await?;
    check(progress.as_ref(), first(other), (0, 0, 2)).await
}

pub(super) async fn a_reachable_progress_store_answers_a_ping<F: ProgressFixture>(
    fixture: &F,
) -> Result<()> {
    Ok(fixture.open(LONG).await?.ping().await?)
}
