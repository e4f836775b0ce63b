//! A worker with a batch in hand that never moves ends.

mod fixture;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_common::upload::{UploadId, UploadKey};
use carga_worker::watchdog::StuckLimits;

use self::fixture::{Fault, FaultyArchive, Fixture, TIMEOUT};

const LIMITS: StuckLimits = StuckLimits {
    interval: Duration::from_millis(100),
    report_after: Duration::from_millis(300),
    end_after: Duration::from_millis(300),
};

/// Publishes a batch whose write to the archive never returns.
async fn publish_hanging(fixture: &mut Fixture) -> Result<Arc<FaultyArchive>> {
    let archive = FaultyArchive::install(fixture, "batch-000001.json", Fault::Hang, 1);
    let id = UploadId::generate();
    fixture.create(id).await?;
    fixture.publish(id, 1).await?;
    Ok(archive)
}

fn hangs(archive: &FaultyArchive) -> bool {
    archive.faults_left.load(Ordering::Relaxed) == 0
}

#[tokio::test]
async fn a_worker_whose_archive_never_answers_ends_with_its_batch_in_hand() -> Result<()> {
    let mut fixture = Fixture::new(&[]).await?;
    let archive = publish_hanging(&mut fixture).await?;
    let worker = fixture.runner().with_stuck_limits(LIMITS);
    let ended = tokio::time::timeout(TIMEOUT, worker.run_unless_stuck()).await?;
    let stuck = ended.err().context("the worker ended without an error")?;
    ensure!(stuck.in_hand == 1, "{stuck:?}");
    ensure!(hangs(&archive), "the worker ended for another reason");
    fixture.stop.cancel();
    Ok(())
}

#[tokio::test]
async fn a_worker_with_a_stuck_batch_ends_although_other_batches_move() -> Result<()> {
    let mut fixture = Fixture::new(&[]).await?;
    let archive = publish_hanging(&mut fixture).await?;
    // Longer than the moving batches are in hand.
    let limits = StuckLimits {
        report_after: Duration::from_secs(2),
        ..LIMITS
    };
    let worker = fixture.runner().with_stuck_limits(limits);
    let moving = UploadId::generate();
    fixture.create(moving).await?;
    let keep_moving = async {
        // Batch 1 would hang, because the archive looks for this name.
        for seq in 2_u32.. {
            fixture.publish(moving, seq).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(())
    };
    let ended = tokio::select! {
        ended = tokio::time::timeout(TIMEOUT / 3, worker.run_unless_stuck()) => ended?,
        published = keep_moving => return published,
    };
    ensure!(ended.is_err(), "the worker ended without an error");
    ensure!(hangs(&archive), "the worker ended for another reason");
    let stored = fixture.backends.store.ledger(UploadKey::first(moving));
    ensure!(!stored.await?.is_empty(), "no batch has moved");
    fixture.stop.cancel();
    Ok(())
}

#[tokio::test]
async fn a_stuck_worker_that_is_asked_to_stop_ends_in_order() -> Result<()> {
    let mut fixture = Fixture::new(&[("CARGA_GRACE_SECS", "4")]).await?;
    let archive = publish_hanging(&mut fixture).await?;
    let limits = StuckLimits {
        end_after: Duration::from_secs(2),
        ..LIMITS
    };
    let worker = fixture.runner().with_stuck_limits(limits);
    let worker = tokio::spawn(worker.run_unless_stuck());
    let is_hanging = async || hangs(&archive);
    carga_testkit::eventually(TIMEOUT, "the batch to hang", is_hanging).await?;
    fixture.stop.cancel();
    let ended = tokio::time::timeout(TIMEOUT, worker).await??;
    ensure!(ended.is_ok(), "{ended:?}");
    Ok(())
}
