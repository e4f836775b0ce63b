//! The rows that merges replaced, as they were before, so that an undo can restore them.
//!
//! A row is kept as the text of each value, because every type reads its own text back exactly.
//! JSON has no negative zero, and does not distinguish a NULL from a JSON null in a column.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::connections::{LONG, MERGE, MERGE_STATEMENT};
use super::{PostgresStore, try_lock_rows};
use crate::dataset::quote_identifier;
use crate::error::PortResult;
use crate::store::rules::FORGET_LIMIT;
use crate::upload::UploadId;

/// Makes the text of every value exact, whatever the defaults of the database or the role are.
pub(super) const EXACT_TEXTS: &str = "SELECT set_config('extra_float_digits', '1', true),
    set_config('DateStyle', 'ISO, YMD', true), set_config('IntervalStyle', 'postgres', true)";

/// The columns of a table that can be written, with their types. `$1`: the table.
const COLUMNS: &str = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
      AND attgenerated = '' AND attidentity <> 'a'
    ORDER BY attnum";

/// Uploads whose previous values were kept for `$1` seconds. At most `$2` are taken.
const TO_FORGET: &str = "SELECT id FROM uploads
    WHERE is_reversible AND rows_updated > 0 AND status IN ('completed', 'partial')
      AND finished_at < now() - make_interval(secs => $1)
    ORDER BY finished_at LIMIT $2";

/// The columns of a dataset's table, also those that were added by hand.
#[derive(Debug, Default)]
pub(super) struct TableColumns {
    pub(super) names: Vec<String>,
    types: Vec<String>,
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
        let names = self.names.iter();
        let texts: Vec<String> = names
            .map(|name| format!("t.{}::text", quote_identifier(name)))
            .collect();
        texts.join(", ")
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
    dataset: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM previous_rows p USING uploads u
         WHERE p.upload = u.number AND u.dataset ->> 'name' = $1",
    )
    .bind(dataset)
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets the previous values of uploads that ended more than `older_than` ago. Returns how many
/// uploads these are.
pub(super) async fn forget(
    store: &PostgresStore,
    operation: &'static str,
    older_than: Duration,
) -> PortResult<u64> {
    let found = store.call(operation, LONG, async |connection| {
        let found: Vec<Uuid> = sqlx::query_scalar(TO_FORGET)
            .bind(older_than.as_secs_f64())
            .bind(FORGET_LIMIT)
            .fetch_all(connection)
            .await?;
        Ok(found)
    });
    let mut forgotten = 0;
    for id in found.await? {
        let is_forgotten = store.call(operation, MERGE, async |connection| {
            forget_upload(connection, id.into()).await
        });
        forgotten += u64::from(is_forgotten.await?);
    }
    Ok(forgotten)
}

/// Returns false if another process is undoing the upload, or has undone it.
async fn forget_upload(connection: &mut PgConnection, id: UploadId) -> sqlx::Result<bool> {
    let mut transaction = connection.begin().await?;
    sqlx::query(MERGE_STATEMENT)
        .execute(&mut *transaction)
        .await?;
    if !try_lock_rows(&mut transaction, id).await? {
        return Ok(false);
    }
    let number: Option<i64> = sqlx::query_scalar(
        "UPDATE uploads SET is_reversible = false, updated_at = now()
         WHERE id = $1 AND is_reversible AND status IN ('completed', 'partial')
         RETURNING number",
    )
    .bind(id.as_uuid())
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some(number) = number {
        delete(&mut transaction, number, 0, i64::MAX).await?;
    }
    transaction.commit().await?;
    Ok(number.is_some())
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
