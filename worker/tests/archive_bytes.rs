//! A worker limits the bytes of the objects that it writes to the archive at once.

mod fixture;

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::batch::MESSAGE_VERSION;
use carga_common::upload::{Status, UploadId};

use self::fixture::{Fault, FaultyArchive, Fixture};

/// How long a write takes. Without a limit, the writes of all batches overlap.
const WRITE: Duration = Duration::from_millis(500);

#[tokio::test]
async fn the_objects_that_are_written_at_once_stay_within_the_limit() -> Result<()> {
    const LIMIT: usize = 1 << 20;
    const CELL_BYTES: usize = 400 << 10;
    const BATCHES: u32 = 10;
    let limit = LIMIT.to_string();
    let mut fixture = Fixture::new(&[("CARGA_ARCHIVE_BYTES", &limit)]).await?;
    let archive = FaultyArchive::install(&mut fixture, "", Fault::Slow(WRITE), u32::MAX);
    let id = UploadId::generate();
    fixture.create(id).await?;
    let cell = "x".repeat(CELL_BYTES);
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
    let most = archive.most_bytes.load(Ordering::Relaxed);
    // Two objects fit.
    ensure!(
        (2 * CELL_BYTES..=LIMIT).contains(&most),
        "{most} bytes at once"
    );
    fixture.stop.cancel();
    Ok(worker.await?)
}
