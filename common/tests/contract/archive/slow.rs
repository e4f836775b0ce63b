//! A put over a slow line.

use std::time::Instant;

use anyhow::{Result, ensure};
use bytes::Bytes;
use carga_common::archive::attempt_timeout;
use carga_testkit::Relay;

use super::fixtures::S3;
use super::lone_key;

/// Puts an object whose transfer takes longer than the attempt of an empty object may take.
pub(super) async fn check_put(s3: &S3) -> Result<()> {
    const OBJECT_BYTES: usize = 1 << 20;
    // The transfer takes 26 seconds.
    const BYTES_PER_SECOND: u32 = 40 << 10;
    let endpoint = s3.endpoint()?;
    let relay = Relay::slow(&endpoint, BYTES_PER_SECOND).await?;
    let archive = s3.connect(&relay.url(&endpoint)?).await?;
    let (key, body) = (lone_key(), Bytes::from(vec![b'x'; OBJECT_BYTES]));
    let started = Instant::now();
    archive.put(&key, body.clone()).await?;
    let took = started.elapsed();
    ensure!(took > attempt_timeout(0), "the line is not slow: {took:?}");
    ensure!(archive.get(&key).await? == body);
    Ok(())
}
