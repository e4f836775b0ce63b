//! Trials: what an upload of the rows of a file would do now.
//!
//! # Promises
//!
//! - Nothing is stored: no row, no rejected row, no previous row and no record of an upload. The
//!   tables and the catalog are afterwards as they were. Only the sequences of a table of the user
//!   may have advanced, because no database takes their numbers back.
//! - No lock on the table of the dataset is held while batches are read. A slow file keeps no other
//!   writer waiting.
//! - The rows are tried in one transaction that is rolled back. It ends within the time limit, or
//!   the trial is *too long*. It also ends soon after the caller has given up.
//! - The difference is that of an upload of the same rows into the same data: the same counts, and
//!   the same rejected rows with the same codes and messages. If the upload appends its rows
//!   without staging them, two things may differ: the code of a row that violates several
//!   constraints, and which of two rows with the same unique value is stored.
//! - `changed_columns` counts the rows that would be updated and would get another value in the
//!   column. A column without such a row is missing.
//! - Rows that exceed the limit of rejected rows are *too many rejects*, as in an upload. The first
//!   rejected row is that of the upload.
//! - However many rows are rejected, and however large they are, little of them is in memory.
//! - If the dataset is missing, or was declared again with other columns, the trial is *not found*.
//! - A trial for which an upload would have to wait is *unavailable*: rows of another upload must
//!   be removed first, another transaction locks the table, or somebody has just changed it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::error::PortResult;
use crate::rejects::RejectedRow;
use crate::upload::UploadDataset;

/// The most rejected rows that a trial returns.
pub const TRIAL_REJECTS: usize = 100;

/// The most bytes of the rejected rows of a trial. Each of them may have several MiB.
pub const TRIAL_REJECT_BYTES: usize = 4 << 20;

/// The rows of a file that are tried on the table of a dataset.
#[derive(Debug)]
pub struct Trial {
    /// The dataset, as an upload of the file would have it. Its `merge` is always set: rows that an
    /// upload would append without staging them are tried in the mode `append`.
    pub dataset: UploadDataset,
    /// The columns of the file.
    pub columns: Vec<String>,
    /// The rows that were read, with those that were rejected.
    pub rows_read: u64,
    /// The rows that were rejected while the file was read. No batch has them.
    pub rows_rejected: u64,
    /// The longest time of the transaction. Reading the batches does not count.
    pub time_limit: Duration,
}

/// The encoded batches of a trial in order, as the queue has them.
pub type TrialBatches<'a> = BoxStream<'a, io::Result<Bytes>>;

/// What an upload of the rows would do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Rows that would be inserted.
    pub inserted: u64,
    /// Rows that would replace others with their key.
    pub updated: u64,
    /// Rows that would change nothing.
    pub duplicate: u64,
    /// Rows that the table would reject. Those that were rejected while the file was read are not
    /// counted here.
    pub rejected: u64,
    /// The first rows that the table would reject, in order: see [`FirstRejects`].
    pub rejects: Vec<RejectedRow>,
    /// How many of the updated rows would get another value, by the names of the columns.
    pub changed_columns: BTreeMap<String, u64>,
    /// The properties of the table that the user should know before the upload.
    pub warnings: Vec<TrialWarning>,
}

/// A property of the table because of which an upload is slow or cannot be undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrialWarning {
    /// The stable code for programs: `row_triggers`, `volatile_defaults` or `not_reversible`.
    pub code: Cow<'static, str>,
    /// The explanation for people.
    pub message: String,
}

/// The outcome of a trial.
#[derive(Debug, PartialEq, Eq)]
pub enum Tried {
    /// An upload of the rows would end well.
    Difference(Difference),
    /// More rows would be rejected than the upload allows.
    TooManyRejects {
        /// The rows that are rejected, while the file was read and by the table.
        rejected: u64,
        /// The first row that the table rejects, as an upload keeps it. Its text is left out if it
        /// is larger than [`TRIAL_REJECT_BYTES`].
        first: Option<RejectedRow>,
    },
    /// The trial did not end within its time limit, or the rows could not be prepared for it within
    /// the time of a merge.
    TooLong,
}

/// The first rejected rows of a trial, of which there may be millions.
#[derive(Debug, Default)]
pub struct FirstRejects {
    rows: Vec<RejectedRow>,
    bytes: usize,
}

impl FirstRejects {
    /// Adds the next row, unless there are [`TRIAL_REJECTS`] of them. The row is added without its
    /// text if all rows together would be larger than [`TRIAL_REJECT_BYTES`].
    pub fn push(&mut self, mut row: RejectedRow) {
        if self.rows.len() == TRIAL_REJECTS {
            return;
        }
        if self.bytes + row.size_bytes() > TRIAL_REJECT_BYTES {
            (row.raw, row.fields) = (None, None);
        }
        self.bytes += row.size_bytes();
        self.rows.push(row);
    }

    /// The row that was added first.
    pub fn first(&self) -> Option<&RejectedRow> {
        self.rows.first()
    }

    /// The rows, in the order in which they were added.
    pub fn into_rows(self) -> Vec<RejectedRow> {
        self.rows
    }
}

/// Trials of rows. See the module for its promises.
#[async_trait]
pub trait ValidationStore: fmt::Debug + Send + Sync {
    /// Tries the rows of a file on the table of its dataset. Fails with the error of the stream if
    /// a batch cannot be read.
    async fn validate(&self, trial: &Trial, batches: TrialBatches<'_>) -> PortResult<Tried>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(row: u64, text_bytes: usize) -> RejectedRow {
        RejectedRow {
            row,
            line: row + 1,
            offset: 0,
            column: None,
            code: "unique_violation".to_owned(),
            constraint: None,
            message: "the reason".to_owned(),
            raw: None,
            fields: Some(vec!["x".repeat(text_bytes)]),
        }
    }

    #[test]
    fn the_first_rejected_rows_have_a_limited_number() {
        let mut first = FirstRejects::default();
        for row in 1..=2 * TRIAL_REJECTS as u64 {
            first.push(rejected(row, 1));
        }
        let numbers = first.into_rows().into_iter().map(|row| row.row);
        assert!(numbers.eq(1..=TRIAL_REJECTS as u64));
    }

    #[test]
    fn a_rejected_row_beyond_the_limit_of_bytes_has_no_text() {
        let mut first = FirstRejects::default();
        for (row, text_bytes) in [(1, 3 << 20), (2, 2 << 20), (3, 1 << 10), (4, 5 << 20)] {
            first.push(rejected(row, text_bytes));
        }
        let rows = first.into_rows().into_iter();
        let has_text: Vec<bool> = rows.map(|row| row.fields.is_some()).collect();
        assert_eq!(has_text, [true, false, true, false]);
    }
}
