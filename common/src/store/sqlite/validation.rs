//! Trials of rows, on a connection of their own.
//!
//! 1. The rows go into a temporary table with the columns of `rows`, batch by batch. SQLite keeps
//!    temporary tables in another file, so no writer waits.
//! 2. The rows are merged into the table of the dataset in a write transaction, like those of an
//!    upload, and their outcomes are counted.
//! 3. The connection is closed. This rolls the transaction back and deletes the temporary tables.
//!
//! SQLite has one writer, so all other writers wait during the second step. SQLite asks during each
//! statement whether to continue. A statement ends when the time is over, and when the caller is
//! gone: the transaction would otherwise go on in the thread of its connection.

use std::collections::BTreeMap;
use std::time::Instant;

use async_trait::async_trait;
use futures::TryStreamExt;
use sqlx::{Connection, SqliteConnection};
use tokio_util::sync::CancellationToken;

use super::batches;
use super::merging::lasting_refusal;
use super::merging::merger::{self, Changes, Staged};
use super::{SqliteStore, datasets, dividing};
use crate::batch::Batch;
use crate::error::PortResult;
use crate::sqlite::{Database, call};
use crate::store::rules::TrialOutcome;
use crate::store::sql::{changed_columns, count, invalid};
use crate::store::{Difference, FirstRejects, Trial, TrialBatches, Tried, ValidationStore};
use crate::upload::{UploadDataset, UploadId, UploadKey};

const OPERATION: &str = "store.validate";

const TABLE: &str = "temp.carga_trial";

const CREATE: &str = "CREATE TEMP TABLE carga_trial (id integer PRIMARY KEY, fields text NOT NULL)";

/// The page cache of the writer, since the connection is one that reads.
const CACHE: &str = "PRAGMA cache_size = -16000";

/// The largest number that an id has room for. No upload will ever have it, so the rows of a trial
/// come behind all others, like those of a new upload.
const NUMBER: i64 = i64::MAX >> 36;

/// After how many steps of its virtual machine SQLite asks whether to continue. They take less than
/// a millisecond.
const STEPS: i32 = 1000;

#[async_trait]
impl ValidationStore for SqliteStore {
    async fn validate(&self, trial: &Trial, batches: TrialBatches<'_>) -> PortResult<Tried> {
        let outcome = call(OPERATION, validate(&self.database, trial, batches));
        outcome.await?.into_result(OPERATION)
    }
}

async fn validate(
    database: &Database,
    trial: &Trial,
    batches: TrialBatches<'_>,
) -> sqlx::Result<TrialOutcome> {
    // The connection leaves its pool, because a long trial must not keep a reader. After an error,
    // it is dropped and thereby closed.
    let mut connection = database.readers.acquire().await?.detach();
    stage(&mut connection, &trial.dataset, batches).await?;
    // The writers of this process take turns. Without the turn, they would wait for the lock of the
    // file, and only briefly.
    let _turn = database.writer().acquire().await?;
    let tried = try_in_time(&mut connection, trial).await;
    let closed = connection.close().await;
    let tried = tried.map_err(lasting_refusal)?;
    closed?;
    Ok(tried)
}

/// Puts the rows into the temporary table.
async fn stage(
    connection: &mut SqliteConnection,
    dataset: &UploadDataset,
    mut batches: TrialBatches<'_>,
) -> sqlx::Result<()> {
    dividing::execute(connection, CACHE).await?;
    dividing::execute(connection, CREATE).await?;
    while let Some(message) = batches.try_next().await? {
        let batch = Batch::decode(message).map_err(invalid)?;
        batches::stage(connection, &batch, dataset, (TABLE, NUMBER)).await?;
    }
    Ok(())
}

/// Tries the staged rows in a transaction, which the caller rolls back.
async fn try_in_time(
    connection: &mut SqliteConnection,
    trial: &Trial,
) -> sqlx::Result<TrialOutcome> {
    dividing::execute(connection, "BEGIN IMMEDIATE").await?;
    let deadline = Instant::now() + trial.time_limit;
    let gone = CancellationToken::new();
    let _guard = gone.clone().drop_guard();
    let goes_on = move || Instant::now() < deadline && !gone.is_cancelled();
    connection
        .lock_handle()
        .await?
        .set_progress_handler(STEPS, goes_on);
    // Short statements end before SQLite asks, so there is a limit in the program, too.
    match tokio::time::timeout(trial.time_limit, try_rows(connection, trial)).await {
        Err(_) => Ok(TrialOutcome::Tried(Tried::TooLong)),
        Ok(Err(error)) if is_interrupted(&error) => Ok(TrialOutcome::Tried(Tried::TooLong)),
        Ok(tried) => tried,
    }
}

/// Whether SQLite has ended a statement because it must not continue.
fn is_interrupted(error: &sqlx::Error) -> bool {
    const INTERRUPT: &str = "9";
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == INTERRUPT)
}

/// Merges the staged rows, and counts their outcomes.
async fn try_rows(connection: &mut SqliteConnection, trial: &Trial) -> sqlx::Result<TrialOutcome> {
    if !datasets::takes_rows(connection, &trial.dataset).await? {
        return Ok(TrialOutcome::NoDataset);
    }
    let staged = staged(trial)?;
    merger::prepare(connection, &staged).await?;
    if merger::must_wait(connection, &staged).await? {
        return Ok(TrialOutcome::MustWait);
    }
    let changes = Changes::count(connection, &staged).await?;
    let mut rejects = FirstRejects::default();
    let too_many = merger::merge(connection, &staged, |row| rejects.push(row)).await?;
    let rejects = rejects.into_rows();
    if let Some(rejected) = too_many {
        let first = rejects.into_iter().next();
        return Ok(TrialOutcome::Tried(Tried::TooManyRejects {
            rejected,
            first,
        }));
    }
    let outcomes = merger::outcomes(connection).await?;
    Ok(TrialOutcome::Tried(Tried::Difference(Difference {
        inserted: count("inserted", outcomes.inserted)?,
        updated: count("updated", outcomes.updated)?,
        duplicate: count("duplicate", outcomes.duplicate)?,
        rejected: count("rejected", outcomes.rejected)?,
        rejects,
        changed_columns: count_changed(connection, &staged, changes).await?,
        // All warnings are about tables of users, or about how Postgres stores rows.
        warnings: Vec::new(),
    })))
}

fn staged(trial: &Trial) -> sqlx::Result<Staged> {
    let dataset = trial.dataset.clone();
    let Some(merge) = dataset.merge.clone() else {
        return Err(invalid("the dataset of a trial has no mode"));
    };
    Ok(Staged {
        key: UploadKey::first(UploadId::generate()),
        columns: trial.columns.clone(),
        rows_read: trial.rows_read,
        rows_rejected: trial.rows_rejected,
        dataset,
        merge,
        number: NUMBER,
        source: TABLE,
    })
}

/// How many of the updated rows get another value in each column. A column without such a row is
/// missing.
async fn count_changed(
    connection: &mut SqliteConnection,
    staged: &Staged,
    changes: Changes,
) -> sqlx::Result<BTreeMap<String, u64>> {
    let counts = changes.without_rejected(connection, staged).await?;
    changed_columns(staged.compared(), counts)
}

#[cfg(test)]
mod tests;
