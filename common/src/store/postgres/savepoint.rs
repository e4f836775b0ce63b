//! Attempts to write rows under a savepoint. What an attempt has done is kept, or undone if a row
//! violates a constraint. There is at most one savepoint at a time.

use sqlx::{Executor, PgConnection};

use super::has_code;
use super::table_rows::fault::Fault;
use crate::upload::UploadDataset;

const BEGIN: &str = "SAVEPOINT carga_rows";
const KEEP: &str = "RELEASE SAVEPOINT carga_rows";
const UNDO: &str = "ROLLBACK TO SAVEPOINT carga_rows; RELEASE SAVEPOINT carga_rows";

/// Constraints that are deferred would be checked at the commit, where the error names no row.
const CHECK_AT_ONCE: &str = "SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT carga_rows";

/// The SQLSTATEs, or their classes, of a condition that fails for a value, or that names a column
/// which the table lacks.
const NOT_EVALUATED: [&str; 3] = ["22", "42", "0A"];

/// Begins an attempt.
pub(super) async fn begin(connection: &mut PgConnection) -> sqlx::Result<()> {
    run(connection, BEGIN).await
}

/// Begins an attempt to write to the table of a dataset. All its constraints are checked at once.
pub(super) async fn begin_checked(connection: &mut PgConnection) -> sqlx::Result<()> {
    run(connection, CHECK_AT_ONCE).await
}

/// Ends an attempt, and keeps what it has done.
pub(super) async fn keep(connection: &mut PgConnection) -> sqlx::Result<()> {
    run(connection, KEEP).await
}

/// Ends an attempt, and undoes what it has done.
pub(super) async fn undo(connection: &mut PgConnection) -> sqlx::Result<()> {
    run(connection, UNDO).await
}

/// Ends an attempt with this outcome. If a row violates a constraint, the attempt is undone, and
/// the inner result is the fault.
pub(super) async fn settle<T>(
    connection: &mut PgConnection,
    outcome: sqlx::Result<T>,
    dataset: &UploadDataset,
) -> sqlx::Result<Result<T, Fault>> {
    match outcome {
        Ok(value) => {
            keep(connection).await?;
            Ok(Ok(value))
        }
        Err(error) => {
            let fault = Fault::of(&error, dataset).ok_or(error)?;
            undo(connection).await?;
            Ok(Err(fault))
        }
    }
}

/// Ends an attempt to find rows by the condition of a constraint. Returns `None` if the condition
/// cannot be evaluated for these rows.
pub(super) async fn settle_search<T>(
    connection: &mut PgConnection,
    found: sqlx::Result<T>,
    dataset: &UploadDataset,
) -> sqlx::Result<Option<T>> {
    match found {
        Err(error) if has_code(&error, &NOT_EVALUATED) => {
            undo(connection).await?;
            Ok(None)
        }
        found => Ok(settle(connection, found, dataset).await?.ok()),
    }
}

async fn run(connection: &mut PgConnection, statements: &'static str) -> sqlx::Result<()> {
    connection.execute(statements).await?;
    Ok(())
}
