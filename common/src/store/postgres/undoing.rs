//! Takes a merge back, in one transaction with the change of the upload's status.
//!
//! A row of Carga's table that still has the id of the upload is deleted, or gets its previous
//! values again. In a table of the user, this happens to the rows that still have the values which
//! the upload wrote (`written_rows`). Rows that were changed or deleted since then are kept as they
//! are. If a constraint refuses a change, the rows are divided into ranges. Single rows that are
//! refused stay as they are.

mod forgetting;
mod statements;

use std::ops::RangeInclusive;
use std::time::Instant;

use sqlx::types::Json;
use sqlx::{Connection, Executor, PgConnection, Postgres};

pub(super) use self::forgetting::forget;
use self::statements::Statements;
use super::connections::{MERGE, MERGE_STATEMENT};
use super::previous_rows::{self, EXACT_TEXTS, TableColumns};
use super::table_rows::splitting::{ALL_ROWS, Split, check_duration};
use super::written_rows::{self, RowIdentity, WrittenColumns};
use super::{PostgresStore, audit, datasets, lock_rows, lock_status, savepoint};
use crate::audit::Action;
use crate::dataset::TableName;
use crate::error::PortResult;
use crate::store::sql::count;
use crate::upload::{UndoneRows, UploadDataset, UploadKey};

const TOO_LONG: &str =
    "undoing the merge takes longer than 10 minutes, because the table refuses too many rows";

/// A table that was never analysed seems to have few rows. A plan might then read all replaced rows
/// once for each row of the upload, which takes minutes. A table of the user has a primary key, by
/// which its rows are found one by one.
const NO_NESTED_LOOPS: &str = "SELECT set_config('enable_nestloop', 'off', true)";

/// A merged upload that can be undone: its number, its dataset, how many rows it wrote, and the
/// columns of its written rows. The record is locked, because the deletion of the dataset deletes
/// the written rows.
const REVERSIBLE: &str =
    "SELECT number, dataset, coalesce(rows_inserted, 0) + coalesce(rows_updated, 0),
            coalesce(written_columns, '{}'), coalesce(written_key, '{}')
    FROM uploads
    WHERE id = $1 AND epoch = $2 AND status IN ('completed', 'partial') AND is_reversible
      AND expired_at IS NULL AND dataset ->> 'merge' IS NOT NULL
    FOR NO KEY UPDATE";

/// The columns of [`REVERSIBLE`].
type Reversible = (i64, Json<UploadDataset>, i64, Vec<String>, Vec<String>);

/// `undone` belongs to the next epoch, so messages of this epoch change nothing. The removal that
/// follows deletes the ledger and the archive.
const END: &str = "UPDATE uploads
    SET status = 'undone', epoch = epoch + 1, cleanup_pending = true, archive_pending = true,
        rows_inserted = NULL, rows_updated = NULL, rows_duplicate = NULL, rows_dead = NULL, undone = $3,
        written_columns = CASE WHEN written_columns IS NOT NULL THEN '{}'::text[] END,
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
    /// The columns of the table at the time of the merge, if it is a table of the user.
    written: WrittenColumns,
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
    let found: Option<Reversible> = sqlx::query_as(REVERSIBLE)
        .bind(key.id.as_uuid())
        .bind(key.epoch.get())
        .fetch_optional(&mut *transaction)
        .await?;
    let Some((number, Json(dataset), rows, names, primary_key)) = found else {
        return Ok(false);
    };
    let written = WrittenColumns { names, primary_key };
    let undoing = Undoing {
        started,
        key,
        number,
        dataset,
        written,
    };
    let undone = undoing.run(&mut transaction, count("rows", rows)?).await?;
    sqlx::query(END)
        .bind(key.id.as_uuid())
        .bind(key.epoch.get())
        .bind(Json(undone))
        .execute(&mut *transaction)
        .await?;
    let written = audit::record_upload(&mut transaction, key.id, Action::UndoUpload).await?;
    transaction.commit().await?;
    written.log();
    Ok(true)
}

impl Undoing {
    /// Takes the rows back. `written` is the number of rows that the upload inserted or replaced.
    async fn run(&self, connection: &mut PgConnection, written: u64) -> sqlx::Result<UndoneRows> {
        let mut undone = UndoneRows::default();
        let statements = match &self.dataset.table {
            None => self.lock_own(connection).await?,
            Some(table) => self.lock_user(connection, table).await?,
        };
        if let Some(statements) = statements {
            // The deletion comes first: inserted rows may have unique values of restored rows.
            for step in [Step::Delete, Step::Restore] {
                self.reverse(connection, &statements, step, &mut undone)
                    .await?;
            }
        }
        self.forget(connection).await?;
        undone.kept = written.saturating_sub(undone.reversed + undone.errored);
        Ok(undone)
    }

    /// Deletes what this undo has used.
    async fn forget(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        if self.dataset.table.is_some() {
            return written_rows::delete(connection, self.number).await;
        }
        previous_rows::splice(connection, self.key.id, self.number).await?;
        previous_rows::delete(connection, self.number, 0, i64::MAX).await
    }

    /// Locks Carga's table. Returns `None` if somebody has dropped it by hand.
    async fn lock_own(&self, connection: &mut PgConnection) -> sqlx::Result<Option<Statements>> {
        let table = datasets::table(&self.dataset.key());
        let columns = TableColumns::read(connection, &table).await?;
        // A table without columns is missing.
        if columns.names.is_empty() {
            return Ok(None);
        }
        let lock = datasets::lock_against_writers(&table);
        connection.execute(lock.as_str()).await?;
        sqlx::query(NO_NESTED_LOOPS)
            .execute(&mut *connection)
            .await?;
        Ok(Some(Statements::of_own(&table, columns)))
    }

    /// Locks a table of the user. Returns `None` if the rows cannot be found any more, because the
    /// table, its primary key or one of its columns is missing.
    async fn lock_user(
        &self,
        connection: &mut PgConnection,
        table: &TableName,
    ) -> sqlx::Result<Option<Statements>> {
        if self.identity(connection, table).await?.is_none() {
            return Ok(None);
        }
        datasets::lock_table_of_user(connection, table).await?;
        // The table may have changed before it was locked.
        let identity = self.identity(connection, table).await?;
        Ok(identity.map(|identity| Statements::of_user(&table.quoted(), identity, &self.written)))
    }

    /// How the rows of the upload are found, if the table still has their columns.
    async fn identity(
        &self,
        connection: &mut PgConnection,
        table: &TableName,
    ) -> sqlx::Result<Option<RowIdentity>> {
        let identity = RowIdentity::read(connection, table).await?;
        Ok(identity.filter(|identity| identity.has(&self.written)))
    }

    /// Runs a step for all rows, and counts them.
    async fn reverse(
        &self,
        connection: &mut PgConnection,
        statements: &Statements,
        step: Step,
        undone: &mut UndoneRows,
    ) -> sqlx::Result<()> {
        let all = self.attempt(connection, statements, step, &ALL_ROWS);
        if let Some(reversed) = all.await? {
            undone.reversed += reversed;
            return Ok(());
        }
        let Some(numbers) = self.numbers(connection, statements, step).await? else {
            return Ok(());
        };
        let mut split = Split::new(numbers.len());
        while let Some(range) = split.next_range() {
            check_duration(self.started, TOO_LONG)?;
            let rows = numbers[range.start]..=numbers[range.end - 1];
            match self.attempt(connection, statements, step, &rows).await? {
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
        statements: &Statements,
        step: Step,
        range: &RangeInclusive<i64>,
    ) -> sqlx::Result<Option<u64>> {
        savepoint::begin_checked(connection).await?;
        let done = sqlx::query::<Postgres>(statements.reverse(step))
            .persistent(false)
            .bind(&statements.names)
            .bind(self.number)
            .bind(*range.start())
            .bind(*range.end())
            .bind(self.key.id.as_uuid())
            .execute(&mut *connection)
            .await;
        let reversed = done.map(|done| done.rows_affected());
        let settled = savepoint::settle(connection, reversed, &self.dataset);
        Ok(settled.await?.ok())
    }

    /// The numbers of the rows of a step, in order. `None` if they cannot be found, because the
    /// primary key has another type now.
    async fn numbers(
        &self,
        connection: &mut PgConnection,
        statements: &Statements,
        step: Step,
    ) -> sqlx::Result<Option<Vec<i64>>> {
        savepoint::begin(connection).await?;
        let found = sqlx::query_scalar::<Postgres, i64>(statements.numbers(step))
            .persistent(false)
            .bind(&statements.names)
            .bind(self.number)
            .bind(*ALL_ROWS.start())
            .bind(*ALL_ROWS.end())
            .bind(self.key.id.as_uuid())
            .fetch_all(&mut *connection)
            .await;
        savepoint::settle_search(connection, found, &self.dataset).await
    }
}
