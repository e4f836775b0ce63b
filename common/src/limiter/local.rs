//! The buckets of one process, in a table of fixed size.
//!
//! The table is divided into sets, and the hash of a bucket's name selects its set. If a set has no
//! free entry, the bucket that is full the soonest loses its entry, and counts as full from then
//! on. A busy client is the last to lose its entry, so a million other clients do not free it from
//! its limit. The hash has a random key, so nobody can choose names that fall into one set.

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

    /// Gives one request back to a bucket, which is then at most full. It never waits.
    pub fn give_back(&self, bucket: &Bucket) {
        let (now_us, hash) = (self.now_us(), self.hasher.hash_one(&bucket.name));
        let mut table = lock(&self.table);
        let level_us = table.level_us(hash, now_us);
        // A full bucket needs no entry.
        if level_us > 0 {
            let level_us = bucket.quota.remove(level_us);
            table.set(hash, now_us.saturating_add(level_us));
        }
    }

    /// The time in microseconds since the limiter was made.
    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Takes like [`take_now`](Self::take_now), at a time in microseconds since the limiter was
    /// made. With times of its own, a test does not depend on the clock.
    pub fn take_at(&self, now_us: u64, buckets: &[Bucket]) -> Decision {
        let hash = |bucket: &Bucket| self.hasher.hash_one(&bucket.name);
        let mut table = lock(&self.table);
        let levels = buckets
            .iter()
            .map(|bucket| table.level_us(hash(bucket), now_us));
        let mut levels: Vec<u64> = levels.collect();
        let mut wanted = buckets.iter().zip(&levels);
        let admitted = wanted.all(|(bucket, level_us)| bucket.quota.add(*level_us).is_some());
        if admitted {
            for (bucket, level_us) in buckets.iter().zip(&mut levels) {
                *level_us = bucket.quota.add(*level_us).unwrap_or(*level_us);
                table.set(hash(bucket), now_us.saturating_add(*level_us));
            }
        }
        Decision::new(admitted, buckets, &levels)
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
