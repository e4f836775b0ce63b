//! Finds the table among the records of a sample.

use std::collections::HashMap;

use super::header::{FirstRecord, first_record};
use super::nearly_all;
use super::sample::{SampleRecord, without_footer};

/// The most records above a table that are skipped. More records are another table.
pub(super) const MAX_TITLES: usize = 50;

/// The table in a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Table {
    /// The index of its first record in the sample.
    pub(super) start: usize,
    /// The number of fields of its rows.
    pub(super) width: usize,
}

/// The table of these records: most of them have its width, and nearly all from the first to the
/// last one that have it. Notes may stand above it and below it.
pub(super) fn table(records: &[SampleRecord<'_>]) -> Option<Table> {
    let records = without_footer(records);
    let mut best: Option<Table> = None;
    // For each width, the number of records from here on, and the index of the last one.
    let mut found = HashMap::<usize, (usize, usize)>::new();
    for (start, record) in records.iter().enumerate().rev() {
        let (count, last) = found.entry(record.width()).or_insert((0, start));
        *count += 1;
        let (total, below) = (*last + 1 - start, records.len() - start);
        let is_even = nearly_all(*count, total) && 2 * *count > below;
        // In a small table, a single damaged row is more than a tenth.
        let continues = best.is_some_and(|table| table.width == record.width());
        let is_table = is_even || continues && 2 * *count > total;
        if record.width() > 1 && *count >= 2 && is_table && !is_below(records, best, record) {
            // The smallest start wins, because the loop goes backwards.
            best = Some(Table {
                start,
                width: record.width(),
            });
        }
    }
    best
}

/// Whether the table begins below this record, which has fewer fields, with a header below a blank
/// line. Such records describe the table.
fn is_below(records: &[SampleRecord<'_>], table: Option<Table>, record: &SampleRecord<'_>) -> bool {
    let Some(Table { start, width }) = table else {
        return false;
    };
    record.width() < width
        && records[start].after_blank
        && start <= MAX_TITLES
        && first_record(&records[start..]).value == FirstRecord::Header
}
