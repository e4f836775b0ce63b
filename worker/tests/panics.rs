//! A panic counts as one failed attempt of one batch. The tests use the embedded adapters, with an
//! archive that panics.

mod fixture;

use anyhow::{Result, ensure};
use carga_common::store::DeadLetter;
use carga_common::upload::{Status, Upload, UploadId};

use self::fixture::{Fault, FaultyArchive, Fixture};

/// Sends three batches of one row through a worker whose archive panics `panics` times when the
/// second batch is written. Returns the ended upload and the dead letters.
async fn import(panics: u32) -> Result<(Upload, Vec<DeadLetter>)> {
    let mut fixture = Fixture::new(&[]).await?;
    FaultyArchive::install(&mut fixture, "batch-000002.json", Fault::Panic, panics);
    let id = UploadId::generate();
    fixture.create(id).await?;
    for seq in 1..=3 {
        fixture.publish(id, seq).await?;
    }
    fixture.seal(id, 3).await?;
    let worker = tokio::spawn(fixture.runner().run());
    let ended = fixture.wait_until_ended(id).await?;
    fixture.stop.cancel();
    worker.await?;
    let letters = fixture.backends.store.dead_letters(0, 10).await?;
    fixture.backends.close().await;
    Ok((ended, letters))
}

#[tokio::test]
async fn a_batch_that_panics_twice_is_stored_by_the_third_attempt() -> Result<()> {
    let (upload, letters) = import(2).await?;
    ensure!(upload.status == Status::Completed, "{upload:?}");
    ensure!(letters.is_empty(), "{letters:?}");
    ensure!(upload.rows_inserted == Some(3));
    Ok(())
}

#[tokio::test]
async fn a_batch_that_always_panics_becomes_a_dead_letter_with_the_panic_message() -> Result<()> {
    let (upload, letters) = import(u32::MAX).await?;
    ensure!(
        upload.status == Status::Partial && upload.batches_dead == 1,
        "{upload:?}"
    );
    ensure!(upload.rows_inserted == Some(2) && upload.rows_dead == 1);
    let [letter] = &letters[..] else {
        anyhow::bail!("{letters:?}");
    };
    ensure!(letter.id.is_some_and(|id| id.seq == 2), "{letter:?}");
    ensure!(
        letter.reason.contains("the archive is broken"),
        "{letter:?}"
    );
    Ok(())
}
