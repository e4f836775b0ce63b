//! Requests take from buckets, and time fills the buckets again.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use carga_common::limiter::{Bucket, RateLimiter};
use futures::future::try_join_all;

use super::{LONG, LimiterFixture, bucket};

async fn admits(limiter: &dyn RateLimiter, buckets: &[Bucket]) -> Result<bool> {
    Ok(limiter.take(buckets).await?.admitted)
}

pub(super) async fn a_full_bucket_admits_its_quota_and_refuses_the_next_request<
    F: LimiterFixture,
>(
    fixture: &F,
) -> Result<()> {
    let limiter = fixture.limiter().await?;
    let bucket = [bucket("key:a", 5, LONG)?];
    for left in (0..5).rev() {
        let decision = limiter.take(&bucket).await?;
        ensure!(decision.admitted && decision.standings.len() == 1);
        ensure!(decision.standings[0].remaining == left, "{decision:?}");
    }
    let refused = limiter.take(&bucket).await?;
    ensure!(!refused.admitted, "{refused:?}");
    let standing = refused.standings[0];
    let interval = LONG / 5;
    ensure!(standing.remaining == 0, "{standing:?}");
    ensure!(standing.wait > interval / 2 && standing.wait <= interval);
    ensure!(standing.full_in > interval * 4 && standing.full_in <= LONG);
    Ok(())
}

pub(super) async fn a_refused_request_takes_from_no_bucket<F: LimiterFixture>(
    fixture: &F,
) -> Result<()> {
    let limiter = fixture.limiter().await?;
    let buckets = [bucket("many", 10, LONG)?, bucket("few", 1, LONG)?];
    ensure!(admits(limiter.as_ref(), &buckets).await?);
    for _ in 0..5 {
        let refused = limiter.take(&buckets).await?;
        ensure!(!refused.admitted, "{refused:?}");
        let [many, few] = refused.standings[..] else {
            anyhow::bail!("{refused:?}");
        };
        ensure!(many.remaining == 9 && many.wait.is_zero(), "{many:?}");
        ensure!(few.remaining == 0 && !few.wait.is_zero(), "{few:?}");
    }
    let alone = limiter.take(&buckets[..1]).await?;
    ensure!(alone.admitted && alone.standings[0].remaining == 8);
    Ok(())
}

pub(super) async fn requests_come_back_with_time<F: LimiterFixture>(fixture: &F) -> Result<()> {
    const WINDOW: Duration = Duration::from_millis(500);
    let limiter = fixture.limiter().await?;
    let bucket = [bucket("key:a", 5, WINDOW)?];
    let (started, mut admitted) = (Instant::now(), 0_u32);
    while started.elapsed() < WINDOW * 4 {
        let decision = limiter.take(&bucket).await?;
        admitted += u32::from(decision.admitted);
        tokio::time::sleep(decision.standings[0].wait).await;
    }
    // The quota, and what has come back until the last request.
    let back = started.elapsed().as_micros() / (WINDOW / 5).as_micros();
    ensure!(u128::from(admitted) <= 5 + back, "{admitted} of {back}");
    ensure!(admitted >= 10, "only {admitted} were admitted");
    Ok(())
}

pub(super) async fn a_client_below_the_rate_is_not_refused<F: LimiterFixture>(
    fixture: &F,
) -> Result<()> {
    const INTERVAL: Duration = Duration::from_millis(20);
    let limiter = fixture.limiter().await?;
    let bucket = [bucket("key:a", 1, INTERVAL)?];
    for _ in 0..30 {
        ensure!(admits(limiter.as_ref(), &bucket).await?);
        // An answer arrives after the time at which its request was counted.
        tokio::time::sleep(INTERVAL + Duration::from_millis(1)).await;
    }
    Ok(())
}

pub(super) async fn buckets_with_different_names_are_independent<F: LimiterFixture>(
    fixture: &F,
) -> Result<()> {
    let limiter = fixture.limiter().await?;
    for name in ["key:a", "key:b", "address:2001:db8::/64", "key:a:b"] {
        let bucket = [bucket(name, 1, LONG)?];
        ensure!(admits(limiter.as_ref(), &bucket).await?, "{name}");
        ensure!(!admits(limiter.as_ref(), &bucket).await?, "{name}");
    }
    Ok(())
}

pub(super) async fn concurrent_requests_take_no_more_than_the_quota<F: LimiterFixture>(
    fixture: &F,
) -> Result<()> {
    let limiter = fixture.limiter().await?;
    let buckets = vec![bucket("address:a", 1000, LONG)?, bucket("key:a", 20, LONG)?];
    let requests = (0..100).map(|_| {
        let (limiter, buckets) = (limiter.clone(), buckets.clone());
        tokio::spawn(async move { limiter.take(&buckets).await })
    });
    let mut admitted = 0;
    for decision in try_join_all(requests).await? {
        admitted += u32::from(decision?.admitted);
    }
    ensure!(admitted == 20, "{admitted} were admitted");
    Ok(())
}

pub(super) async fn a_request_without_buckets_is_admitted<F: LimiterFixture>(
    fixture: &F,
) -> Result<()> {
    let decision = fixture.limiter().await?.take(&[]).await?;
    ensure!(decision.admitted && decision.standings.is_empty());
    Ok(())
}
