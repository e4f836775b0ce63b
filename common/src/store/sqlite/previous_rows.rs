//! The values of rows that merged uploads replaced. An undo needs them.
//!
//! A value is restored with its exact type. JSON has no blobs, and SQLite does not always read back
//! the real number that it has written as text. So each value is kept as a text with a letter for
//! its type, and a real number as two numbers, of which it is the sum.

use std::time::Duration;

use sqlx::SqliteConnection;

use super::{ago, first_id, last_id};
use crate::dataset::{TypedColumn, quote_identifier};
use crate::sqlite::Database;
use crate::store::rules::FORGET_LIMIT;

/// How many values are in one list. A function of SQLite has a limited number of arguments, so the
/// values of a row are a list of lists.
const LIST_LENGTH: usize = 100;

/// The SQL expression for the values of a row of the table `t`.
pub(super) fn kept_values(columns: &[TypedColumn]) -> String {
    let list = |columns: &[TypedColumn]| {
        let values: Vec<String> = columns.iter().map(kept_value).collect();
        format!("json_array({})", values.join(", "))
    };
    let lists: Vec<String> = columns.chunks(LIST_LENGTH).map(list).collect();
    format!("'[' || {} || ']'", lists.join(" || ',' || "))
}

fn kept_value(column: &TypedColumn) -> String {
    let value = format!("t.{}", quote_identifier(&column.name));
    format!(
        "CASE typeof({value})
             WHEN 'text' THEN 't' || {value}
             WHEN 'integer' THEN {value}
             WHEN 'null' THEN 'n'
             WHEN 'real' THEN 'r' || quote({value}) || ' ' || quote({value} - CAST(quote({value}) AS REAL))
             ELSE 'b' || hex({value}) END"
    )
}

/// The SQL assignments that give a row of the table `t` the values of `p`, a row of
/// `previous_rows`. A column that `p` does not have keeps its value.
pub(super) fn assignments(columns: &[TypedColumn]) -> String {
    let assignment = |(index, column): (usize, &TypedColumn)| {
        let name = quote_identifier(&column.name);
        let (list, index) = (index / LIST_LENGTH, index % LIST_LENGTH);
        format!(
            "{name} = (SELECT CASE typeof(v)
                 WHEN 'null' THEN t.{name}
                 WHEN 'integer' THEN v
                 ELSE CASE substr(v, 1, 1)
                     WHEN 't' THEN substr(v, 2)
                     WHEN 'r' THEN CAST(substr(v, 2) AS REAL) + CAST(substr(v, instr(v, ' ') + 1) AS REAL)
                     WHEN 'b' THEN unhex(substr(v, 2)) END END
             FROM (SELECT p.cells ->> '$[{list}][{index}]' AS v))"
        )
    };
    let assignments: Vec<String> = columns.iter().enumerate().map(assignment).collect();
    assignments.join(", ")
}

/// Changes the previous rows of later uploads that replaced rows of this upload. Their undo must
/// not restore rows of this upload, so it restores the rows that this upload had replaced. If
/// this upload had inserted the row, the undo of the later upload deletes its own row.
pub(super) async fn splice(connection: &mut SqliteConnection, number: i64) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE previous_rows AS later
         SET previous_id = own.previous_id, previous_upload = own.previous_upload, cells = own.cells
         FROM previous_rows own
         WHERE own.id BETWEEN $1 AND $2 AND later.previous_id = own.id",
    )
    .bind(first_id(number))
    .bind(last_id(number))
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM previous_rows WHERE previous_id BETWEEN $1 AND $2")
        .bind(first_id(number))
        .bind(last_id(number))
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes the rows that an upload replaced.
pub(super) async fn delete(connection: &mut SqliteConnection, number: i64) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM previous_rows WHERE id BETWEEN $1 AND $2")
        .bind(first_id(number))
        .bind(last_id(number))
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes the rows that uploads replaced, for uploads that ended well more than `older_than` ago.
/// Returns how many uploads these are.
pub(super) async fn forget(database: &Database, older_than: Duration) -> sqlx::Result<u64> {
    let mut transaction = database.begin().await?;
    // The first two conditions repeat those of the partial index.
    let numbers: Vec<i64> = sqlx::query_scalar(
        "UPDATE uploads SET is_reversible = 0
         WHERE number IN (SELECT number FROM uploads
                          WHERE rows_updated > 0 AND is_reversible
                            AND status IN ('completed', 'partial') AND finished_at < $1
                          ORDER BY finished_at LIMIT $2)
         RETURNING number",
    )
    .bind(ago(older_than))
    .bind(FORGET_LIMIT)
    .fetch_all(&mut *transaction)
    .await?;
    for number in &numbers {
        delete(&mut transaction, *number).await?;
    }
    transaction.commit().await?;
    Ok(numbers.len() as u64)
}

#[cfg(test)]
mod tests {
    use sqlx::Connection;

    use super::*;
    use crate::dataset::ColumnType;

    fn column(name: String) -> TypedColumn {
        let kind = ColumnType::Text;
        TypedColumn { name, kind }
    }

    /// Whether the value of an SQL expression is restored in place of another one.
    async fn is_restored(value: &str) -> bool {
        let columns = [column("a".to_owned())];
        let assignment = assignments(&columns);
        let restored = assignment.strip_prefix("\"a\" = ").unwrap();
        let query = format!(
            "SELECT typeof(given) = typeof(restored) AND given IS restored
             FROM (SELECT p.given, {restored} AS restored
                   FROM (SELECT t.a AS given, {} AS cells FROM (SELECT {value} AS a) t) p,
                        (SELECT 'other' AS a) t)",
            kept_values(&columns)
        );
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let query = sqlx::query_scalar(&query);
        query.fetch_one(&mut connection).await.unwrap()
    }

    #[tokio::test]
    async fn a_value_is_restored_with_its_type() {
        for value in [
            "NULL",
            "''",
            "'n'",
            "'12'",
            "'[\"é\\'",
            "x''",
            "x'00ff'",
            "0",
            "-9223372036854775807 - 1",
            "9223372036854775807",
            "0.1 + 0.2",
            "1e-310 / 3",
            "-1.7976931348623157e308",
            "9e999",
            "-9e999",
            "2.0",
        ] {
            assert!(is_restored(value).await, "{value}");
        }
    }

    #[test]
    fn no_list_is_longer_than_a_function_of_sqlite_allows() {
        let columns: Vec<_> = (0..250).map(|number| column(number.to_string())).collect();
        let kept = kept_values(&columns);
        assert_eq!(kept.matches("json_array(").count(), 3);
        let assignments = assignments(&columns);
        assert!(assignments.contains("'$[0][99]'"));
        assert!(assignments.contains("'$[2][49]'"));
        assert!(!assignments.contains("[100]"));
    }
}
