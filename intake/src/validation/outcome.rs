//! The answer of a validation.

use std::collections::BTreeMap;

use carga_common::rejects::RejectedRow;
use carga_common::store::{Difference, FirstRejects, TrialWarning};
use carga_common::upload::Dialect;
use serde::{Deserialize, Serialize};

use crate::rows::Account;

/// What an upload of a file would do.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Validation {
    /// How the file is read, and why.
    pub dialect: Dialect,
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The outcomes of the rows.
    pub rows: RowOutcomes,
    /// How many of the rows that would be updated would get another value, by the names of the
    /// columns in the dataset.
    pub changed_columns: BTreeMap<String, u64>,
    /// The first 100 rows that would be rejected. If they are too large together, some have neither
    /// `raw` nor `fields`.
    pub rejected: Vec<RejectedRow>,
    /// Properties of the table because of which an upload is slow or cannot be undone.
    pub warnings: Vec<TrialWarning>,
}

/// The outcomes that the rows of a file would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RowOutcomes {
    /// Rows of the file. The other numbers add up to this one.
    pub read: u64,
    /// Rows that would be stored as new rows.
    pub would_insert: u64,
    /// Rows that would replace others with their key.
    pub would_update: u64,
    /// Rows that would change nothing.
    pub unchanged: u64,
    /// Rows that would be rejected.
    pub rejected: u64,
}

impl Validation {
    /// The validation of a file without a dataset: every row but the rejected ones would be a new
    /// row.
    pub(super) fn of_text(
        dialect: Dialect,
        columns: Vec<String>,
        account: &Account,
        rejected: FirstRejects,
    ) -> Self {
        Self {
            dialect,
            columns,
            rows: RowOutcomes {
                read: account.rows,
                would_insert: account.rows - account.rejected,
                would_update: 0,
                unchanged: 0,
                rejected: account.rejected,
            },
            changed_columns: BTreeMap::new(),
            rejected: rejected.into_rows(),
            warnings: Vec::new(),
        }
    }

    /// Adds what the trial of the rows has found in the table of the dataset.
    pub(super) fn add(&mut self, difference: Difference) {
        let Difference {
            inserted,
            updated,
            duplicate,
            rejected,
            rejects,
            changed_columns,
            warnings,
        } = difference;
        self.rows.would_insert = inserted;
        self.rows.would_update = updated;
        self.rows.unchanged = duplicate;
        self.rows.rejected += rejected;
        self.changed_columns = changed_columns;
        self.rejected.extend(rejects);
        self.rejected.sort_by_key(|row| row.row);
        let mut first = FirstRejects::default();
        for row in std::mem::take(&mut self.rejected) {
            first.push(row);
        }
        self.rejected = first.into_rows();
        self.warnings.extend(warnings);
    }
}
