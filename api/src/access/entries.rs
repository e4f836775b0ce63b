//! A bounded number of answers that expire.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// How long an answer is used.
pub(super) const LIFETIME: Duration = Duration::from_secs(2);

/// The most answers that are kept.
pub(super) const MAX_ENTRIES: usize = 10_000;

#[derive(Debug)]
pub(super) struct Entry<V> {
    pub(super) found: V,
    /// When the question was asked. The answer may be as old.
    pub(super) asked_at: Instant,
}

/// Answers, in the order in which they arrived.
#[derive(Debug)]
pub(super) struct Entries<K, V> {
    by_id: HashMap<K, Entry<V>>,
    /// The ids with the times of their entries. A newer entry of an id leaves the older time here.
    in_order: VecDeque<(K, Instant)>,
}

impl<K, V> Default for Entries<K, V> {
    fn default() -> Self {
        Self {
            by_id: HashMap::new(),
            in_order: VecDeque::new(),
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Entries<K, V> {
    /// The answer for this id, if it is not too old.
    pub(super) fn fresh(&self, id: &K) -> Option<V> {
        let entry = self.by_id.get(id)?;
        let is_fresh = entry.asked_at.elapsed() < LIFETIME;
        is_fresh.then(|| entry.found.clone())
    }

    /// Adds an answer, and removes answers that are too old or too many.
    pub(super) fn insert(&mut self, id: K, entry: Entry<V>) {
        while let Some((_, asked_at)) = self.in_order.front()
            && (self.in_order.len() >= MAX_ENTRIES || asked_at.elapsed() >= LIFETIME)
        {
            self.remove_oldest();
        }
        // A slow lookup may answer after a later one.
        let newest = self.by_id.get(&id).map(|newest| newest.asked_at);
        if newest.is_none_or(|newest| newest <= entry.asked_at) {
            self.in_order.push_back((id.clone(), entry.asked_at));
            self.by_id.insert(id, entry);
        }
    }

    pub(super) fn remove(&mut self, id: &K) {
        self.by_id.remove(id);
    }

    fn remove_oldest(&mut self) {
        if let Some((id, asked_at)) = self.in_order.pop_front()
            && self
                .by_id
                .get(&id)
                .is_some_and(|entry| entry.asked_at == asked_at)
        {
            self.by_id.remove(&id);
        }
    }

    /// The number of answers, and the length of `in_order`.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.by_id.len(), self.in_order.len())
    }
}
