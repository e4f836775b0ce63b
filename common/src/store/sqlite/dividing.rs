//! Finds the rows that violate a constraint of a dataset's table among rows that are written
//! together.
//!
//! SQLite names the constraint, and not the row. So rows that cannot be written together are
//! divided until each violating row is alone.

use sqlx::SqliteConnection;

use super::constraints;
use crate::store::violations::Violation;
use crate::upload::UploadDataset;

/// Rows of an upload, by their first and their last id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IdRange {
    pub(super) first: i64,
    pub(super) last: i64,
}

impl IdRange {
    /// Both halves, or `None` if it is a single row.
    pub(super) fn halves(self) -> Option<[Self; 2]> {
        let Self { first, last } = self;
        let middle = first + (last - first) / 2;
        let second = middle + 1;
        let halves = [
            Self {
                first,
                last: middle,
            },
            Self {
                first: second,
                last,
            },
        ];
        (first < last).then_some(halves)
    }
}

/// Begins to write rows. Call [`end`] with the outcome.
///
/// The savepoint undoes what a trigger with `RAISE(FAIL)` leaves behind. `RAISE(ROLLBACK)` ends the
/// whole transaction, so the savepoint is gone, and `end` fails.
pub(super) async fn begin(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    execute(connection, "SAVEPOINT carga_rows").await
}

/// Ends what [`begin`] began. If a row violates a constraint, everything since then is undone, and
/// the inner result is the violation.
pub(super) async fn end<T>(
    connection: &mut SqliteConnection,
    outcome: sqlx::Result<T>,
    dataset: &UploadDataset,
) -> sqlx::Result<Result<T, Violation>> {
    let written = match outcome {
        Ok(value) => Ok(value),
        Err(error) => {
            let violation = constraints::violation(&error, dataset);
            let undone = execute(connection, "ROLLBACK TO carga_rows").await;
            match (violation, undone) {
                (Some(violation), Ok(())) => Err(violation),
                _ => return Err(error),
            }
        }
    };
    execute(connection, "RELEASE carga_rows").await?;
    Ok(written)
}

/// Runs a statement without parameters.
pub(super) async fn execute(
    connection: &mut SqliteConnection,
    statement: &'static str,
) -> sqlx::Result<()> {
    sqlx::query(statement).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_halved_down_to_single_rows() {
        let mut waiting = vec![IdRange { first: 5, last: 11 }];
        let mut single = Vec::new();
        while let Some(range) = waiting.pop() {
            match range.halves() {
                Some([first, second]) => waiting.extend([second, first]),
                None => single.push(range.first),
            }
        }
        assert_eq!(single, [5, 6, 7, 8, 9, 10, 11]);
    }
}
