//! What SQLite says about a row that violates a constraint of a dataset's table.

use crate::store::sql::invalid;
use crate::store::violations::{Violation, shortened};
use crate::upload::UploadDataset;

// https://www.sqlite.org/rescode.html; the low byte is the primary code.
const CONSTRAINT: u32 = 19;
const CHECK: u32 = CONSTRAINT | (1 << 8);
const FOREIGN_KEY: u32 = CONSTRAINT | (3 << 8);
const NOT_NULL: u32 = CONSTRAINT | (5 << 8);
const PRIMARY_KEY: u32 = CONSTRAINT | (6 << 8);
const TRIGGER: u32 = CONSTRAINT | (7 << 8);
const UNIQUE: u32 = CONSTRAINT | (8 << 8);

/// The violation that an error of a write reports. `None` for any other error.
pub(super) fn violation(error: &sqlx::Error, dataset: &UploadDataset) -> Option<Violation> {
    if let sqlx::Error::Encode(reason) = error
        && let Some(left_out) = reason.downcast_ref::<LeftOut>()
    {
        return Some(left_out.violation());
    }
    let fault = error.as_database_error()?;
    let code: u32 = fault.code()?.parse().ok()?;
    described(code, fault.message(), dataset)
}

/// A trigger with `RAISE(IGNORE)` has left rows out, without an error. They must not count as
/// stored.
#[derive(Debug, thiserror::Error)]
#[error("a trigger of the table left the row out")]
struct LeftOut;

impl LeftOut {
    fn violation(&self) -> Violation {
        Violation {
            code: "trigger_exception",
            message: self.to_string(),
            column: None,
            constraint: None,
        }
    }
}

/// Fails if the table has taken fewer rows than it was given. [`violation`] knows the error.
pub(super) fn check_taken(given: u64, taken: u64) -> sqlx::Result<()> {
    match taken < given {
        true => Err(invalid(LeftOut)),
        false => Ok(()),
    }
}

fn described(code: u32, message: &str, dataset: &UploadDataset) -> Option<Violation> {
    if code & 0xff != CONSTRAINT {
        return None;
    }
    let table = dataset.key().sqlite_table();
    let rest = message
        .split_once(" constraint failed: ")
        .map(|(_, rest)| rest);
    let column = rest
        .and_then(|rest| rest.strip_prefix(&table)?.strip_prefix('.'))
        .map(str::to_owned);
    // The id of a row is Carga's own, and no row of a file can violate it.
    if column.as_deref() == Some("_carga_id") {
        return None;
    }
    let is_of_dataset = |name: &String| dataset.columns.iter().any(|column| column.name == *name);
    let constraint = match code {
        CHECK | UNIQUE | PRIMARY_KEY => rest.map(constraint_name),
        _ => None,
    };
    Some(Violation {
        code: match code {
            NOT_NULL => "not_null_violation",
            UNIQUE | PRIMARY_KEY => "unique_violation",
            CHECK => "check_violation",
            FOREIGN_KEY => "foreign_key_violation",
            TRIGGER => "trigger_exception",
            _ => "constraint_violation",
        },
        message: shortened(message),
        // Several columns are no name of one column.
        column: column.filter(is_of_dataset),
        constraint,
    })
}

/// The name in `index 'the name'`, in which SQLite doubles quotes. Other constraints are named by
/// their columns or by their expression.
fn constraint_name(rest: &str) -> String {
    let index = rest
        .strip_prefix("index '")
        .and_then(|name| name.strip_suffix('\''));
    index.map_or_else(|| rest.to_owned(), |name| name.replace("''", "'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{ColumnType, TypedColumn};
    use crate::upload::RejectLimit;

    fn dataset() -> UploadDataset {
        let column = |name: &str| TypedColumn {
            name: name.to_owned(),
            kind: ColumnType::Text,
        };
        UploadDataset {
            name: "sales".parse().unwrap(),
            tenant: Default::default(),
            columns: vec![column("sku"), column("a, b")],
            missing: Vec::new(),
            ignored: Vec::new(),
            sources: vec![Some(0), Some(1)],
            reject_limit: RejectLimit::default(),
            merge: None,
            table: None,
        }
    }

    /// The code, the column and the constraint.
    type Found<'a> = Option<(&'static str, Option<&'a str>, Option<&'a str>)>;

    fn check(code: u32, message: &str, expected: Found<'_>) {
        let found = described(code, message, &dataset());
        let found = found.as_ref().map(|found| {
            assert_eq!(found.message, message);
            (
                found.code,
                found.column.as_deref(),
                found.constraint.as_deref(),
            )
        });
        assert_eq!(found, expected, "{message}");
    }

    #[test]
    fn a_violation_names_its_column() {
        let message = "NOT NULL constraint failed: datasets_sales.sku";
        check(
            1299,
            message,
            Some(("not_null_violation", Some("sku"), None)),
        );
        let message = "NOT NULL constraint failed: other.sku";
        check(1299, message, Some(("not_null_violation", None, None)));
        let key = "datasets_sales.a, b";
        let message = format!("UNIQUE constraint failed: {key}");
        let expected = ("unique_violation", Some("a, b"), Some(key));
        check(2067, &message, Some(expected));
    }

    #[test]
    fn a_violation_names_its_constraint() {
        let keys = "datasets_sales.sku, datasets_sales.day";
        let message = format!("UNIQUE constraint failed: {keys}");
        check(2067, &message, Some(("unique_violation", None, Some(keys))));
        let message = "UNIQUE constraint failed: index 'it''s one'";
        let expected = ("unique_violation", None, Some("it's one"));
        check(2067, message, Some(expected));
        let message = "CHECK constraint failed: price > 0";
        let expected = ("check_violation", None, Some("price > 0"));
        check(275, message, Some(expected));
    }

    #[test]
    fn other_violations_have_a_code() {
        let message = "FOREIGN KEY constraint failed";
        check(787, message, Some(("foreign_key_violation", None, None)));
        check(1811, "too dear", Some(("trigger_exception", None, None)));
        let message = "cannot store TEXT value in INTEGER column sales.a";
        check(3091, message, Some(("constraint_violation", None, None)));
    }

    #[test]
    fn other_errors_are_no_violations() {
        check(13, "database or disk is full", None);
        let message = "UNIQUE constraint failed: datasets_sales._carga_id";
        check(1555, message, None);
    }
}
