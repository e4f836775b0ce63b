//! Promises of the adapters that only a change on the server can break.

#![cfg(all(feature = "postgres", feature = "redis"))]

mod postgres;

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::progress::{
    Counters, Presence, ProgressStore, RedisProgress, RedisSettings, Snapshot, StoredBatch,
};
use carga_common::settings::SecretUrl;
use carga_common::upload::{UploadId, UploadKey};
use carga_testkit::Scope;
use deadpool_redis::redis::{self, Cmd};

/// Counts a batch, changes the counters behind the adapter's back, and checks that they are absent
/// then. `change` gets the prefix of the keys, and changes or adds this many fields or keys.
async fn check_absent_after(change: impl FnOnce(&str) -> Cmd, added: u32) -> Result<()> {
    const BATCH: StoredBatch = StoredBatch {
        seq: 1,
        rows: 10,
        rejected: 2,
    };
    let scope = Scope::new().await?;
    let settings = RedisSettings {
        url: SecretUrl::new(scope.redis_url().to_owned()),
        prefix: scope.name().to_owned(),
        ttl: Duration::from_secs(60),
    };
    let progress = RedisProgress::new(settings)?;
    let upload = UploadKey::first(UploadId::generate());
    progress.restore(upload, &Snapshot::default()).await?;
    ensure!(progress.stored(upload, &[BATCH]).await? == Presence::Present);
    let expected = Counters {
        rows_stored: 10,
        rows_rejected: 2,
        batches_stored: 1,
        ..Counters::default()
    };
    ensure!(progress.read(upload).await? == Some(expected));

    let change = change(&format!("{}:{{{}}}", scope.name(), upload.id));
    let client = redis::Client::open(scope.redis_url())?;
    let mut server = client.get_multiplexed_async_connection().await?;
    let found: u32 = change.query_async(&mut server).await?;
    ensure!(found == added, "the key is another one");
    ensure!(progress.read(upload).await?.is_none());
    ensure!(progress.stored(upload, &[BATCH]).await? == Presence::Absent);
    scope.close().await
}

/// With the bitmap gone, a batch that is reported again would be counted twice.
#[tokio::test]
async fn counters_without_their_bitmap_are_absent() -> Result<()> {
    let remove = |keys: &str| redis::cmd("DEL").arg(format!("{keys}:batches")).take();
    check_absent_after(remove, 1).await
}

/// The server may have restarted from an old snapshot, which lacks the latest batches.
#[tokio::test]
async fn counters_of_an_earlier_run_of_the_server_are_absent() -> Result<()> {
    let replace = |keys: &str| {
        let hash = format!("{keys}:counters");
        redis::cmd("HSET")
            .arg(hash)
            .arg("run")
            .arg("earlier")
            .take()
    };
    // The field exists, so none is added.
    check_absent_after(replace, 0).await
}
