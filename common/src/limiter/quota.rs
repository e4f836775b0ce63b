//! The generic cell rate algorithm (GCRA), in the form that ITU-T I.371 (annex A) calls *virtual
//! scheduling*.
//!
//! A bucket is one number: the time at which it will be full. Here, the *level* of a bucket is the
//! time from now to that time. Each request adds the interval between two requests at the rate of
//! the quota. A request is refused if the level would exceed the interval times the quota.

use std::num::NonZeroU32;
use std::time::Duration;

use super::Standing;

/// How many requests a bucket admits. A full bucket admits the whole quota at once, and the quota
/// comes back evenly within the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    requests: u32,
    window: Duration,
    interval_us: u64,
}

impl Quota {
    /// `requests` in each `window`, which is at most some years.
    pub fn new(requests: NonZeroU32, window: Duration) -> Self {
        let window_us = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
        // Rounded up, so that the rate is never higher than the quota.
        let interval_us = window_us.div_ceil(requests.get().into()).max(1);
        Self {
            requests: requests.get(),
            window,
            interval_us,
        }
    }

    /// The number of requests in each window.
    pub fn requests(self) -> u32 {
        self.requests
    }

    /// The time in which an empty bucket becomes full.
    pub fn window(self) -> Duration {
        self.window
    }

    /// The time in which one request comes back, in microseconds.
    #[cfg(feature = "redis")]
    pub(super) fn interval_us(self) -> u64 {
        self.interval_us
    }

    /// The level of an empty bucket.
    pub(super) fn empty_us(self) -> u64 {
        self.interval_us.saturating_mul(self.requests.into())
    }

    /// The level after one more request, or `None` if the bucket refuses the request.
    pub(super) fn add(self, level_us: u64) -> Option<u64> {
        let level_us = level_us.saturating_add(self.interval_us);
        (level_us <= self.empty_us()).then_some(level_us)
    }

    /// The level after a request is given back.
    pub(super) fn remove(self, level_us: u64) -> u64 {
        level_us.saturating_sub(self.interval_us)
    }

    pub(super) fn standing(self, level_us: u64) -> Standing {
        let (empty_us, interval_us) = (self.empty_us(), self.interval_us);
        let remaining = empty_us.saturating_sub(level_us) / interval_us;
        let wait_us = level_us.saturating_add(interval_us);
        Standing {
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            full_in: Duration::from_micros(level_us),
            wait: Duration::from_micros(wait_us.saturating_sub(empty_us)),
        }
    }
}
