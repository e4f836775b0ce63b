//! The columns that a merge writes.
//!
//! Carga's own tables hold every value of a declared type. A table of the user may hold fewer:
//! Postgres would refuse a value, round it or cut it. A row with such a value is rejected, so that
//! no value changes. Each type with a limit has a condition for these values.

use crate::dataset::{TypedColumn, UserColumn, quote_identifier};
use crate::store::postgres::datasets::catalog::{CatalogTable, StoredType};
use crate::store::postgres::datasets::sql_type;
use crate::store::violations::Violation;

/// The most digits of a second that a timestamp of a dataset has.
const SECOND_DIGITS: i32 = 6;

/// A column that a merge writes.
#[derive(Debug)]
pub(super) struct Column {
    /// The name, quoted.
    pub(super) name: String,
    /// The type in the temporary table. For a table of the user, it is the type of that table, so
    /// that values are compared in the same way there.
    pub(super) declaration: String,
    /// The canonical text in `landing`, as a value.
    pub(super) value: String,
    /// A cast of the value in the table, where a comparison needs one. Postgres has no operator `=`
    /// for a domain over an enum.
    pub(super) cast: String,
    /// Whether a collation may make different texts equal.
    pub(super) has_collation: bool,
    /// Set if the column does not hold every value.
    pub(super) limit: Option<Limit>,
}

/// Which values a column does not hold.
#[derive(Debug)]
pub(super) struct Limit {
    /// The name of the value in `unfit` and `stored`.
    pub(super) value_name: String,
    /// The condition for values that the column does not hold.
    pub(super) unfit: String,
    /// The value as the column stores it, or NULL for values that it does not hold.
    pub(super) stored: String,
    /// Why a row with such a value is rejected.
    pub(super) violation: Violation,
}

impl Column {
    /// A column of Carga's own table. `index` counts the columns of the dataset.
    pub(super) fn own(index: usize, column: &TypedColumn) -> Self {
        let kind = sql_type(column.kind);
        Self {
            name: quote_identifier(&column.name),
            declaration: kind.to_owned(),
            value: format!("{}::{kind}", field(index)),
            cast: String::new(),
            has_collation: false,
            limit: None,
        }
    }

    /// A column of a table of the user. The check against the catalog has already refused columns
    /// that the table lacks.
    pub(super) fn of_user(index: usize, column: &TypedColumn, table: &CatalogTable) -> Self {
        let own = Self::own(index, column);
        let Some((found, stored)) = table.column(&column.name) else {
            return own;
        };
        let collation = stored.collation.as_ref();
        let collation = collation.map(|name| format!(" COLLATE {name}"));
        Self {
            declaration: format!("{}{}", stored.sql, collation.as_deref().unwrap_or_default()),
            value: match stored.name.as_str() {
                "timestamp" => format!("({}::timestamptz AT TIME ZONE 'UTC')", field(index)),
                "numeric" => format!("{}::numeric", field(index)),
                _ => own.value,
            },
            cast: match stored.name.as_str() {
                "enum" => format!("::{}", stored.sql),
                _ => String::new(),
            },
            has_collation: collation.is_some(),
            limit: limit(index, found, stored),
            ..own
        }
    }
}

/// A cell of a staged row.
fn field(index: usize) -> String {
    format!("fields[{}]", index + 1)
}

fn limit(index: usize, column: &UserColumn, stored: &StoredType) -> Option<Limit> {
    let value_name = format!("_carga_{}", index + 1);
    let unfit = unfit(&value_name, stored)?;
    let type_name = match column.type_name == stored.sql {
        true => column.type_name.clone(),
        false => format!("{}, which is {}", column.type_name, stored.sql),
    };
    let (code, message) = match stored.name.as_str() {
        "enum" => ("wrong_type", format!("the value is not one of {type_name}")),
        _ => (
            "out_of_range",
            format!("the value does not fit {type_name}"),
        ),
    };
    let kind = &stored.sql;
    Some(Limit {
        stored: format!("CASE WHEN {unfit} THEN NULL ELSE {value_name}::{kind} END"),
        value_name,
        unfit,
        violation: Violation {
            code,
            message,
            column: Some(column.name.clone()),
            constraint: None,
        },
    })
}

/// The condition for values that a type does not hold. `None` if it holds every value.
fn unfit(value: &str, stored: &StoredType) -> Option<String> {
    let sql = &stored.sql;
    Some(match (stored.name.as_str(), stored.modifier) {
        ("int2", _) => outside(value, i16::MIN.into(), i16::MAX.into()),
        ("int4", _) => outside(value, i32::MIN, i32::MAX),
        ("numeric", modifier @ 4..) => {
            let (precision, scale) = digits(modifier);
            let before_mark = precision - scale;
            format!("({value} <> round({value}, {scale}) OR abs({value}) >= 1e{before_mark})")
        }
        ("varchar" | "bpchar", modifier @ 4..) => {
            format!("char_length({value}) > {}", modifier - 4)
        }
        ("timestamp" | "timestamptz", 0..SECOND_DIGITS) => format!("{value} <> {value}::{sql}"),
        // The list is read once for a statement, and not once for a row.
        ("enum", _) => {
            format!("{value} <> ALL ((SELECT enum_range(NULL::{sql})::text[])::text[])")
        }
        _ => return None,
    })
}

fn outside(value: &str, first: i32, last: i32) -> String {
    format!("{value} NOT BETWEEN {first} AND {last}")
}

/// The precision and the scale in the modifier of `numeric`, whose scale has 11 bits and a sign.
fn digits(modifier: i32) -> (i32, i32) {
    let packed = modifier - 4;
    ((packed >> 16) & 0xffff, ((packed & 0x7ff) ^ 1024) - 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(name: &str, sql: &str, modifier: i32) -> StoredType {
        StoredType {
            name: name.to_owned(),
            sql: sql.to_owned(),
            modifier,
            collation: None,
        }
    }

    #[test]
    fn a_type_that_holds_every_value_has_no_limit() {
        for (name, modifier) in [
            ("text", -1),
            ("varchar", -1),
            ("bpchar", -1),
            ("int8", -1),
            ("numeric", -1),
            ("float8", -1),
            ("timestamptz", -1),
            ("timestamp", 6),
            ("jsonb", -1),
        ] {
            assert_eq!(unfit("v1", &stored(name, name, modifier)), None, "{name}");
        }
    }

    #[test]
    fn the_limit_of_a_type_is_a_condition() {
        // Modifiers as Postgres keeps them: numeric(5,2), numeric(3,5) and numeric(5,-2).
        for (name, modifier, expected) in [
            ("int2", -1, "v1 NOT BETWEEN -32768 AND 32767"),
            ("int4", -1, "v1 NOT BETWEEN -2147483648 AND 2147483647"),
            ("varchar", 7, "char_length(v1) > 3"),
            ("bpchar", 5, "char_length(v1) > 1"),
            ("numeric", 327_686, "(v1 <> round(v1, 2) OR abs(v1) >= 1e3)"),
            (
                "numeric",
                196_617,
                "(v1 <> round(v1, 5) OR abs(v1) >= 1e-2)",
            ),
            (
                "numeric",
                329_730,
                "(v1 <> round(v1, -2) OR abs(v1) >= 1e7)",
            ),
            ("timestamp", 0, "v1 <> v1::timestamp(0)"),
        ] {
            let stored = stored(name, "timestamp(0)", modifier);
            assert_eq!(unfit("v1", &stored).as_deref(), Some(expected), "{name}");
        }
    }

    #[test]
    fn the_message_names_the_type_of_a_domain_and_the_type_below_it() {
        let column = UserColumn {
            name: "price".to_owned(),
            type_name: "shop.money".to_owned(),
            takes: Vec::new(),
            is_required: false,
            has_default: false,
            is_generated: false,
        };
        let limit = limit(0, &column, &stored("numeric", "numeric(5,2)", 327_686)).unwrap();
        let violation = limit.violation;
        assert_eq!(violation.code, "out_of_range");
        assert_eq!(
            violation.message,
            "the value does not fit shop.money, which is numeric(5,2)"
        );
        assert_eq!(violation.column.as_deref(), Some("price"));
    }
}
