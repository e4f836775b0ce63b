//! A worker limits the bytes of the objects that it writes to the archive at once.

mod fixture;

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_common::batch::MESSAGE_VERSION;
use carga_common::upload::{Status, UploadId, UploadKey};
use uuid::Uuid;

use self::fixture::{Fault, FaultyArchive, Fixture};

/// How long a write takes. Without a limit, the writes of all batches overlap.
const WRITE: Duration = Duration::from_millis(500);

/// Two objects fit.
const LIMIT: usize = 1 << 20;
const CELL_BYTES: usize = 400 << 10;

#[tokio::test]
async fn the_objects_that_are_written_at_once_stay_within_the_limit() -> Result<()> {
    let (most, _) = archive_batches("none", &"x".repeat(CELL_BYTES)).await?;
    ensure!(
        (2 * CELL_BYTES..=LIMIT).contains(&most),
        "{most} bytes at once"
    );
    Ok(())
}

/// The limit also bounds the memory while an object is compressed, and the size afterwards is not
/// known before.
#[tokio::test]
async fn a_compressed_object_counts_with_its_size_without_compression() -> Result<()> {
    // Random digits are compressed to about half, so four objects would fit afterwards.
    let digits = || Uuid::new_v4().simple().to_string();
    let cell: String = std::iter::repeat_with(digits)
        .take(CELL_BYTES / 32)
        .collect();
    for compression in ["gzip", "zstd"] {
        let (most, object) = archive_batches(compression, &cell).await?;
        ensure!(object < 3 * CELL_BYTES / 4, "{object} bytes per object");
        ensure!(
            most == 2 * object,
            "{most} bytes at once, {object} per object"
        );
    }
    Ok(())
}

/// Archives ten batches with this cell. Returns the most bytes that were written at once, and the
/// size of an object.
async fn archive_batches(compression: &str, cell: &str) -> Result<(usize, usize)> {
    const BATCHES: u32 = 10;
    let limit = LIMIT.to_string();
    let mut fixture = Fixture::new(&[
        ("CARGA_ARCHIVE_BYTES", &limit),
        ("CARGA_ARCHIVE_COMPRESSION", compression),
    ])
    .await?;
    let archive = FaultyArchive::install(&mut fixture, "", Fault::Slow(WRITE), u32::MAX);
    let id = UploadId::generate();
    fixture.create(id).await?;
    for seq in 1..=BATCHES {
        let body = format!(
            r#"{{"v":{MESSAGE_VERSION},"upload":"{id}","epoch":1,"seq":{seq},"trace":"","columns":["a"],"rows":[["{cell}"]],"runs":[[{seq},1]]}}"#
        );
        fixture.publish_body(id, seq, body).await?;
    }
    fixture.seal(id, BATCHES).await?;
    let worker = tokio::spawn(fixture.runner().run());
    let upload = fixture.wait_until_ended(id).await?;
    ensure!(upload.status == Status::Completed, "{upload:?}");
    let ledger = fixture.backends.store.ledger(UploadKey::first(id)).await?;
    let entry = ledger.first().context("the ledger is empty")?;
    ensure!(entry.object_bytes > CELL_BYTES as u64, "{entry:?}");
    fixture.stop.cancel();
    worker.await?;
    let most = archive.most_bytes.load(Ordering::Relaxed);
    Ok((most, entry.archive_bytes.try_into()?))
}
