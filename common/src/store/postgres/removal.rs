//! How the removal of an upload's rows is divided into steps along the ledger.

use crate::store::rules::CHUNK_ROWS;

/// The most ledger entries that one step reads: its batches, and one more that bounds their row
/// numbers.
pub(super) const REMOVAL_LOOKAHEAD: usize = 501;

/// A ledger entry of an upload whose rows are to be removed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Removable {
    pub(super) epoch: i32,
    pub(super) seq: i32,
    /// The first row number, or 0 if the batch has no rows.
    pub(super) first_row: i64,
    pub(super) rows: i32,
    /// The table with the rows.
    pub(super) table: RowTable,
}

/// A table with rows of uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowTable {
    /// The table `landing`.
    Landing,
    /// The table `rows`, in which the previous version stores rows.
    Rows,
    /// The table of the upload's dataset.
    Dataset,
}

impl RowTable {
    /// The table, by the columns `landing` and `dataset` of a ledger entry.
    pub(super) fn of(is_in_landing: bool, is_in_dataset: bool) -> Self {
        match (is_in_landing, is_in_dataset) {
            (_, true) => Self::Dataset,
            (true, false) => Self::Landing,
            (false, false) => Self::Rows,
        }
    }
}

/// Consecutive batches of one epoch whose rows are removed in one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) epoch: i32,
    pub(super) first_seq: i32,
    pub(super) last_seq: i32,
    pub(super) first_row: i64,
    /// An upper bound of the row numbers.
    pub(super) last_row: i64,
    /// Whether the table `landing` has rows of these batches.
    pub(super) in_landing: bool,
    /// Whether the table `rows` has rows of these batches.
    pub(super) in_rows: bool,
    /// Whether the table of the dataset has rows of these batches.
    pub(super) in_dataset: bool,
    /// Whether the ledger has no further entry.
    pub(super) is_last: bool,
}

/// Takes batches until they have [`CHUNK_ROWS`] rows. A batch that is larger is a step by itself.
/// Rejected rows leave gaps between row numbers, so the last row number of a batch is not known; it
/// is below the first row number of the next batch.
pub(super) fn step_of(ledger: &[Removable]) -> Option<Step> {
    let first = ledger.first()?;
    let may_have_more = ledger.len() >= REMOVAL_LOOKAHEAD;
    let max_batches = ledger.len() - usize::from(may_have_more);
    let (mut taken, mut rows) = (0, 0);
    for entry in ledger.iter().take(max_batches) {
        rows += i64::from(entry.rows);
        if taken > 0 && (entry.epoch != first.epoch || rows > CHUNK_ROWS) {
            break;
        }
        taken += 1;
    }
    let (batches, rest) = ledger.split_at(taken);
    let with_rows = batches.iter().find(|entry| entry.rows > 0);
    let mut next = rest.iter().filter(|entry| entry.epoch == first.epoch);
    let next_with_rows = next.find(|entry| entry.rows > 0);
    let are_in = |table| batches.iter().any(|entry| entry.table == table);
    Some(Step {
        epoch: first.epoch,
        first_seq: first.seq,
        last_seq: batches.last().unwrap_or(first).seq,
        first_row: with_rows.map_or(0, |entry| entry.first_row),
        last_row: next_with_rows.map_or(i64::MAX, |next| next.first_row - 1),
        in_landing: are_in(RowTable::Landing),
        in_rows: are_in(RowTable::Rows),
        in_dataset: are_in(RowTable::Dataset),
        is_last: rest.is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::RowTable::{Dataset, Landing, Rows};
    use super::*;

    /// A ledger of `epoch`, `first_row`, `rows` and `table`.
    fn ledger(batches: &[(i32, i64, i32, RowTable)]) -> Vec<Removable> {
        let entry = |(&(epoch, first_row, rows, table), seq)| Removable {
            epoch,
            seq,
            first_row,
            rows,
            table,
        };
        batches.iter().zip(1..).map(entry).collect()
    }

    /// Whether a step has rows in `landing`, in `rows`, and in the table of the dataset.
    fn tables(step: &Step) -> [bool; 3] {
        [step.in_landing, step.in_rows, step.in_dataset]
    }

    #[test]
    fn a_step_ends_before_the_batch_that_would_make_it_too_large() {
        let ledger = ledger(&[
            (1, 5, 30_000, Landing),
            (1, 40_000, 20_000, Landing),
            (1, 60_001, 1, Landing),
        ]);
        let step = step_of(&ledger).unwrap();
        assert_eq!((step.first_seq, step.last_seq), (1, 2));
        assert_eq!((step.first_row, step.last_row), (5, 60_000));
        assert!(tables(&step) == [true, false, false] && !step.is_last);
        let last = step_of(&ledger[2..]).unwrap();
        assert_eq!((last.first_row, last.last_row), (60_001, i64::MAX));
        assert!(last.is_last);
        assert_eq!(step_of(&[]), None);
    }

    #[test]
    fn a_step_covers_one_epoch_and_both_tables() {
        let ledger = ledger(&[(1, 0, 0, Rows), (1, 1, 9, Landing), (2, 1, 9, Rows)]);
        let step = step_of(&ledger).unwrap();
        assert_eq!((step.epoch, step.last_seq), (1, 2));
        assert_eq!((step.first_row, step.last_row), (1, i64::MAX));
        assert!(tables(&step) == [true, true, false] && !step.is_last);
    }

    #[test]
    fn a_step_of_a_dataset_covers_its_table_only() {
        let ledger = ledger(&[(1, 1, 9, Dataset), (1, 10, 9, Dataset)]);
        let step = step_of(&ledger).unwrap();
        assert_eq!((step.first_row, step.last_row), (1, i64::MAX));
        assert!(tables(&step) == [false, false, true] && step.is_last);
    }

    #[test]
    fn the_last_entry_that_was_read_bounds_a_step_and_is_not_part_of_it() {
        let batches: Vec<_> = (0..REMOVAL_LOOKAHEAD as i64)
            .map(|batch| (1, batch * 10 + 1, 10, Landing))
            .collect();
        let step = step_of(&ledger(&batches)).unwrap();
        assert_eq!((step.last_seq, step.last_row), (500, 5000));
        assert!(!step.is_last);
    }

    #[test]
    fn a_ledger_entry_says_which_table_has_its_rows() {
        assert_eq!(RowTable::of(true, false), Landing);
        assert_eq!(RowTable::of(false, false), Rows);
        assert_eq!(RowTable::of(false, true), Dataset);
    }
}
