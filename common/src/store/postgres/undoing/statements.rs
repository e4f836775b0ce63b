//! The statements that take back the rows of one upload.
//!
//! All of them get the same parameters, and the server ignores those that a statement does not
//! name. `$1`: the names of the table's columns, `$2`: the number of the upload, `$3` and `$4`: the
//! first and the last row, `$5`: the id of the upload. The number of a row is its `row_number` in a
//! table of Carga, and its `id` in `written_rows` for a table of the user.

use super::Step;
use crate::store::postgres::previous_rows::TableColumns;
use crate::store::postgres::written_rows::{RowIdentity, WrittenColumns};

/// Whether the upload has inserted the row `t`, and has not replaced another one with it.
const INSERTED: &str = "t.upload_id = $5 AND t.row_number BETWEEN $3 AND $4
    AND NOT EXISTS (SELECT FROM previous_rows p
                    WHERE p.upload = $2 AND p.row_number = t.row_number AND p.row_number BETWEEN $3 AND $4)";

/// Whether the upload has replaced the row `p` with the row `t`.
const REPLACED: &str = "t.upload_id = $5 AND t.row_number = p.row_number
    AND p.upload = $2 AND p.row_number BETWEEN $3 AND $4";

/// The statements for the steps of an undo.
#[derive(Debug)]
pub(super) struct Statements {
    /// The names of the table's columns.
    pub(super) names: Vec<String>,
    delete: String,
    restore: String,
    /// Selects the numbers of the rows that `delete` takes.
    to_delete: String,
    /// Selects the numbers of the rows that `restore` takes.
    to_restore: String,
}

impl Statements {
    /// For the rows in a table of Carga, which is quoted and has its schema.
    pub(super) fn of_own(table: &str, columns: TableColumns) -> Self {
        let assignments = columns.assignments();
        Self {
            delete: format!("DELETE FROM {table} AS t WHERE {INSERTED}"),
            restore: format!(
                "UPDATE {table} AS t SET {assignments} FROM previous_rows AS p WHERE {REPLACED}"
            ),
            to_delete: format!(
                "SELECT t.row_number FROM {table} AS t WHERE {INSERTED} ORDER BY t.row_number"
            ),
            to_restore: format!(
                "SELECT t.row_number FROM previous_rows AS p JOIN {table} AS t ON {REPLACED}
                 ORDER BY t.row_number"
            ),
            names: columns.names,
        }
    }

    /// For the rows in a table of the user, which is quoted and has its schema. Only rows that are
    /// as the upload wrote them are taken back.
    pub(super) fn of_user(table: &str, identity: RowIdentity, written: &WrittenColumns) -> Self {
        let is_as_written = identity.is_as_written(written);
        let assignments = identity.columns.assignments();
        let (inserted, replaced) = (written_rows("IS NULL"), written_rows("IS NOT NULL"));
        let numbers = |rows: &str| {
            format!("SELECT p.id FROM {rows} JOIN {table} AS t ON {is_as_written} ORDER BY p.id")
        };
        Self {
            delete: format!("DELETE FROM {table} AS t USING {inserted} WHERE {is_as_written}"),
            restore: format!(
                "UPDATE {table} AS t SET {assignments} FROM {replaced} WHERE {is_as_written}"
            ),
            to_delete: numbers(&inserted),
            to_restore: numbers(&replaced),
            names: identity.columns.names,
        }
    }

    /// Takes the rows of a step back.
    pub(super) fn reverse(&self, step: Step) -> &str {
        match step {
            Step::Delete => &self.delete,
            Step::Restore => &self.restore,
        }
    }

    /// Selects the numbers of the rows of a step, in order.
    pub(super) fn numbers(&self, step: Step) -> &str {
        match step {
            Step::Delete => &self.to_delete,
            Step::Restore => &self.to_restore,
        }
    }
}

/// The written rows of the upload whose previous values are missing or not, as `p`.
fn written_rows(condition: &str) -> String {
    format!(
        "(SELECT id, key, digest, previous AS row FROM written_rows
          WHERE upload = $2 AND id BETWEEN $3 AND $4 AND previous {condition}) AS p"
    )
}
