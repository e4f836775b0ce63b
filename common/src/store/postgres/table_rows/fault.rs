//! What Postgres reports about a row that violates a constraint.

use sqlx::postgres::PgDatabaseError;

use crate::store::sql;
use crate::store::violations::{Violation, shortened};
use crate::upload::UploadDataset;

/// The SQLSTATE of an error about a limit of the server.
pub(super) const PROGRAM_LIMIT: &str = "54000";

/// An error that a row causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::postgres) struct Fault {
    pub(in crate::store::postgres) violation: Violation,
    /// The position of the row among those of the COPY, from 0, if the error names it.
    pub(in crate::store::postgres) row: Option<usize>,
    /// Whether the constraint belongs to the table of the dataset. It may also belong to a domain,
    /// to a partition, or to another table that a trigger writes to.
    pub(in crate::store::postgres) is_of_table: bool,
}

impl Fault {
    /// Returns `None` for an error that no row causes.
    pub(in crate::store::postgres) fn of(
        error: &sqlx::Error,
        dataset: &UploadDataset,
    ) -> Option<Self> {
        if let sqlx::Error::Encode(reason) = error
            && let Some(left_out) = reason.downcast_ref::<LeftOut>()
        {
            return Some(left_out.fault());
        }
        let error = error.as_database_error()?;
        let error: &PgDatabaseError = error.try_downcast_ref()?;
        let report = Report {
            sqlstate: error.code(),
            message: error.message(),
            schema: error.schema(),
            table: error.table(),
            column: error.column(),
            constraint: error.constraint(),
            context: error.r#where(),
        };
        let table = dataset.postgres_table();
        report.fault((table.schema(), table.name()))
    }
}

/// Whether a row may violate a constraint because of another row. A trigger may read other rows.
pub(in crate::store::postgres) fn depends_on_others(violation: &Violation) -> bool {
    matches!(
        violation.code,
        "unique_violation" | "exclusion_violation" | "trigger_exception"
    )
}

/// A trigger has left rows out, without an error. They must not count as stored.
#[derive(Debug, thiserror::Error)]
#[error("a trigger of the table left the row out")]
struct LeftOut;

impl LeftOut {
    fn fault(&self) -> Fault {
        Fault {
            violation: Violation {
                code: "trigger_exception",
                message: self.to_string(),
                column: None,
                constraint: None,
            },
            row: None,
            is_of_table: false,
        }
    }
}

/// Fails if the table has taken fewer rows than it was given. [`Fault::of`] knows the error.
pub(in crate::store::postgres) fn check_taken(given: u64, taken: u64) -> sqlx::Result<()> {
    match taken < given {
        true => Err(sql::invalid(LeftOut)),
        false => Ok(()),
    }
}

/// The fields of an error (PostgreSQL manual, "Error and Notice Message Fields").
#[derive(Debug, Default, Clone, Copy)]
struct Report<'a> {
    sqlstate: &'a str,
    message: &'a str,
    schema: Option<&'a str>,
    table: Option<&'a str>,
    column: Option<&'a str>,
    constraint: Option<&'a str>,
    context: Option<&'a str>,
}

impl Report<'_> {
    /// `schema` and `table` are the names of the table that gets the rows.
    fn fault(self, (schema, table): (&str, &str)) -> Option<Fault> {
        let line = self.context.and_then(|context| Line::of(context, table));
        let code = reject_code(self.sqlstate)?;
        // At a limit, the server may name the last row that it has read, so the row must be
        // searched for.
        let is_named = self.sqlstate != PROGRAM_LIMIT;
        let row = line.filter(|_| is_named).map(|line| line.row);
        let is_of_table = self.schema == Some(schema) && self.table == Some(table);
        // The column of another table is not a column of the row.
        let own_column = self.column.filter(|_| is_of_table || self.table.is_none());
        let column = own_column.or_else(|| line.and_then(|line| line.column));
        Some(Fault {
            violation: Violation {
                code,
                message: shortened(self.message),
                column: column.map(str::to_owned),
                constraint: self.constraint.map(str::to_owned),
            },
            row,
            is_of_table,
        })
    }
}

/// The code of a rejected row for a SQLSTATE. `None` if the error is not caused by a value.
fn reject_code(sqlstate: &str) -> Option<&'static str> {
    match sqlstate {
        "23502" => Some("not_null_violation"),
        "23503" => Some("foreign_key_violation"),
        "23505" => Some("unique_violation"),
        "23514" => Some("check_violation"),
        "23P01" => Some("exclusion_violation"),
        // A value that is too large for an index, or a row that is too large for the table.
        PROGRAM_LIMIT => Some("data_exception"),
        // An exception that a trigger raises.
        "P0001" => Some("trigger_exception"),
        // In order: a binary value of another type, because the type of a column was changed by
        // hand; a COPY in another format; text that the database can never store.
        "22P03" | "22P04" | "22021" => None,
        _ if sqlstate.starts_with("22") => Some("data_exception"),
        _ if sqlstate.starts_with("23") => Some("constraint_violation"),
        _ => None,
    }
}

/// The line of a COPY, as an error names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line<'a> {
    /// From 0.
    row: usize,
    column: Option<&'a str>,
}

impl<'a> Line<'a> {
    /// Reads `COPY sales, line 3` or `COPY sales, line 3, column sku`, also with other words for
    /// `line` and `column`. The COPY is the last line of the context, below those of triggers and
    /// functions. A constraint that is checked at the end of the COPY has no such line.
    fn of(context: &'a str, table: &str) -> Option<Self> {
        let last = context.lines().next_back()?;
        let rest = last.strip_prefix("COPY ")?.strip_prefix(table)?;
        let rest = rest.strip_prefix(", ")?;
        let rest = &rest[rest.find(|character: char| character.is_ascii_digit())?..];
        let end = rest.find(|character: char| !character.is_ascii_digit());
        let (number, rest) = rest.split_at(end.unwrap_or(rest.len()));
        let number: usize = number.parse().ok()?;
        let column = rest
            .strip_prefix(", ")
            .and_then(|rest| rest.split_once(' '));
        Some(Self {
            row: number.checked_sub(1)?,
            column: column.map(|(_, column)| column),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::RejectLimit;

    const SALES: (&str, &str) = ("datasets", "sales");

    fn line(context: &str) -> Option<(usize, Option<&str>)> {
        Line::of(context, "sales 2024").map(|line| (line.row, line.column))
    }

    #[test]
    fn the_line_of_the_copy_is_read_in_every_language() {
        for (context, expected) in [
            ("COPY sales 2024, line 3", (2, None)),
            ("COPY sales 2024, Zeile 12, Spalte a b", (11, Some("a b"))),
            (
                "COPY sales 2024, line 1, column line 7",
                (0, Some("line 7")),
            ),
            (
                "PL/pgSQL function check_sales() line 5 at RAISE\nCOPY sales 2024, line 8",
                (7, None),
            ),
        ] {
            assert_eq!(line(context), Some(expected), "{context}");
        }
    }

    #[test]
    fn another_context_names_no_line() {
        for context in [
            "",
            "COPY sales 2024",
            "COPY sales 2024, line 0",
            "COPY sales, line 3",
            "COPY sales 2024, line 99999999999999999999999",
            "COPY sales 2024, line 3\nPL/pgSQL function load() line 5 at SQL statement",
            "PL/pgSQL function check_sales() line 5 at RAISE",
        ] {
            assert_eq!(line(context), None, "{context}");
        }
    }

    #[test]
    fn a_sqlstate_has_a_code_if_a_row_is_the_cause() {
        for (sqlstate, code) in [
            ("23502", Some("not_null_violation")),
            ("23503", Some("foreign_key_violation")),
            ("23505", Some("unique_violation")),
            ("23514", Some("check_violation")),
            ("23P01", Some("exclusion_violation")),
            ("23001", Some("constraint_violation")),
            ("22003", Some("data_exception")),
            ("54000", Some("data_exception")),
            ("P0001", Some("trigger_exception")),
            ("22P03", None),
            ("22021", None),
            ("40P01", None),
            ("57014", None),
        ] {
            assert_eq!(reject_code(sqlstate), code, "{sqlstate}");
        }
    }

    #[test]
    fn the_fault_of_a_row_has_the_fields_of_the_error() {
        let report = Report {
            sqlstate: "23502",
            message: "null value in column \"sku\"",
            schema: Some("datasets"),
            table: Some("sales"),
            column: Some("sku"),
            context: Some("COPY sales, line 4"),
            ..Report::default()
        };
        let fault = report.fault(SALES).unwrap();
        assert!(fault.is_of_table && fault.row == Some(3));
        assert_eq!(fault.violation.column.as_deref(), Some("sku"));
        assert_eq!(fault.violation.message, "null value in column \"sku\"");
        let other = Report {
            sqlstate: "57014",
            ..report
        };
        assert_eq!(other.fault(SALES), None);
    }

    #[test]
    fn the_column_of_another_table_is_not_reported() {
        let report = Report {
            sqlstate: "23505",
            schema: Some("public"),
            table: Some("sales"),
            column: Some("id"),
            constraint: Some("log_pkey"),
            context: Some("COPY sales, line 4"),
            ..Report::default()
        };
        let fault = report.fault(SALES).unwrap();
        assert!(!fault.is_of_table);
        assert_eq!(fault.violation.column, None);
        assert_eq!(fault.violation.constraint.as_deref(), Some("log_pkey"));
    }

    #[test]
    fn a_constraint_belongs_to_the_table_that_gets_the_rows() {
        let report = Report {
            sqlstate: "23502",
            schema: Some("shop"),
            table: Some("sales"),
            column: Some("id"),
            ..Report::default()
        };
        let fault = report.fault(("shop", "sales")).unwrap();
        assert!(fault.is_of_table);
        assert_eq!(fault.violation.column.as_deref(), Some("id"));
        for other in [SALES, ("shop", "prices")] {
            let fault = report.fault(other).unwrap();
            assert!(!fault.is_of_table && fault.violation.column.is_none());
        }
    }

    #[test]
    fn a_row_that_exceeds_a_limit_is_searched_for() {
        let report = Report {
            sqlstate: "54000",
            context: Some("COPY sales, line 4"),
            ..Report::default()
        };
        let fault = report.fault(SALES).unwrap();
        assert_eq!((fault.violation.code, fault.row), ("data_exception", None));
        let unnamed = Report {
            context: None,
            ..report
        };
        assert_eq!(unnamed.fault(SALES), Some(fault));
    }

    #[test]
    fn rows_that_a_trigger_leaves_out_are_a_fault() {
        let dataset = UploadDataset {
            name: "sales".parse().unwrap(),
            tenant: Default::default(),
            columns: Vec::new(),
            missing: Vec::new(),
            ignored: Vec::new(),
            sources: Vec::new(),
            reject_limit: RejectLimit::default(),
            merge: None,
            table: None,
        };
        assert!(check_taken(3, 3).is_ok());
        let error = check_taken(3, 2).unwrap_err();
        let fault = Fault::of(&error, &dataset).unwrap();
        assert_eq!(fault.violation.code, "trigger_exception");
        assert!(fault.row.is_none() && !fault.is_of_table);
        let other = sql::invalid("another fault");
        assert_eq!(Fault::of(&other, &dataset), None);
    }

    #[test]
    fn the_column_of_a_value_is_read_from_the_line() {
        let report = Report {
            sqlstate: "22003",
            context: Some("COPY sales, line 4, column price"),
            ..Report::default()
        };
        let fault = report.fault(SALES).unwrap();
        assert_eq!(fault.violation.column.as_deref(), Some("price"));
    }
}
