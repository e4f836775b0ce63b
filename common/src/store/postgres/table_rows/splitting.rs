//! Divides rows into ranges until every violating row is found.

use std::ops::{Range, RangeInclusive};
use std::time::{Duration, Instant};

use sqlx::PgConnection;

use super::fault::{Fault, depends_on_others};
use super::{TableWriter, rows};
use crate::store::sql;

/// The numbers of all rows.
pub(in crate::store::postgres) const ALL_ROWS: RangeInclusive<i64> = 0..=i64::MAX;

/// How long a merge, or an undo of one, may look for rows that the table refuses.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// Fails with this reason if a merge or an undo has begun too long ago. Another attempt would take
/// as long, so the error is *invalid*.
pub(in crate::store::postgres) fn check_duration(
    started: Instant,
    reason: &'static str,
) -> sqlx::Result<()> {
    match started.elapsed() > LONGEST {
        true => Err(sql::invalid(reason)),
        false => Ok(()),
    }
}

/// Sends the rows that are left as ranges, each in one COPY. A range that fails is divided at the
/// row that the error names, or in the middle. A row that fails alone violates a constraint.
pub(super) async fn store(
    connection: &mut PgConnection,
    writer: &mut TableWriter<'_>,
) -> sqlx::Result<()> {
    let indexes = std::mem::take(&mut writer.left);
    let mut split = Split::new(indexes.len());
    while let Some(range) = split.next_range() {
        writer.check_time()?;
        let runs = rows::runs(&indexes[range.clone()]);
        match writer.try_copy(connection, &runs).await? {
            None => split.succeed(&range),
            Some(Fault { violation, row, .. }) => {
                if let Some(place) = split.fail(range, row, depends_on_others(&violation)) {
                    writer.violations.insert(indexes[place], violation);
                }
            }
        }
    }
    Ok(())
}

/// The ranges that must still be sent.
#[derive(Debug)]
pub(in crate::store::postgres) struct Split {
    /// The next range is the last one here.
    waiting: Vec<Range<usize>>,
    /// The most rows of a range. Every error costs the rows of its range, so this is about twice
    /// the distance between two violating rows.
    max_rows: usize,
}

impl Split {
    pub(in crate::store::postgres) fn new(rows: usize) -> Self {
        let all = 0..rows;
        Self {
            max_rows: rows,
            waiting: Vec::from_iter((!all.is_empty()).then_some(all)),
        }
    }

    pub(in crate::store::postgres) fn next_range(&mut self) -> Option<Range<usize>> {
        let range = self.waiting.pop()?;
        if range.len() <= self.max_rows {
            return Some(range);
        }
        let middle = range.start + self.max_rows;
        self.waiting.push(middle..range.end);
        Some(range.start..middle)
    }

    /// Records that a range was stored.
    pub(in crate::store::postgres) fn succeed(&mut self, range: &Range<usize>) {
        if range.len() >= self.max_rows {
            self.max_rows = self.max_rows.saturating_mul(2);
        }
    }

    /// Divides a range that was not stored. `row` is the row of the range that the error names, and
    /// counts from 0. Returns the row that is found to violate a constraint.
    ///
    /// If the violation depends on other rows, the rows before it are stored first, since they may
    /// violate a constraint themselves.
    pub(in crate::store::postgres) fn fail(
        &mut self,
        range: Range<usize>,
        row: Option<usize>,
        depends_on_others: bool,
    ) -> Option<usize> {
        let Range { start, end } = range;
        if end - start == 1 {
            return Some(start);
        }
        let (middle, found) = match row.filter(|row| *row < end - start) {
            Some(row) => {
                self.max_rows = 2 * (row + 1);
                let is_found = row == 0 || !depends_on_others;
                (start + row, is_found.then_some(start + row))
            }
            None => (start + (end - start) / 2, None),
        };
        let second = middle + usize::from(found.is_some())..end;
        let parts = [second, start..middle].into_iter();
        self.waiting.extend(parts.filter(|part| !part.is_empty()));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Stores rows of which some violate a constraint. Returns the stored rows, the violating rows,
    /// and how many rows were sent.
    fn store(
        violating: &[bool],
        is_named: bool,
        depends_on_others: bool,
    ) -> (Vec<usize>, Vec<usize>, usize) {
        let mut split = Split::new(violating.len());
        let (mut stored, mut found, mut sent) = (Vec::new(), Vec::new(), 0);
        while let Some(range) = split.next_range() {
            assert!(!range.is_empty());
            sent += range.len();
            match violating[range.clone()].iter().position(|bad| *bad) {
                None => {
                    split.succeed(&range);
                    stored.extend(range);
                }
                Some(row) => {
                    let row = is_named.then_some(row);
                    found.extend(split.fail(range, row, depends_on_others));
                }
            }
        }
        (stored, found, sent)
    }

    proptest! {
        #[test]
        fn every_row_is_either_stored_or_found_in_order(
            violating in prop::collection::vec(any::<bool>(), 0..60),
            is_named in any::<bool>(),
            depends_on_others in any::<bool>(),
        ) {
            let (stored, found, _) = store(&violating, is_named, depends_on_others);
            let violating = violating.as_slice();
            let rows = |wanted| (0..violating.len()).filter(move |row| violating[*row] == wanted);
            prop_assert!(stored.into_iter().eq(rows(false)));
            prop_assert!(found.into_iter().eq(rows(true)));
        }
    }

    #[test]
    fn many_violating_rows_that_are_named_cost_little() {
        let violating: Vec<bool> = (0..16_000).map(|row| row % 2 == 1).collect();
        for depends_on_others in [false, true] {
            let (_, found, sent) = store(&violating, true, depends_on_others);
            assert_eq!(found.len(), 8000);
            assert!(sent < 5 * 16_000, "{sent}");
        }
    }

    #[test]
    fn a_range_without_a_violating_row_is_sent_once() {
        let stored = (0..9).collect();
        assert_eq!(store(&[false; 9], true, false), (stored, Vec::new(), 9));
        assert_eq!(store(&[], true, false), (Vec::new(), Vec::new(), 0));
    }

    #[test]
    fn a_row_number_outside_of_the_range_counts_as_unnamed() {
        let mut split = Split::new(4);
        let range = split.next_range().unwrap();
        assert_eq!(split.fail(range, Some(4), false), None);
        assert_eq!(split.waiting, [2..4, 0..2]);
    }

    #[test]
    fn a_violation_that_depends_on_others_is_found_after_they_are_stored() {
        let mut split = Split::new(9);
        let range = split.next_range().unwrap();
        assert_eq!(split.fail(range, Some(3), true), None);
        assert_eq!(split.waiting, [3..9, 0..3]);
        split.waiting.pop();
        let range = split.next_range().unwrap();
        assert_eq!(split.fail(range, Some(0), true), Some(3));
    }
}
