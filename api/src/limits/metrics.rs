//! Counts the requests that a limit has refused.

use carga_common::metrics::Counter;
use carga_common::metrics::table::LIMIT_REFUSALS;

use super::{ADDRESS, BURST, KEY};

/// The refused requests, by the limit that the answer names.
#[derive(Debug)]
pub(super) struct RefusalCounters([(&'static str, Counter); 3]);

impl RefusalCounters {
    pub(super) fn new() -> Self {
        Self([ADDRESS, KEY, BURST].map(|limit| (limit, LIMIT_REFUSALS.counter_of([limit]))))
    }

    /// Counts one refused request.
    pub(super) fn count(&self, limit: &str) {
        let mut counters = self.0.iter();
        if let Some((_, counter)) = counters.find(|(name, _)| *name == limit) {
            counter.increment(1);
        }
    }
}
