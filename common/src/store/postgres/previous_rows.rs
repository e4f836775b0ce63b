//! The rows that merges replaced, as they were before, so that an undo can restore them.
//!
//! A row is kept as the text of each value, because every type reads its own text back exactly.
//! JSON has no negative zero, and does not distinguish a NULL from a JSON null in a column.

use sqlx::PgConnection;

use crate::dataset::{DatasetKey, quote_identifier};
use crate::upload::UploadId;

/// Makes the text of every value exact and always the same, whatever the defaults of the database
/// or the role are.
pub(super) const EXACT_TEXTS: &str = "SELECT set_config('extra_float_digits', '1', true),
    set_config('DateStyle', 'ISO, YMD', true), set_config('IntervalStyle', 'postgres', true),
    set_config('TimeZone', 'UTC', true), set_config('bytea_output', 'hex', true)";

/// The columns of a table that can be written, with their types, in the order in which `jsonb`
/// keeps them: sorting the names of each row would take time. `$1`: the table.
const COLUMNS: &str = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
      AND attgenerated = '' AND attidentity <> 'a'
    ORDER BY octet_length(attname::text), attname::text COLLATE \"C\"";

/// The columns of a dataset's table, also those that were added by hand.
#[derive(Debug, Default)]
pub(super) struct TableColumns {
    pub(super) names: Vec<String>,
    pub(super) types: Vec<String>,
}

impl TableColumns {
    /// `table` is quoted and has its schema.
    pub(super) async fn read(connection: &mut PgConnection, table: &str) -> sqlx::Result<Self> {
        let found: Vec<(String, String)> = sqlx::query_as(COLUMNS)
            .bind(table)
            .fetch_all(connection)
            .await?;
        let (names, types) = found.into_iter().unzip();
        Ok(Self { names, types })
    }

    /// The texts of all values of the row `t`, in the order of the names.
    pub(super) fn texts(&self) -> String {
        texts(&self.names)
    }

    /// The assignments that give the row `t` the values of the previous row `p`. A column that was
    /// added later keeps its value. `$1` is the list of the names.
    pub(super) fn assignments(&self) -> String {
        let columns = self.names.iter().zip(&self.types).zip(1..);
        let assignments: Vec<String> = columns
            .map(|((name, kind), index)| {
                let column = quote_identifier(name);
                let key = format!("($1::text[])[{index}]");
                format!(
                    "{column} = CASE WHEN p.row ? {key} THEN (p.row ->> {key})::{kind} ELSE t.{column} END"
                )
            })
            .collect();
        assignments.join(", ")
    }
}

/// The texts of the values of the row `t` in these columns.
pub(super) fn texts(names: &[String]) -> String {
    let texts: Vec<String> = names
        .iter()
        .map(|name| format!("t.{}::text", quote_identifier(name)))
        .collect();
    texts.join(", ")
}

/// Changes the previous rows of later uploads that replaced rows of this upload. Their undo must
/// not restore rows of this upload, so it restores the rows that this upload had replaced.
pub(super) async fn splice(
    connection: &mut PgConnection,
    id: UploadId,
    number: i64,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE previous_rows other
         SET row = own.row, previous_upload = own.previous_upload, previous_row = own.previous_row
         FROM previous_rows own
         WHERE own.upload = $2 AND other.previous_upload = $1 AND other.previous_row = own.row_number",
    )
    .bind(id.as_uuid())
    .bind(number)
    .execute(&mut *connection)
    .await?;
    // The other rows of this upload were inserted, so there is nothing to restore in their place.
    delete_pointers(connection, id, 0, i64::MAX).await
}

/// Deletes the previous rows that belonged to an upload, so that no undo of a later upload restores
/// them.
pub(super) async fn delete_pointers(
    connection: &mut PgConnection,
    id: UploadId,
    first_row: i64,
    last_row: i64,
) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM previous_rows
         WHERE previous_upload = $1 AND previous_row BETWEEN $2 AND $3",
    )
    .bind(id.as_uuid())
    .bind(first_row)
    .bind(last_row)
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes the rows that an upload replaced, by the numbers of the rows that replaced them.
pub(super) async fn delete(
    connection: &mut PgConnection,
    number: i64,
    first_row: i64,
    last_row: i64,
) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM previous_rows WHERE upload = $1 AND row_number BETWEEN $2 AND $3")
        .bind(number)
        .bind(first_row)
        .bind(last_row)
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes the rows that the uploads of a dataset replaced.
pub(super) async fn delete_of_dataset(
    connection: &mut PgConnection,
    dataset: &DatasetKey,
) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM previous_rows p USING uploads u
         WHERE p.upload = u.number AND u.tenant = $1 AND u.dataset ->> 'name' = $2",
    )
    .bind(dataset.tenant.as_str())
    .bind(dataset.name.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> TableColumns {
        TableColumns {
            names: ["a\"b", "price"].map(String::from).to_vec(),
            types: ["text", "numeric(5,2)"].map(String::from).to_vec(),
        }
    }

    #[test]
    fn a_row_is_kept_as_texts() {
        assert_eq!(columns().texts(), "t.\"a\"\"b\"::text, t.\"price\"::text");
    }

    #[test]
    fn a_row_is_restored_with_the_types_of_the_table() {
        let expected = "\"a\"\"b\" = CASE WHEN p.row ? ($1::text[])[1] \
                        THEN (p.row ->> ($1::text[])[1])::text ELSE t.\"a\"\"b\" END, \
                        \"price\" = CASE WHEN p.row ? ($1::text[])[2] \
                        THEN (p.row ->> ($1::text[])[2])::numeric(5,2) ELSE t.\"price\" END";
        assert_eq!(columns().assignments(), expected);
    }
}
