//! The ids of keys that the store has found.

use std::collections::{HashSet, VecDeque};

use carga_common::access::KeyId;

use crate::access::entries::MAX_ENTRIES;

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
