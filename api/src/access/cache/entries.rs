//! Answers of the store, and ids that were found.

use std::collections::{HashMap, HashSet, VecDeque};

use carga_common::access::KeyId;
use tokio::time::Instant;

use super::{Found, LIFETIME, MAX_ENTRIES};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) found: Found,
    pub(super) asked_at: Instant,
}

/// Answers of the store, in the order in which they arrived.
#[derive(Debug, Default)]
pub(super) struct Entries {
    by_id: HashMap<KeyId, Entry>,
    /// The ids with the times of their entries. A newer entry of an id leaves the older time here.
    in_order: VecDeque<(KeyId, Instant)>,
}

impl Entries {
    /// The answer for this id, if it is not too old.
    pub(super) fn fresh(&self, id: &KeyId) -> Option<Found> {
        let entry = self.by_id.get(id)?;
        let is_fresh = entry.asked_at.elapsed() < LIFETIME;
        is_fresh.then(|| entry.found.clone())
    }

    /// Adds an answer, and removes answers that are too old or too many.
    pub(super) fn insert(&mut self, id: KeyId, entry: Entry) {
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

    pub(super) fn remove(&mut self, id: &KeyId) {
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

    /// How many answers are kept, and how many times of answers.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.by_id.len(), self.in_order.len())
    }
}

/// Ids that were found before, at most [`MAX_ENTRIES`]. They say nothing about what a key may do
/// now.
#[derive(Debug, Default)]
pub(super) struct FoundIds {
    ids: HashSet<KeyId>,
    in_order: VecDeque<KeyId>,
}

impl FoundIds {
    pub(super) fn contain(&self, id: &KeyId) -> bool {
        self.ids.contains(id)
    }

    /// Adds an id. If there are too many, the id that was added first is removed.
    pub(super) fn add(&mut self, id: &KeyId) {
        if !self.ids.insert(id.clone()) {
            return;
        }
        self.in_order.push_back(id.clone());
        if self.in_order.len() > MAX_ENTRIES
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use carga_common::access::ApiKey;

    use super::*;

    #[test]
    fn the_ids_that_were_found_are_bounded() {
        let mut found = FoundIds::default();
        let new_id = || ApiKey::generate().unwrap().id().clone();
        let (first, second) = (new_id(), new_id());
        for id in [&first, &second, &first] {
            found.add(id);
        }
        for _ in 0..MAX_ENTRIES - 1 {
            found.add(&new_id());
        }
        assert!(!found.contain(&first));
        assert!(found.contain(&second));
        assert_eq!(found.ids.len(), MAX_ENTRIES);
        assert_eq!(found.in_order.len(), MAX_ENTRIES);
    }
}
