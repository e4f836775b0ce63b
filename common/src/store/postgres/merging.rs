//! Merges the staged rows of an upload into the table of its dataset, in one transaction.
//!
//! 1. The rows in `landing` become typed rows of a temporary table. Rows with a value that a column
//!    of the table of the user does not hold are rejected. Of the rows with the same key, one
//!    stays.
//! 2. The table is locked against other writers. Rows that would change nothing are found.
//! 3. The other rows replace the rows with their keys, or are inserted. This is one attempt under a
//!    savepoint. If a row violates a constraint, all rows that violate the same constraint are
//!    taken out together, and the attempt is repeated. If one query cannot find these rows, the
//!    rows are divided into ranges, as in `table_rows`.
//! 4. The outcomes are counted in the ledger, and the staged rows are deleted (`outcomes`).
//!
//! Every other process sees all of this or nothing. Two merges into one table take turns. A trial
//! makes the first three steps with other rows, and is then rolled back (`trial`).
//!
//! A table of the user is described by the catalog, which is read before the first step and again
//! under the lock. An application may lock its table or a row for a long time. Other writers of the
//! table queue behind a merge that waits, so a merge waits only briefly for a lock.

mod deadline;
mod merger;
mod outcomes;
mod rejects;
mod statements;
mod trial;

use std::time::Instant;

use sqlx::{Connection, PgConnection};

pub(super) use self::deadline::Deadline;
use self::merger::Merger;
pub(super) use self::trial::{TrialRows, try_rows};
use super::connections::{MERGE, MERGE_STATEMENT, MERGE_STATEMENT_LIMIT};
use super::datasets::catalog::{self, CatalogTable};
use super::dead_letters::forget_stored;
use super::previous_rows::EXACT_TEXTS;
use super::table_rows::is_changed_by_hand;
use super::upload_record::find;
use super::{PostgresStore, datasets, has_code, lock_status, try_lock_rows};
use crate::error::PortResult;
use crate::store::Completed;
use crate::store::sql;
use crate::upload::{Merge, UploadDataset, UploadKey};

/// Gives sorts and hash tables more memory than a small statement needs. The compilation of
/// expressions costs more than it saves.
const PLAN: &str = "SELECT set_config('work_mem', '64MB', true), set_config('jit', 'off', true)";

const TOO_LONG: &str = "merging the rows takes longer than 14 minutes; split the file";

/// The number and the staged rows of an upload that can be merged. The conditions are those of an
/// upload whose rows are not staged. `$1` and `$2`: id and epoch.
const READY: &str = "SELECT u.number, ledger.rows
    FROM uploads u,
         (SELECT count(*) AS batches, coalesce(sum(rows), 0)::bigint AS rows
          FROM batches WHERE upload_id = $1 AND epoch = $2) ledger,
         (SELECT count(*) AS rows FROM rejected_rows WHERE upload_id = $1) rejected
    WHERE u.id = $1 AND u.epoch = $2 AND u.status = 'processing'
      AND u.batches_total = ledger.batches
      AND u.rows_read = ledger.rows + u.rows_rejected
      AND rejected.rows = u.rows_rejected";

/// Rows of a file that are all staged, and the table that gets them.
#[derive(Debug)]
struct Staged {
    /// The upload of the rows. The upload of a trial is not recorded.
    key: UploadKey,
    /// The columns of the file.
    columns: Vec<String>,
    rows_read: u64,
    /// The rows that were rejected while the file was read.
    rows_rejected: u64,
    dataset: UploadDataset,
    merge: Merge,
    /// The table of the user that gets the rows; `None` if it is a table of Carga.
    table: Option<CatalogTable>,
    source: Source,
    /// How many rows are staged.
    rows: i64,
    /// When a trial must end. `None` if the rows are stored.
    deadline: Option<Deadline>,
}

/// The table with the staged rows.
#[derive(Debug, Clone, Copy)]
struct Source {
    /// `landing`, or a table with the same columns.
    table: &'static str,
    /// The number of the upload in that table.
    number: i64,
}

impl Staged {
    /// Limits the next statements of a trial to the rest of its time.
    async fn limit_statements(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        match self.deadline {
            Some(deadline) => deadline.limit_statements(connection).await,
            None => Ok(()),
        }
    }
}

impl PostgresStore {
    /// Completes an upload with staged rows, unless this process already merges as many uploads as
    /// it may. A later check or sweep merges the upload then.
    pub(super) async fn merge(
        &self,
        operation: &'static str,
        key: UploadKey,
    ) -> PortResult<Completed> {
        let Ok(_permit) = self.merges.try_acquire() else {
            return Ok(Completed::No);
        };
        self.call(operation, MERGE, async |connection| {
            let started = Instant::now();
            let merged = merge(connection, key).await;
            merged.map_err(|error| {
                match is_cancelled(&error) && started.elapsed() >= MERGE_STATEMENT_LIMIT {
                    true => sql::invalid(TOO_LONG),
                    false => error,
                }
            })
        })
        .await
    }
}

async fn merge(connection: &mut PgConnection, key: UploadKey) -> sqlx::Result<Completed> {
    let mut transaction = connection.begin().await?;
    let Some(staged) = begin(&mut transaction, key).await? else {
        // Dropping it would keep the locks for a moment.
        transaction.rollback().await?;
        return Ok(Completed::No);
    };
    let mut merger = Merger::new(&staged);
    let merged = merger.run(&mut transaction).await;
    let completed = merged.map_err(lasting_refusal)?;
    match completed {
        Completed::Yes => {
            outcomes::record(&mut transaction, &staged, &merger).await?;
            forget_stored(&mut transaction, key.id).await?;
            transaction.commit().await?;
        }
        Completed::No => transaction.rollback().await?,
        Completed::TooManyRejects { .. } => {
            transaction.rollback().await?;
            outcomes::keep_rejects(connection, &staged, merger.rejects()).await?;
        }
    }
    Ok(completed)
}

/// Takes the locks of the upload. Returns `None` if it cannot be merged now.
async fn begin(connection: &mut PgConnection, key: UploadKey) -> sqlx::Result<Option<Staged>> {
    for setting in [MERGE_STATEMENT, EXACT_TEXTS, PLAN] {
        sqlx::query(setting).execute(&mut *connection).await?;
    }
    if !try_lock_rows(connection, key.id).await? {
        return Ok(None);
    }
    lock_status(connection, key.id).await?;
    let ready: Option<(i64, i64)> = sqlx::query_as(READY)
        .bind(key.id.as_uuid())
        .bind(key.epoch.get())
        .fetch_optional(&mut *connection)
        .await?;
    let (Some((number, rows)), Some(upload)) = (ready, find(connection, key.id).await?) else {
        return Ok(None);
    };
    let Some(dataset) = upload.dataset else {
        return Ok(None);
    };
    let Some(merge) = dataset.merge.clone() else {
        return Ok(None);
    };
    let table = user_table(connection, &dataset).await?;
    Ok(Some(Staged {
        key,
        columns: upload.columns,
        rows_read: upload.rows_read,
        rows_rejected: upload.rows_rejected,
        dataset,
        merge,
        table,
        source: Source {
            table: "landing",
            number,
        },
        rows,
        deadline: None,
    }))
}

/// Reads the table of the user that gets the rows of an upload. Fails for good if the table does
/// not take them any more.
async fn user_table(
    connection: &mut PgConnection,
    dataset: &UploadDataset,
) -> sqlx::Result<Option<CatalogTable>> {
    if dataset.table.is_none() {
        return Ok(None);
    }
    let definition = datasets::definition_of(connection, dataset).await?;
    let written = dataset.written_names();
    let read = catalog::read(connection, &definition, &written).await?;
    read.map_err(sql::invalid)
}

/// Makes an error *invalid* if every later attempt would fail with it too.
fn lasting_refusal(error: sqlx::Error) -> sqlx::Error {
    match is_refused_by_table(&error) {
        true => sql::invalid(error),
        false => error,
    }
}

/// Whether the server has cancelled a statement, as it does after `statement_timeout`.
pub(super) fn is_cancelled(error: &sqlx::Error) -> bool {
    has_code(error, &["57014"])
}

/// Whether the table or a column is missing or has a type that does not fit, because somebody has
/// changed it by hand. No later attempt would succeed.
fn is_refused_by_table(error: &sqlx::Error) -> bool {
    // In order: a value of another type, an operator that does not exist, a column with another
    // collation, a generated column, a relation of another kind.
    const REFUSING: [&str; 5] = ["42804", "42883", "42P22", "428C9", "42809"];
    is_changed_by_hand(error) || has_code(error, &REFUSING)
}

/// Whether an error that came while rows were written into a table of the user comes again with
/// each attempt. A trigger of the user may raise any error.
fn is_lasting(error: &sqlx::Error) -> bool {
    // In order: connection, transaction state, rollback, resources, lock not available, operator
    // intervention, system error. The rest of class 55 lasts, such as an UPDATE of a published
    // table that has no replica identity.
    const PASSING: [&str; 7] = ["08", "25", "40", "53", "55P03", "57", "58"];
    error.as_database_error().is_some() && !has_code(error, &PASSING)
}
