//! The contract of the rate limiter.

mod fixtures;
mod taking;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use carga_common::limiter::{Bucket, Quota, RateLimiter};

use self::fixtures::{Local, Redis};
use crate::suite::Fixture;

macro_rules! contract {
    ($adapter:ident on $fixture:ident) => {
        mod $adapter {
            tests! { $fixture {
                taking {
                    a_full_bucket_admits_its_quota_and_refuses_the_next_request
                    a_refused_request_takes_from_no_bucket
                    requests_come_back_with_time
                    a_client_below_the_rate_is_not_refused
                    buckets_with_different_names_are_independent
                    concurrent_requests_take_no_more_than_the_quota
                    a_request_without_buckets_is_admitted
                }
            } }
        }
    };
}

contract!(redis on Redis);
contract!(local on Local);

/// A window that is longer than any case takes.
const LONG: Duration = Duration::from_secs(3600);

/// A fixture with a rate limiter.
trait LimiterFixture: Fixture {
    /// The limiter of one process.
    async fn limiter(&self) -> Result<Arc<dyn RateLimiter>>;
}

/// A bucket that admits `requests` in each window.
fn bucket(name: &str, requests: u32, window: Duration) -> Result<Bucket> {
    let requests = NonZeroU32::new(requests).context("a quota of nothing")?;
    Ok(Bucket {
        name: name.to_owned(),
        quota: Quota::new(requests, window),
    })
}
