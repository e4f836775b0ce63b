//! Trials of rows, in one session.
//!
//! 1. The rows go into a temporary table with the columns of `landing`, one transaction per batch.
//!    No other session sees these rows, or waits for their locks.
//! 2. A merge into the table of the dataset reads this table, and is rolled back (`merging`).
//! 3. The temporary table is dropped. If this fails, the connection is closed, and the table ends
//!    with its session.
//!
//! Other writers wait for this merge, so it has two limits. The server ends each statement at the
//! deadline (`Deadline`). If the server does not answer, this process closes the connection soon
//! afterwards.

mod warnings;

use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use sqlx::{Connection, Executor, PgConnection};

use super::connections::{MERGE, MERGE_STATEMENT_LIMIT, is_refusal, silent};
use super::copy::staged::{StagedBatch, send_rows};
use super::merging::{Deadline, TrialRows, is_cancelled, try_rows};
use super::{PostgresStore, datasets, table_rows};
use crate::batch::Batch;
use crate::error::PortResult;
use crate::store::rules::TrialOutcome;
use crate::store::sql;
use crate::store::{Trial, TrialBatches, Tried, ValidationStore};

const OPERATION: &str = "store.validate";

const TABLE: &str = "pg_temp.carga_trial";

const CREATE: &str = "CREATE TEMP TABLE carga_trial
    (upload bigint NOT NULL, row_number bigint NOT NULL, fields text[] NOT NULL)";

const COPY: &str =
    "COPY pg_temp.carga_trial (upload, row_number, fields) FROM STDIN (FORMAT binary)";

/// A merge looks for ranges of rows. The rows are in the order of their numbers, so a BRIN index is
/// small and made quickly.
const INDEX: &str = "CREATE INDEX ON pg_temp.carga_trial USING brin (row_number)";

const DROP: &str = "DROP TABLE IF EXISTS pg_temp.carga_trial";

/// The number of the only upload in the temporary table.
const NUMBER: i64 = 0;

/// How much later than the server this process ends a trial.
const GRACE: Duration = Duration::from_secs(5);

#[async_trait]
impl ValidationStore for PostgresStore {
    async fn validate(&self, trial: &Trial, batches: TrialBatches<'_>) -> PortResult<Tried> {
        let limit = MERGE + trial.time_limit;
        let outcome = self.call(OPERATION, limit, async |connection| {
            try_file(connection, trial, batches).await
        });
        outcome.await?.into_result(OPERATION)
    }
}

async fn try_file(
    connection: &mut PgConnection,
    trial: &Trial,
    batches: TrialBatches<'_>,
) -> sqlx::Result<TrialOutcome> {
    let tried = stage_and_try(connection, trial, batches).await;
    drop_rows(connection, tried).await
}

async fn stage_and_try(
    connection: &mut PgConnection,
    trial: &Trial,
    batches: TrialBatches<'_>,
) -> sqlx::Result<TrialOutcome> {
    let deadline = Deadline::after(MERGE_STATEMENT_LIMIT);
    let count = match stage(connection, trial, batches, deadline).await {
        Ok(count) => count,
        Err(error) if deadline.is_over() || is_cancelled(&error) => {
            return Ok(TrialOutcome::Tried(Tried::TooLong));
        }
        Err(error) => return Err(error),
    };
    let rows = TrialRows {
        table: TABLE,
        number: NUMBER,
        count,
    };
    let limit = trial.time_limit + GRACE;
    let tried = tokio::time::timeout(limit, try_staged(connection, trial, rows)).await;
    tried.map_err(|_| silent(limit))?
}

/// Puts the rows into the temporary table. Returns how many there are.
async fn stage(
    connection: &mut PgConnection,
    trial: &Trial,
    mut batches: TrialBatches<'_>,
    deadline: Deadline,
) -> sqlx::Result<i64> {
    connection.execute(CREATE).await?;
    let mut count = 0;
    while let Some(message) = batches.try_next().await? {
        deadline.check()?;
        let batch = Batch::decode(message).map_err(sql::invalid)?;
        table_rows::check_columns(&batch, &trial.dataset)?;
        let staged = StagedBatch {
            upload: NUMBER,
            batch: &batch,
            columns: &trial.dataset.columns,
        };
        let copy = connection.copy_in_raw(COPY).await?;
        send_rows(copy, &[staged]).await?;
        count += batch.row_count() as i64;
    }
    index(connection, deadline).await?;
    Ok(count)
}

/// Indexes the temporary table. If it is very large, this takes longer than the session allows.
async fn index(connection: &mut PgConnection, deadline: Deadline) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    deadline.limit_statements(&mut transaction).await?;
    sqlx::query(INDEX).execute(&mut *transaction).await?;
    transaction.commit().await
}

/// Tries the rows of the temporary table in a transaction that is rolled back.
async fn try_staged(
    connection: &mut PgConnection,
    trial: &Trial,
    rows: TrialRows,
) -> sqlx::Result<TrialOutcome> {
    let deadline = Deadline::after(trial.time_limit);
    let mut transaction = connection.begin().await?;
    let tried = try_with_warnings(&mut transaction, trial, rows, deadline).await;
    let rolled_back = transaction.rollback().await;
    match tried {
        Ok(outcome) => rolled_back.map(|()| outcome),
        // The server has ended a statement at the deadline, or the next one was not sent. If the
        // connection is lost instead, the rollback fails.
        Err(_) if deadline.is_over() => rolled_back.map(|()| TrialOutcome::Tried(Tried::TooLong)),
        // The table is missing or has changed, perhaps because the dataset was deleted meanwhile.
        Err(error @ sqlx::Error::Encode(_)) => {
            match datasets::takes_rows(connection, &trial.dataset).await? {
                true => Err(error),
                false => Ok(TrialOutcome::NoDataset),
            }
        }
        Err(error) => Err(error),
    }
}

async fn try_with_warnings(
    connection: &mut PgConnection,
    trial: &Trial,
    rows: TrialRows,
    deadline: Deadline,
) -> sqlx::Result<TrialOutcome> {
    deadline.limit_statements(connection).await?;
    if !datasets::takes_rows(connection, &trial.dataset).await? {
        return Ok(TrialOutcome::NoDataset);
    }
    let Some(mut tried) = try_rows(connection, trial, rows, deadline).await? else {
        return Ok(TrialOutcome::MustWait);
    };
    if let Tried::Difference(difference) = &mut tried {
        difference.warnings = warnings::of(connection, &trial.dataset, deadline).await?;
    }
    Ok(TrialOutcome::Tried(tried))
}

/// Drops the temporary table, unless this outcome closes the connection.
async fn drop_rows<T>(connection: &mut PgConnection, outcome: sqlx::Result<T>) -> sqlx::Result<T> {
    if outcome.as_ref().is_err_and(|error| !is_refusal(error)) {
        return outcome;
    }
    match connection.execute(DROP).await {
        Ok(_) => outcome,
        Err(error) => {
            let reason = outcome.err().unwrap_or(error);
            // An error of this kind closes the connection.
            Err(sqlx::Error::Protocol(format!(
                "cannot drop a temporary table: {reason}"
            )))
        }
    }
}
