//! Spans around the calls of the shared rate limiter.

use super::{Bucket, Decision, RateLimiter};
use crate::error::PortResult;
use crate::traced::traced_port;

traced_port! { "limiter", RateLimiter for dyn RateLimiter {
    async fn take(&self, buckets: &[Bucket]) -> PortResult<Decision>;
}}
