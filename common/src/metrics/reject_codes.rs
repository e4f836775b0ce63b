//! Counts rejected rows by the code of their reason.

use super::table::{INTAKE_ROWS_REJECTED, UPLOAD_ROWS_REJECTED};
use super::{Counter, Metric};

/// The codes that the intake gives to rejected rows. `docs/api.md` explains them.
pub(super) const INTAKE_CODES: [&str; 12] = [
    "too_few_fields",
    "too_many_fields",
    "bad_quote",
    "unclosed_quote",
    "undecodable",
    "nul_character",
    "not_corrected",
    "field_too_large",
    "row_too_large",
    "wrong_type",
    "out_of_range",
    "missing_value",
];

/// The codes of rows that violate a constraint of a table, also in `docs/api.md`.
pub(super) const TABLE_CODES: [&str; 8] = [
    "unique_violation",
    "check_violation",
    "not_null_violation",
    "foreign_key_violation",
    "exclusion_violation",
    "trigger_exception",
    "data_exception",
    "constraint_violation",
];

/// One counter for each code, and one for all other codes.
#[derive(Debug)]
pub struct RejectCounters {
    known: Vec<(&'static str, Counter)>,
    other: Counter,
}

impl RejectCounters {
    /// Counters of rows that are rejected while their file is read.
    pub fn of_intake() -> Self {
        Self::new(&INTAKE_ROWS_REJECTED, INTAKE_CODES)
    }

    /// Counters of the rejected rows of uploads that have ended.
    pub(super) fn of_uploads() -> Self {
        let codes = INTAKE_CODES.into_iter().chain(TABLE_CODES);
        Self::new(&UPLOAD_ROWS_REJECTED, codes)
    }

    fn new(metric: &Metric, codes: impl IntoIterator<Item = &'static str>) -> Self {
        let known = codes.into_iter();
        Self {
            known: known
                .map(|code| (code, metric.counter_of([code])))
                .collect(),
            other: metric.counter_of(["other"]),
        }
    }

    /// Counts rows that were rejected with this code.
    pub(super) fn count(&self, code: &str, rows: u64) {
        let known = self.known.iter().find(|(known, _)| *known == code);
        let counter = known.map_or(&self.other, |(_, counter)| counter);
        counter.increment(rows);
    }

    /// Counts a group of rejected rows, each with its code. Consecutive rows with the same code,
    /// which most are, cost one addition.
    pub fn count_group<'a>(&self, codes: impl Iterator<Item = &'a str>) {
        let mut run: Option<(&str, u64)> = None;
        for code in codes {
            match &mut run {
                Some((last, rows)) if *last == code => *rows += 1,
                _ => {
                    if let Some((last, rows)) = run.replace((code, 1)) {
                        self.count(last, rows);
                    }
                }
            }
        }
        if let Some((last, rows)) = run {
            self.count(last, rows);
        }
    }
}
