//! Keeps keys of the store for two seconds.
//!
//! A key that is used for many requests is read once in two seconds. A revocation therefore takes
//! effect on every API within five seconds, without a message between the APIs: a record is used
//! for two seconds, and a request waits for a lookup for at most [`LONGEST_WAIT`]. The cache is
//! bounded, and so is the number of lookups at the same time: requests with invented keys can
//! neither fill the memory nor take the connections of the store.
//!
//! Anyone can invent a key with the right checksum. Ids that were found before therefore have
//! lookups of their own, which never wait for the lookups of other ids.

mod found_ids;
mod lookups;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carga_common::access::{KeyDigest, KeyId, KeyRecord};
use carga_common::store::KeyStore;
use carga_common::sync::lock;
use carga_intake::refusal::Refusal;
use tokio::time::{Instant, timeout};

use self::found_ids::FoundIds;
use self::lookups::{Lookup, Lookups, Question};
use super::entries::{Entries, Entry, MAX_ENTRIES};
use super::metrics::LookupCounters;

/// How many lookups of found ids run at the same time, and how many of new ids. The others wait.
const LOOKUPS: usize = 2;

/// How many lookups of ids that were not found before may run or wait. With more, valid keys that
/// are used for the first time would only wait longer.
const MAX_NEW: usize = 100;

/// How long a request waits for a lookup of its key.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// A key of the store; `None` if no key has the id.
pub(super) type Found = Option<Arc<(KeyRecord, KeyDigest)>>;

/// The keys that were read from the store in the last seconds.
#[derive(Debug)]
pub(super) struct KeyCache {
    store: Arc<dyn KeyStore>,
    counters: LookupCounters,
    /// Separate from the unknown ids, so that requests with invented ids remove no key.
    known: Mutex<Entries<KeyId, Found>>,
    unknown: Mutex<Entries<KeyId, Found>>,
    /// The ids that were found before.
    found_ids: Mutex<FoundIds>,
    lookups_of_found: Arc<Lookups>,
    lookups_of_new: Arc<Lookups>,
    /// How many times [`forget`](Self::forget) was called. It changes only while `known` is locked.
    forgotten: AtomicU64,
}

impl KeyCache {
    pub(super) fn new(store: Arc<dyn KeyStore>) -> Arc<Self> {
        Arc::new(Self {
            store,
            counters: LookupCounters::new(),
            known: Mutex::default(),
            unknown: Mutex::default(),
            found_ids: Mutex::default(),
            lookups_of_found: Arc::new(Lookups::new(MAX_ENTRIES)),
            lookups_of_new: Arc::new(Lookups::new(MAX_NEW)),
            forgotten: AtomicU64::new(0),
        })
    }

    /// The key with this id, as it was at most two seconds ago.
    pub(super) async fn key(self: &Arc<Self>, id: &KeyId) -> Result<Found, Refusal> {
        if let Some(found) = self.cached(id) {
            return Ok(found);
        }
        let lookup = self.lookup(id)?;
        let found = timeout(LONGEST_WAIT, lookup).await;
        found.unwrap_or_else(|_| Err(too_slow()))
    }

    /// Whether the store has found this id before, or [`key`](Self::key) can answer from the cache.
    pub(super) fn knows(&self, id: &KeyId) -> bool {
        let is_cached = |ids: &Mutex<Entries<KeyId, Found>>| lock(ids).fresh(id).is_some();
        lock(&self.found_ids).contain(id) || is_cached(&self.known) || is_cached(&self.unknown)
    }

    /// Forgets a key, so that the next request reads it from the store. A lookup that has asked
    /// before may get the old record, so its answer is not kept, and no later request waits for it.
    pub(super) fn forget(&self, id: &KeyId) {
        let mut known = lock(&self.known);
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        known.remove(id);
    }

    fn cached(&self, id: &KeyId) -> Option<Found> {
        let known = lock(&self.known).fresh(id);
        let found = known.or_else(|| lock(&self.unknown).fresh(id));
        found.inspect(|_| self.counters.cache.increment(1))
    }

    /// The lookup of this id. All requests with one key wait for one lookup.
    fn lookup(self: &Arc<Self>, id: &KeyId) -> Result<Lookup, Refusal> {
        let lookups = match lock(&self.found_ids).contain(id) {
            true => &self.lookups_of_found,
            false => &self.lookups_of_new,
        };
        let question = Question {
            id: id.clone(),
            forgotten: self.forgotten.load(Ordering::SeqCst),
        };
        let cache = Arc::clone(self);
        let asked = question.clone();
        lookups.join_or_start(question, async move { cache.read(&asked).await })
    }

    async fn read(&self, question: &Question) -> Result<Found, Refusal> {
        // Another lookup may have ended since the request looked into the cache.
        if let Some(found) = self.cached(&question.id) {
            return Ok(found);
        }
        // The answer may be as old as the question.
        let asked_at = Instant::now();
        let found = self.store.key(&question.id).await?.map(Arc::new);
        self.counters.store.increment(1);
        let entry = Entry {
            found: found.clone(),
            asked_at,
        };
        if found.is_none() {
            lock(&self.unknown).insert(question.id.clone(), entry);
            return Ok(None);
        }
        lock(&self.found_ids).add(&question.id);
        let mut known = lock(&self.known);
        if self.forgotten.load(Ordering::SeqCst) == question.forgotten {
            known.insert(question.id.clone(), entry);
        }
        Ok(found)
    }
}

fn too_slow() -> Refusal {
    tracing::warn!("the lookup of a key did not end in time");
    let message = "the store did not answer in time, so the key could not be checked; retry later";
    Refusal::unavailable("dependency_unavailable", message)
}

#[cfg(test)]
mod tests;
