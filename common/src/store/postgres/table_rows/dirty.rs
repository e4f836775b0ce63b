//! Remembers which tables had violating rows lately.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// The most tables that are remembered. Other tables only cost an attempt.
const MAX_TABLES: usize = 1000;

/// The tables of datasets, quoted and with their schemas, whose last group of batches had a
/// violating row. The next group probably has one too, so that a COPY of all rows would be in vain.
#[derive(Debug, Clone, Default)]
pub(in crate::store::postgres) struct DirtyTables(Arc<Mutex<HashSet<String>>>);

impl DirtyTables {
    /// Whether the last group had a violating row in this table.
    pub(super) fn contains(&self, table: &str) -> bool {
        lock(&self.0).contains(table)
    }

    /// Remembers whether a group had a violating row.
    pub(super) fn set(&self, table: &str, is_dirty: bool) {
        let mut tables = lock(&self.0);
        if !is_dirty {
            tables.remove(table);
        } else if tables.len() < MAX_TABLES {
            tables.insert(table.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_dirty_until_a_group_has_no_violating_row() {
        let dirty = DirtyTables::default();
        assert!(!dirty.contains("sales"));
        dirty.clone().set("sales", true);
        assert!(dirty.contains("sales"));
        dirty.set("sales", false);
        assert!(!dirty.contains("sales"));
    }

    #[test]
    fn the_number_of_remembered_tables_is_limited() {
        let dirty = DirtyTables::default();
        for number in 0..=MAX_TABLES {
            dirty.set(&number.to_string(), true);
        }
        assert!(dirty.contains("0") && !dirty.contains(&MAX_TABLES.to_string()));
    }
}
