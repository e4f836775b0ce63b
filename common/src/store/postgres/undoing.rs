//! Takes a merge back, in one transaction with the change of the upload's status.
//!
//! A row of the table that still has the id of the upload is deleted, or gets its previous values
//! again. Rows that were changed or deleted since then are kept as they are. If a constraint
//! refuses a change, the rows are divided into ranges. Single rows that are refused stay as they
//! are.

use std::ops::RangeInclusive;
use std::time::Instant;

use sqlx::types::Json;
use sqlx::{Connection, Executor, PgConnection, Postgres};

use super::connections::{MERGE, MERGE_STATEMENT};
use super::previous_rows::{self, EXACT_TEXTS, TableColumns};
use super::table_rows::splitting::{ALL_ROWS, Split, check_duration};
use super::{PostgresStore, datasets, lock_rows, lock_status, savepoint};
use crate::error::PortResult;
use crate::store::sql::count;
use crate::upload::{UndoneRows, UploadDataset, UploadKey};

const TOO_LONG: &str =
    "undoing the merge takes longer than 10 minutes, because the table refuses too many rows";

/// A merged upload that can be undone: its number, its dataset, and how many rows it wrote.
const REVERSIBLE: &str =
    "SELECT number, dataset, coalesce(rows_inserted, 0) + coalesce(rows_updated, 0)
    FROM uploads
    WHERE id = $1 AND epoch = $2 AND status IN ('completed', 'partial') AND is_reversible
      AND expired_at IS NULL AND dataset ->> 'merge' IS NOT NULL";

/// Whether the upload has inserted the row `t`, and has not replaced another one with it. `$1` and
/// `$2`: the id and the number of the upload.
const INSERTED: &str = "t.upload_id = $1
    AND NOT EXISTS (SELECT FROM previous_rows p WHERE p.upload = $2 AND p.row_number = t.row_number)";

/// `undone` belongs to the next epoch, since the status of this epoch is final. The removal that
/// follows deletes the ledger and the archive.
const END: &str = "UPDATE uploads
    SET status = 'undone', epoch = epoch + 1, cleanup_pending = true, archive_pending = true,
        rows_inserted = NULL, rows_updated = NULL, rows_duplicate = NULL, undone = $3,
        updated_at = clock_timestamp(), finished_at = clock_timestamp()
    WHERE id = $1 AND epoch = $2 AND status IN ('completed', 'partial')";

/// A part of an undo.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Deletes the rows that the upload inserted.
    Delete,
    /// Restores the rows that the upload replaced.
    Restore,
}

/// A merge that is being taken back.
#[derive(Debug)]
struct Undoing {
    started: Instant,
    key: UploadKey,
    /// The number of the upload.
    number: i64,
    dataset: UploadDataset,
    /// The table, quoted.
    table: String,
    columns: TableColumns,
}

impl PostgresStore {
    /// Undoes a merged upload. Returns false if it has not ended well, or cannot be undone any
    /// more.
    pub(super) async fn undo_merge(
        &self,
        operation: &'static str,
        key: UploadKey,
    ) -> PortResult<bool> {
        self.call(operation, MERGE, async |connection| {
            undo(connection, key).await
        })
        .await
    }
}

async fn undo(connection: &mut PgConnection, key: UploadKey) -> sqlx::Result<bool> {
    let started = Instant::now();
    let mut transaction = connection.begin().await?;
    for setting in [MERGE_STATEMENT, EXACT_TEXTS] {
        sqlx::query(setting).execute(&mut *transaction).await?;
    }
    // In this order, as in a merge. Previous values are forgotten under the first lock.
    lock_rows(&mut transaction, key.id).await?;
    lock_status(&mut transaction, key.id).await?;
    let found: Option<(i64, Json<UploadDataset>, i64)> = sqlx::query_as(REVERSIBLE)
        .bind(key.id.as_uuid())
        .bind(key.epoch.get())
        .fetch_optional(&mut *transaction)
        .await?;
    let Some((number, Json(dataset), written)) = found else {
        return Ok(false);
    };
    let table = datasets::table(dataset.name.as_str());
    let columns = TableColumns::read(&mut transaction, &table).await?;
    let undoing = Undoing {
        started,
        key,
        number,
        table,
        dataset,
        columns,
    };
    let undone = undoing.run(&mut transaction, count("rows", written)?);
    let undone = undone.await?;
    sqlx::query(END)
        .bind(key.id.as_uuid())
        .bind(key.epoch.get())
        .bind(Json(undone))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(true)
}

impl Undoing {
    /// Takes the rows back. `written` is the number of rows that the upload inserted or replaced.
    async fn run(&self, connection: &mut PgConnection, written: u64) -> sqlx::Result<UndoneRows> {
        let mut undone = UndoneRows::default();
        // A table without columns is missing, because somebody has dropped it by hand.
        if !self.columns.names.is_empty() {
            let lock = datasets::lock_against_writers(&self.table);
            connection.execute(lock.as_str()).await?;
            // The deletion comes first: inserted rows may have unique values of restored rows.
            for step in [Step::Delete, Step::Restore] {
                self.reverse(connection, step, &mut undone).await?;
            }
        }
        previous_rows::splice(connection, self.key.id, self.number).await?;
        previous_rows::delete(connection, self.number, 0, i64::MAX).await?;
        undone.kept = written.saturating_sub(undone.reversed + undone.errored);
        Ok(undone)
    }

    /// Runs a step for all rows, and counts them.
    async fn reverse(
        &self,
        connection: &mut PgConnection,
        step: Step,
        undone: &mut UndoneRows,
    ) -> sqlx::Result<()> {
        if let Some(reversed) = self.attempt(connection, step, &ALL_ROWS).await? {
            undone.reversed += reversed;
            return Ok(());
        }
        let numbers = self.numbers(connection, step).await?;
        let mut split = Split::new(numbers.len());
        while let Some(range) = split.next_range() {
            check_duration(self.started, TOO_LONG)?;
            let rows = numbers[range.start]..=numbers[range.end - 1];
            match self.attempt(connection, step, &rows).await? {
                Some(reversed) => {
                    undone.reversed += reversed;
                    split.succeed(&range);
                }
                None => {
                    let refused = split.fail(range, None, false);
                    undone.errored += u64::from(refused.is_some());
                }
            }
        }
        Ok(())
    }

    /// Runs a step for a range of rows. Returns how many rows it has reversed, or `None` if a
    /// constraint refuses one of them. Nothing has changed then.
    async fn attempt(
        &self,
        connection: &mut PgConnection,
        step: Step,
        range: &RangeInclusive<i64>,
    ) -> sqlx::Result<Option<u64>> {
        savepoint::begin_checked(connection).await?;
        let done = match step {
            Step::Delete => self.delete(connection, range).await,
            Step::Restore => self.restore(connection, range).await,
        };
        let settled = savepoint::settle(connection, done, &self.dataset);
        Ok(settled.await?.ok())
    }

    async fn delete(
        &self,
        connection: &mut PgConnection,
        range: &RangeInclusive<i64>,
    ) -> sqlx::Result<u64> {
        let delete = format!(
            "DELETE FROM {} AS t WHERE {INSERTED} AND t.row_number BETWEEN $3 AND $4",
            self.table
        );
        let done = sqlx::query(&delete)
            .persistent(false)
            .bind(self.key.id.as_uuid())
            .bind(self.number)
            .bind(*range.start())
            .bind(*range.end())
            .execute(connection)
            .await?;
        Ok(done.rows_affected())
    }

    async fn restore(
        &self,
        connection: &mut PgConnection,
        range: &RangeInclusive<i64>,
    ) -> sqlx::Result<u64> {
        let restore = format!(
            "UPDATE {} AS t SET {} FROM previous_rows AS p
             WHERE t.upload_id = $2 AND t.row_number = p.row_number
               AND p.upload = $3 AND p.row_number BETWEEN $4 AND $5",
            self.table,
            self.columns.assignments()
        );
        let done = sqlx::query(&restore)
            .persistent(false)
            .bind(&self.columns.names)
            .bind(self.key.id.as_uuid())
            .bind(self.number)
            .bind(*range.start())
            .bind(*range.end())
            .execute(connection)
            .await?;
        Ok(done.rows_affected())
    }

    /// The numbers of the rows of a step, in order.
    async fn numbers(&self, connection: &mut PgConnection, step: Step) -> sqlx::Result<Vec<i64>> {
        let select = match step {
            Step::Delete => format!(
                "SELECT row_number FROM {} AS t WHERE {INSERTED} ORDER BY row_number",
                self.table
            ),
            Step::Restore => format!(
                "SELECT t.row_number FROM previous_rows AS p JOIN {} AS t ON t.row_number = p.row_number
                 WHERE t.upload_id = $1 AND p.upload = $2 ORDER BY t.row_number",
                self.table
            ),
        };
        sqlx::query_scalar::<Postgres, i64>(&select)
            .persistent(false)
            .bind(self.key.id.as_uuid())
            .bind(self.number)
            .fetch_all(connection)
            .await
    }
}
