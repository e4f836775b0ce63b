//! The worker counts exactly what happens to its batches. The tests use the embedded adapters, with
//! an archive that panics.

mod fixture;

use anyhow::{Context, Result, ensure};
use carga_common::metrics::local::LocalRecorder;
use carga_common::upload::UploadId;

use self::fixture::{Fault, FaultyArchive, Fixture};

/// The outcomes of batches, in the order of [`counts`].
const OUTCOMES: [&str; 8] = [
    "stored",
    "repeated",
    "discarded",
    "retried_1s",
    "retried_4s",
    "retried_16s",
    "postponed",
    "dead",
];

fn counts(recorder: &LocalRecorder) -> Result<[f64; 8]> {
    let mut counts = [0.0; 8];
    for (count, outcome) in counts.iter_mut().zip(OUTCOMES) {
        let series = format!("carga_worker_batches_total{{outcome=\"{outcome}\"}}");
        *count = recorder.value(&series).context(series)?;
    }
    Ok(counts)
}

/// Sends three batches of one row through a worker whose archive panics `panics` times when the
/// second batch is written. The third batch is sent twice if `repeat` is set.
async fn import(panics: u32, repeat: bool) -> Result<LocalRecorder> {
    let recorder = LocalRecorder::new()?;
    let mut fixture = Fixture::new(&[]).await?;
    FaultyArchive::install(&mut fixture, "batch-000002.json", Fault::Panic, panics);
    let id = UploadId::generate();
    fixture.create(id).await?;
    for seq in 1..=3 {
        fixture.publish(id, seq).await?;
    }
    if repeat {
        fixture.publish(id, 3).await?;
    }
    fixture.seal(id, 3).await?;
    let worker = recorder.run(|| fixture.runner());
    let worker = tokio::spawn(worker.run());
    fixture.wait_until_ended(id).await?;
    if repeat {
        // The copy of the third batch may be delivered after the end of the upload.
        let settled = async || {
            let counts = counts(&recorder);
            counts.is_ok_and(|[_, repeated, discarded, ..]| repeated + discarded > 0.0)
        };
        carga_testkit::eventually(fixture::TIMEOUT, "the copy to be settled", settled).await?;
    }
    fixture.stop.cancel();
    worker.await?;
    fixture.backends.close().await;
    Ok(recorder)
}

#[tokio::test]
async fn stored_and_retried_batches_are_counted() -> Result<()> {
    let recorder = import(2, false).await?;
    let counts = counts(&recorder)?;
    ensure!(
        counts == [3.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0],
        "{counts:?}"
    );
    let value = |series: &str| recorder.value(series).unwrap_or(-1.0);
    ensure!(value("carga_worker_rows_total{outcome=\"stored\"}") == 3.0);
    ensure!(value("carga_worker_rows_total{outcome=\"rejected\"}") == 0.0);
    ensure!(value("carga_worker_archive_duration_seconds_count") == 3.0);
    ensure!(value("carga_worker_archived_bytes_total") > 0.0);
    // Each batch is in one group.
    ensure!(value("carga_worker_commit_batches_sum") == 3.0);
    ensure!(value("carga_worker_completion_checks_total{outcome=\"ended\"}") >= 1.0);
    ensure!(value("carga_sweeper_sweeps_total{outcome=\"ok\"}") >= 1.0);
    ensure!(value("carga_sweeper_last_success_timestamp_seconds") > 1.7e9);
    Ok(())
}

#[tokio::test]
async fn a_batch_that_is_delivered_again_counts_as_repeated() -> Result<()> {
    let counts = counts(&import(0, true).await?)?;
    ensure!(
        counts == [3.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
            || counts == [3.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        "{counts:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_dead_batch_is_counted_once_after_its_retries() -> Result<()> {
    let counts = counts(&import(u32::MAX, false).await?)?;
    ensure!(
        counts == [2.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0],
        "{counts:?}"
    );
    Ok(())
}
