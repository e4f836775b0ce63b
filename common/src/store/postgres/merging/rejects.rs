//! The staged rows that violate a constraint of the table.

use std::collections::BTreeMap;

use crate::store::violations::Violation;

/// The numbers of rejected rows with their violations. Many rows may have the same violation, which
/// is kept once.
#[derive(Debug, Default)]
pub(super) struct Rejects {
    violations: Vec<Violation>,
    /// The violation of each row, by its index.
    rows: BTreeMap<i64, usize>,
}

impl Rejects {
    /// Adds rows with the same violation.
    pub(super) fn add(&mut self, numbers: &[i64], violation: Violation) {
        if numbers.is_empty() {
            return;
        }
        let index = self.violations.len();
        self.violations.push(violation);
        self.rows
            .extend(numbers.iter().map(|number| (*number, index)));
    }

    pub(super) fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    /// The numbers of the rows, in order.
    pub(super) fn numbers(&self) -> Vec<i64> {
        self.rows.keys().copied().collect()
    }

    pub(super) fn violation(&self, number: i64) -> Option<&Violation> {
        self.violations.get(*self.rows.get(&number)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violation(message: &str) -> Violation {
        Violation {
            code: "check_violation",
            message: message.to_owned(),
            column: None,
            constraint: None,
        }
    }

    #[test]
    fn a_rejected_row_is_found_by_its_number() {
        let mut rejects = Rejects::default();
        rejects.add(&[], violation("none"));
        rejects.add(&[9, 4], violation("many"));
        rejects.add(&[7], violation("one"));
        assert_eq!((rejects.len(), rejects.numbers()), (3, vec![4, 7, 9]));
        assert_eq!(rejects.violation(9), Some(&violation("many")));
        assert_eq!(rejects.violation(7), Some(&violation("one")));
        assert_eq!(rejects.violation(5), None);
    }
}
