//! Counts the checks of requests, and the lookups of keys.

use carga_common::metrics::Counter;
use carga_common::metrics::table::{AUTHENTICATIONS, KEY_LOOKUPS};
use carga_intake::refusal::{Refusal, RefusalKind};

use super::refusals::MISSING_KEY;

/// The checks, by their outcome.
#[derive(Debug)]
pub(super) struct CheckCounters {
    accepted: Counter,
    missing: Counter,
    invalid: Counter,
    forbidden: Counter,
    unavailable: Counter,
}

impl CheckCounters {
    pub(super) fn new() -> Self {
        let of = |outcome: &'static str| AUTHENTICATIONS.counter_of([outcome]);
        Self {
            accepted: of("accepted"),
            missing: of("missing"),
            invalid: of("invalid"),
            forbidden: of("forbidden"),
            unavailable: of("unavailable"),
        }
    }

    /// Counts one check.
    pub(super) fn count<T>(&self, checked: &Result<T, Refusal>) {
        let counter = match checked {
            Ok(_) => &self.accepted,
            Err(refusal) => match refusal.kind {
                RefusalKind::Unauthenticated if refusal.failure.code == MISSING_KEY => {
                    &self.missing
                }
                RefusalKind::Unauthenticated | RefusalKind::Malformed => &self.invalid,
                RefusalKind::Forbidden => &self.forbidden,
                // The key could not be checked.
                _ => &self.unavailable,
            },
        };
        counter.increment(1);
    }
}

/// The lookups of keys, by the source of the answer.
#[derive(Debug)]
pub(super) struct LookupCounters {
    pub(super) cache: Counter,
    pub(super) store: Counter,
}

impl LookupCounters {
    pub(super) fn new() -> Self {
        let of = |source: &'static str| KEY_LOOKUPS.counter_of([source]);
        Self {
            cache: of("cache"),
            store: of("store"),
        }
    }
}
