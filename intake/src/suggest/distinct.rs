//! Looks for a column that could be a key: it has the name of an identifier, and its cells are all
//! distinct.
//!
//! Cells are compared by hashes of 64 bits. Two of a million distinct cells have the same hash once
//! in about 37 million files, and then the column is not said to be a key.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use carga_common::dataset::folded_name;

/// The most hashes that are kept for all columns of a file.
const MAX_HASHES: usize = 1_000_000;

/// The names of identifiers, folded. Names that end in `_id` are others.
const NAMES: [&str; 6] = ["id", "sku", "code", "codigo", "uuid", "key"];

/// What is known of the cells of one column.
#[derive(Debug)]
enum State {
    /// The name is not that of an identifier, or a cell was repeated.
    NoKey,
    /// The cells so far are distinct.
    Distinct(HashSet<u64>),
    /// So many first cells are distinct, and the other ones were not checked.
    FirstDistinct(usize),
}

/// Compares the cells of the columns that may be identifiers.
#[derive(Debug)]
pub(super) struct Distinctness {
    columns: Vec<State>,
    hasher: RandomState,
    free_hashes: usize,
}

impl Distinctness {
    pub(super) fn new(columns: &[String]) -> Self {
        Self::with_hashes(columns, MAX_HASHES)
    }

    fn with_hashes(columns: &[String], free_hashes: usize) -> Self {
        let states = columns.iter().map(|name| match is_like_an_id(name) {
            true => State::Distinct(HashSet::new()),
            false => State::NoKey,
        });
        Self {
            columns: states.collect(),
            hasher: RandomState::new(),
            free_hashes,
        }
    }

    /// Compares a cell of a column with the earlier ones.
    pub(super) fn add(&mut self, column: usize, cell: &str) {
        let state = &mut self.columns[column];
        let State::Distinct(hashes) = state else {
            return;
        };
        if self.free_hashes == 0 {
            *state = State::FirstDistinct(hashes.len());
        } else if hashes.insert(self.hasher.hash_one(cell)) {
            self.free_hashes -= 1;
        } else {
            self.free_hashes += hashes.len();
            *state = State::NoKey;
        }
    }

    /// The first column that could be a key, with the explanation.
    pub(super) fn likely_key(&self, has_nulls: impl Fn(usize) -> bool) -> Option<(usize, String)> {
        let mut columns = self.columns.iter().enumerate();
        columns.find_map(|(index, state)| {
            let distinct = match state {
                State::Distinct(hashes) if !hashes.is_empty() => {
                    "the cells are all distinct".to_owned()
                }
                State::FirstDistinct(cells) if *cells > 0 => {
                    format!("the first {cells} cells are distinct, not checked beyond")
                }
                _ => return None,
            };
            let why = format!(
                "{distinct}, so the column could be the key; to replace rows by it, add the field `key`"
            );
            (!has_nulls(index)).then_some((index, why))
        })
    }
}

fn is_like_an_id(name: &str) -> bool {
    let ends_with_id = name.trim().to_lowercase().ends_with("_id");
    ends_with_id || NAMES.contains(&folded_name(name).as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, cells: &[&str], free_hashes: usize) -> Option<String> {
        let mut distinctness = Distinctness::with_hashes(&[name.to_owned()], free_hashes);
        for cell in cells {
            distinctness.add(0, cell);
        }
        let key = distinctness.likely_key(|_| false);
        key.map(|(_, why)| why)
    }

    #[test]
    fn a_column_with_the_name_of_an_identifier_and_distinct_cells_could_be_a_key() {
        for name in ["id", "Customer_ID", "SKU", "Código", "uuid", "key", "code"] {
            let why = key(name, &["a", "b"], 9).unwrap_or_default();
            assert!(why.starts_with("the cells are all distinct"), "{name}");
            assert_eq!(key(name, &["a", "b", "a"], 9), None, "{name}");
        }
        for name in ["paid", "name", "id_type", "codes"] {
            assert_eq!(key(name, &["a", "b"], 9), None, "{name}");
        }
        assert_eq!(key("id", &[], 9), None);
    }

    #[test]
    fn cells_beyond_the_limit_are_not_checked_and_the_reason_says_so() {
        let why = key("id", &["a", "b", "c", "a"], 2).unwrap_or_default();
        let start = "the first 2 cells are distinct, not checked beyond";
        assert!(why.starts_with(start), "{why}");
    }

    #[test]
    fn a_column_with_nulls_is_not_a_key_and_a_later_one_is() {
        let columns = ["a_id", "b_id"].map(str::to_owned);
        let mut distinctness = Distinctness::new(&columns);
        distinctness.add(0, "x");
        distinctness.add(1, "x");
        let key = distinctness.likely_key(|column| column == 0);
        assert_eq!(key.map(|(column, _)| column), Some(1));
    }
}
