//! The rate limiter port: how many requests a client may send in a given time.
//!
//! Each [`Bucket`] has a name, such as that of a key, and a [`Quota`]. A request takes one from
//! each of its buckets, and time fills the buckets again. `quota.rs` has the algorithm.
//!
//! # Promises
//!
//! - A request takes from all of its buckets, or from none if one of them is empty.
//! - In any time `t`, a bucket admits at most its quota plus the requests that come back in `t`.
//! - A client that stays below the rate of a quota is not refused.
//! - Buckets with different names are independent.
//! - Concurrent requests take no more than the same requests would one after another.
//! - The memory of an adapter is bounded, or each of its keys expires when its bucket is full.

mod local;
mod quota;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod traced;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

pub use local::LocalLimiter;
pub use quota::Quota;
#[cfg(feature = "redis")]
pub use redis::{RedisLimiter, RedisLimiterSettings};

use crate::error::PortResult;

/// A bucket from which a request takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// The name, which must not contain a secret.
    pub name: String,
    /// How many requests the bucket admits.
    pub quota: Quota,
}

/// The state of a bucket after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How many requests the bucket admits at once.
    pub remaining: u32,
    /// The time until the bucket is full.
    pub full_in: Duration,
    /// The time until the bucket admits a request; zero if it admits one now.
    pub wait: Duration,
}

/// Whether a request is admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether all buckets admit the request. Otherwise it has taken from none.
    pub admitted: bool,
    /// The state of each bucket, in the order of the request.
    pub standings: Vec<Standing>,
}

impl Decision {
    /// `levels_us` has the time until each bucket is full, in microseconds.
    fn new(admitted: bool, buckets: &[Bucket], levels_us: &[u64]) -> Self {
        let levels = buckets.iter().zip(levels_us);
        Self {
            admitted,
            standings: levels
                .map(|(bucket, level_us)| bucket.quota.standing(*level_us))
                .collect(),
        }
    }
}

/// A rate limiter. See the module for its promises.
#[async_trait]
pub trait RateLimiter: fmt::Debug + Send + Sync {
    /// Takes one request from each bucket, or nothing if one of them is empty.
    async fn take(&self, buckets: &[Bucket]) -> PortResult<Decision>;
}
