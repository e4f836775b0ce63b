//! Stores rows by way of a temporary table, from which violating rows are removed together.
//!
//! The rows are inserted from the temporary table. If one violates a constraint, all rows that
//! violate the same constraint are removed, and the others are inserted again.
//!
//! A unique index needs more care, since the first row with a value is stored, unless it violates
//! another constraint. So once an index has refused a row, only the first row of each value is
//! inserted. The rows that follow have a partner in the table then, and are removed.

use sqlx::{Executor, PgConnection, Postgres};
use uuid::Uuid;

use super::constraints::{self, INSERT, STAGED, Search, all};
use super::fault::{Fault, PROGRAM_LIMIT, check_taken};
use super::{TableRows, TableWriter, copy};
use crate::dataset::quote_identifier;
use crate::store::postgres::datasets::{self, sql_type};
use crate::store::postgres::{has_code, savepoint};
use crate::store::sql::count;
use crate::store::violations::Violation;
use crate::upload::UploadDataset;

const TABLE: &str = "pg_temp.carga_staged";

/// The most attempts to insert the rows that are left.
const ROUNDS: usize = 32;

/// Makes the planner find partners by the index of their constraint. There are no statistics about
/// the temporary table, and a join of another kind would read the whole table of the dataset.
const PLAN_BY_INDEX: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;
    SET LOCAL enable_mergejoin = off; SET LOCAL jit = off";

/// A unique index that has refused a row.
#[derive(Debug)]
struct Unique {
    /// The quoted names of its columns.
    key: Vec<String>,
    violation: Violation,
    /// The number of staged rows when it last refused one again.
    refused_at: Option<u64>,
}

/// Stores the rows that are left, or finds out that they violate a constraint. Rows that cannot be
/// stored in this way stay in `left`.
pub(super) async fn store(
    connection: &mut PgConnection,
    writer: &mut TableWriter<'_>,
) -> sqlx::Result<()> {
    let dataset = writer.dataset();
    if !constraints::is_plain(connection, dataset, INSERT).await?
        || !create(connection, dataset).await?
    {
        return Ok(());
    }
    if fill(connection, writer).await? {
        let mut staging = Staging {
            count: writer.left.len() as u64,
            uniques: Vec::new(),
        };
        writer.left = staging.insert_all(connection, writer).await?;
    }
    connection
        .execute("DROP TABLE pg_temp.carga_staged")
        .await?;
    Ok(())
}

/// Makes the temporary table. Returns false if the role may not make one.
async fn create(connection: &mut PgConnection, dataset: &UploadDataset) -> sqlx::Result<bool> {
    let columns = dataset.columns.iter();
    let columns: String = columns
        .map(|column| {
            let name = quote_identifier(&column.name);
            format!("{name} {}, ", sql_type(column.kind))
        })
        .collect();
    let create = format!(
        "CREATE TEMP TABLE carga_staged ({columns}upload_id uuid, row_number bigint) ON COMMIT DROP;
         {PLAN_BY_INDEX}"
    );
    savepoint::begin(connection).await?;
    match connection.execute(create.as_str()).await {
        Ok(_) => savepoint::keep(connection).await.map(|()| true),
        Err(error) if has_code(&error, &["42501"]) => {
            savepoint::undo(connection).await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Copies the rows that are left into the temporary table. Returns false if it cannot take a value.
async fn fill(connection: &mut PgConnection, writer: &mut TableWriter<'_>) -> sqlx::Result<bool> {
    let statement = copy::statement(TABLE, &writer.dataset().columns);
    let segments = writer.rows.segments(&super::rows::runs(&writer.left));
    savepoint::begin(connection).await?;
    let sent = copy::send_segments(connection, &statement, segments).await;
    let settled = writer.settle(connection, sent).await?;
    Ok(settled.is_ok())
}

/// The rows in the temporary table.
#[derive(Debug)]
struct Staging {
    count: u64,
    uniques: Vec<Unique>,
}

impl Staging {
    /// Inserts all rows into the table of the dataset but those that violate a constraint. Returns
    /// the rows that are left.
    async fn insert_all(
        &mut self,
        connection: &mut PgConnection,
        writer: &mut TableWriter<'_>,
    ) -> sqlx::Result<Vec<usize>> {
        let dataset = writer.dataset();
        let table = datasets::table_of(dataset);
        for _ in 0..ROUNDS {
            writer.check_time()?;
            if !self.remove_partners(connection, writer, &table).await? {
                break;
            }
            if self.count == 0 {
                return Ok(Vec::new());
            }
            let insert = insert(&table, dataset, &self.uniques);
            savepoint::begin_checked(connection).await?;
            let inserted = self.insert(connection, &insert).await;
            if let Err(error) = &inserted
                && has_code(error, &[PROGRAM_LIMIT])
            {
                // The row must be searched for.
                savepoint::undo(connection).await?;
                break;
            }
            match writer.settle(connection, inserted).await? {
                Ok(inserted) => {
                    self.count = self.count.saturating_sub(inserted);
                    if self.uniques.is_empty() {
                        return Ok(Vec::new());
                    }
                }
                Err(fault) => {
                    if !self.exclude(connection, writer, fault).await? {
                        break;
                    }
                }
            }
        }
        rest(connection, writer.rows).await
    }

    /// Runs a statement of [`insert`]. Returns how many rows it has stored, which are all that it
    /// was given.
    async fn insert(&self, connection: &mut PgConnection, insert: &str) -> sqlx::Result<u64> {
        const LEFT: &str = "SELECT count(*) FROM pg_temp.carga_staged";
        let inserted = sqlx::query(insert)
            .persistent(false)
            .execute(&mut *connection)
            .await?
            .rows_affected();
        let left = match self.uniques.is_empty() {
            true => 0,
            // The statement has taken the other rows out of the temporary table.
            false => {
                let left = sqlx::query_scalar::<Postgres, i64>(LEFT).persistent(false);
                count("count(*)", left.fetch_one(connection).await?)?
            }
        };
        check_taken(self.count.saturating_sub(left), inserted)?;
        Ok(inserted)
    }

    /// Removes the rows whose values are in the table already, for every unique index that has
    /// refused a row. Returns false if they are not found.
    async fn remove_partners(
        &mut self,
        connection: &mut PgConnection,
        writer: &mut TableWriter<'_>,
        table: &str,
    ) -> sqlx::Result<bool> {
        let searches = self.uniques.iter();
        let searches: Vec<(String, Violation)> = searches
            .map(|unique| (has_partner(table, &unique.key), unique.violation.clone()))
            .collect();
        for (condition, violation) in searches {
            let removed = self.remove(connection, writer, &condition, &violation);
            if removed.await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Excludes the rows that violate the same constraint from the next round. Returns false if
    /// they are not found.
    async fn exclude(
        &mut self,
        connection: &mut PgConnection,
        writer: &mut TableWriter<'_>,
        fault: Fault,
    ) -> sqlx::Result<bool> {
        match constraints::search(connection, writer.dataset(), &fault).await? {
            None => Ok(false),
            Some(Search::Condition(condition)) => {
                let removed = self.remove(connection, writer, &condition, &fault.violation);
                Ok(removed.await?.is_some_and(|removed| removed > 0))
            }
            Some(Search::Partner(key)) => {
                // A known index refuses a row again if another worker has stored its value
                // meanwhile. The row is then removed in the next round. Otherwise its partner
                // cannot be found here.
                let (violation, count) = (fault.violation, self.count);
                let mut known = self.uniques.iter_mut();
                let known = known.find(|it| it.violation.constraint == violation.constraint);
                match known {
                    Some(unique) if unique.refused_at == Some(count) => return Ok(false),
                    Some(unique) => unique.refused_at = Some(count),
                    None => self.uniques.push(Unique {
                        key,
                        violation,
                        refused_at: None,
                    }),
                }
                Ok(true)
            }
        }
    }

    /// Removes the rows for which the condition is true, since they violate a constraint. Returns
    /// how many there are, or `None` if the condition cannot be evaluated for these rows.
    async fn remove(
        &mut self,
        connection: &mut PgConnection,
        writer: &mut TableWriter<'_>,
        condition: &str,
        violation: &Violation,
    ) -> sqlx::Result<Option<usize>> {
        let delete = format!(
            "DELETE FROM {TABLE} AS {STAGED} WHERE {condition}
             RETURNING {STAGED}.upload_id, {STAGED}.row_number"
        );
        savepoint::begin(connection).await?;
        let removed = sqlx::query_as::<Postgres, (Uuid, i64)>(&delete)
            .persistent(false)
            .fetch_all(&mut *connection)
            .await;
        let settled = savepoint::settle_search(connection, removed, writer.dataset());
        let Some(removed) = settled.await? else {
            return Ok(None);
        };
        self.count = self.count.saturating_sub(removed.len() as u64);
        let indexes = removed.iter();
        let indexes = indexes.filter_map(|(upload, number)| writer.rows.index_of(*upload, *number));
        for index in indexes {
            writer.violations.insert(index, violation.clone());
        }
        Ok(Some(removed.len()))
    }
}

/// The rows that are still in the temporary table, in order.
async fn rest(connection: &mut PgConnection, rows: &TableRows<'_>) -> sqlx::Result<Vec<usize>> {
    const REST: &str = "SELECT upload_id, row_number FROM pg_temp.carga_staged";
    let left = sqlx::query_as::<Postgres, (Uuid, i64)>(REST)
        .persistent(false)
        .fetch_all(connection)
        .await?;
    let indexes = left.into_iter();
    let indexes = indexes.filter_map(|(upload, number)| rows.index_of(upload, number));
    let mut indexes: Vec<usize> = indexes.collect();
    indexes.sort_unstable();
    Ok(indexes)
}

/// Whether the table has a row with the same key as a staged row. The rows of tables that inherit
/// from it are not in its index.
fn has_partner(table: &str, key: &[String]) -> String {
    let equal = key
        .iter()
        .map(|column| format!("t.{column} = {STAGED}.{column}"));
    format!(
        "EXISTS (SELECT FROM ONLY {table} AS t WHERE {})",
        all(equal)
    )
}

/// The statement that inserts staged rows. If unique indexes have refused rows, it takes the first
/// row of each of their keys out of the temporary table. The temporary table has the rows in the
/// order in which they were copied, and a NULL makes a key different from all others.
fn insert(table: &str, dataset: &UploadDataset, uniques: &[Unique]) -> String {
    let columns = dataset.columns.iter();
    let columns: String = columns
        .map(|column| quote_identifier(&column.name) + ", ")
        .collect();
    let columns = format!("{columns}upload_id, row_number");
    if uniques.is_empty() {
        return format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM {TABLE}");
    }
    let firsts = uniques.iter().map(|Unique { key, .. }| {
        let nulls: String = key
            .iter()
            .map(|column| format!(" OR {column} IS NULL"))
            .collect();
        let key = key.join(", ");
        format!("(row_number() OVER (PARTITION BY {key} ORDER BY ctid) = 1{nulls})")
    });
    format!(
        "WITH firsts AS (
             DELETE FROM {TABLE} WHERE ctid = ANY (ARRAY (
                 SELECT staged_id FROM (SELECT ctid AS staged_id, {} AS is_first FROM {TABLE}) AS numbered
                 WHERE is_first))
             RETURNING {columns})
         INSERT INTO {table} ({columns}) SELECT {columns} FROM firsts",
        all(firsts)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{ColumnType, TypedColumn};
    use crate::upload::RejectLimit;

    fn dataset() -> UploadDataset {
        let kind = ColumnType::Text;
        UploadDataset {
            name: "sales".parse().unwrap(),
            tenant: Default::default(),
            columns: vec![TypedColumn {
                name: "s\"ku".to_owned(),
                kind,
            }],
            missing: Vec::new(),
            ignored: Vec::new(),
            sources: vec![Some(0)],
            reject_limit: RejectLimit::default(),
            merge: None,
            table: None,
        }
    }

    #[test]
    fn all_staged_rows_are_inserted_at_first() {
        let columns = "\"s\"\"ku\", upload_id, row_number";
        assert_eq!(
            insert("datasets.\"sales\"", &dataset(), &[]),
            format!(
                "INSERT INTO datasets.\"sales\" ({columns}) SELECT {columns} FROM pg_temp.carga_staged"
            )
        );
    }

    #[test]
    fn the_first_row_of_each_key_is_inserted_after_a_duplicate() {
        let unique = |key: &[&str]| Unique {
            key: key.iter().map(|column| format!("\"{column}\"")).collect(),
            violation: Violation {
                code: "unique_violation",
                message: String::new(),
                column: None,
                constraint: None,
            },
            refused_at: None,
        };
        let uniques = [unique(&["a", "b"]), unique(&["c"])];
        let insert = insert("datasets.\"sales\"", &dataset(), &uniques);
        let firsts = "(row_number() OVER (PARTITION BY \"a\", \"b\" ORDER BY ctid) = 1 \
                      OR \"a\" IS NULL OR \"b\" IS NULL) \
                      AND (row_number() OVER (PARTITION BY \"c\" ORDER BY ctid) = 1 OR \"c\" IS NULL)";
        assert!(insert.contains(firsts), "{insert}");
    }

    #[test]
    fn a_partner_has_the_same_values_in_all_columns_of_the_key() {
        let key = ["\"a\"", "\"b\""].map(String::from);
        assert_eq!(
            has_partner("datasets.\"sales\"", &key),
            "EXISTS (SELECT FROM ONLY datasets.\"sales\" AS t WHERE t.\"a\" = s.\"a\" AND t.\"b\" = s.\"b\")"
        );
    }
}
