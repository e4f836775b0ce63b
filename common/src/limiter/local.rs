//! The buckets of one process, in a table of fixed size.
//!
//! The table is divided into sets, and the hash of a bucket's name selects its set. If a set has no
//! free entry, the bucket that is full the soonest loses its entry, and counts as full from then
//! on. A client that sends much has the last entry that is lost, so a million other clients do not
//! free it from its limit. The hash has a random key, so nobody can choose names of one set.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Mutex;
use std::time::Instant;

use async_trait::async_trait;

use super::{Bucket, Decision, RateLimiter};
use crate::error::PortResult;
use crate::sync::lock;

/// Entries in a set. All of them are in two lines of the processor's cache.
const WAYS: usize = 8;

/// All sets together have 4 MiB.
const SETS: usize = 1 << 15;

/// A bucket that is not full. The name of the bucket is not kept: two names have the same hash once
/// in 2^64 pairs.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    hash: u64,
    /// When the bucket will be full, in microseconds since the limiter was made.
    full_at_us: u64,
}

/// A [`RateLimiter`] for one process.
pub struct LocalLimiter {
    hasher: RandomState,
    started: Instant,
    /// One lock for all entries, which makes a request with several buckets atomic. It is held for
    /// less than a microsecond.
    table: Mutex<Table>,
}

impl fmt::Debug for LocalLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalLimiter").finish_non_exhaustive()
    }
}

impl Default for LocalLimiter {
    fn default() -> Self {
        Self::new()
    }
}

impl LocalLimiter {
    /// Allocates the table.
    pub fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            started: Instant::now(),
            table: Mutex::new(Table::new()),
        }
    }

    /// Takes one request from each bucket, or nothing if one of them is empty. It never waits.
    pub fn take_now(&self, buckets: &[Bucket]) -> Decision {
        self.take_at(self.now_us(), buckets)
    }

    /// Whether each bucket admits a request now. Takes nothing, and never waits.
    pub fn admits_now(&self, buckets: &[Bucket]) -> bool {
        let now_us = self.now_us();
        let mut table = lock(&self.table);
        buckets.iter().all(|bucket| {
            let level_us = table.level_us(self.hasher.hash_one(&bucket.name), now_us);
            bucket.quota.add(level_us).is_some()
        })
    }

    /// The time in microseconds since the limiter was made.
    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Takes like [`take_now`](Self::take_now), at a time in microseconds since the limiter was
    /// made. With times of its own, a test does not depend on the clock.
    pub fn take_at(&self, now_us: u64, buckets: &[Bucket]) -> Decision {
        let hashes = buckets
            .iter()
            .map(|bucket| self.hasher.hash_one(&bucket.name));
        let hashes: Vec<u64> = hashes.collect();
        let mut table = lock(&self.table);
        let levels = hashes.iter().map(|hash| table.level_us(*hash, now_us));
        let levels: Vec<u64> = levels.collect();
        let after = buckets.iter().zip(&levels);
        let after = after.map(|(bucket, level_us)| bucket.quota.add(*level_us));
        let Some(after) = after.collect::<Option<Vec<u64>>>() else {
            return Decision::new(false, buckets, &levels);
        };
        for (hash, level_us) in hashes.iter().zip(&after) {
            table.set(*hash, now_us.saturating_add(*level_us));
        }
        Decision::new(true, buckets, &after)
    }
}

#[async_trait]
impl RateLimiter for LocalLimiter {
    async fn take(&self, buckets: &[Bucket]) -> PortResult<Decision> {
        Ok(self.take_now(buckets))
    }
}

struct Table(Box<[[Entry; WAYS]]>);

impl Table {
    fn new() -> Self {
        Self(vec![[Entry::default(); WAYS]; SETS].into_boxed_slice())
    }

    fn entries(&mut self, hash: u64) -> &mut [Entry; WAYS] {
        // The remainder is below the number of sets.
        let set = (hash % SETS as u64) as usize;
        &mut self.0[set]
    }

    /// The time until the bucket is full. A bucket without an entry is full.
    fn level_us(&mut self, hash: u64, now_us: u64) -> u64 {
        let mut entries = self.entries(hash).iter();
        let found = entries.find(|entry| entry.hash == hash);
        found.map_or(0, |entry| entry.full_at_us.saturating_sub(now_us))
    }

    /// Sets when the bucket will be full. A bucket without an entry gets that of the bucket which
    /// is full the soonest.
    fn set(&mut self, hash: u64, full_at_us: u64) {
        let entries = self.entries(hash).iter_mut();
        let entry = entries.min_by_key(|entry| match entry.hash == hash {
            true => 0,
            // After the entry with this hash, also if it has never been used.
            false => entry.full_at_us.max(1),
        });
        if let Some(entry) = entry {
            *entry = Entry { hash, full_at_us };
        }
    }
}

#[cfg(test)]
mod tests;
