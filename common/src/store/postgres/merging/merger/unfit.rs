//! Rows with a value that a column of the table of the user does not hold.

use std::collections::BTreeMap;

use sqlx::{PgConnection, Postgres};

use super::Merger;

/// Whether a row of the temporary table is rejected.
const HAS_REJECTED: &str =
    "SELECT EXISTS (SELECT FROM pg_temp.carga_merge WHERE _carga_state = 'v')";

impl Merger<'_> {
    /// Records why rows were rejected when they were read. The staged rows are read again only if
    /// there are such rows, which most uploads do not have.
    pub(super) async fn record_unfit(&mut self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let Some(find) = self.names.find_unfit() else {
            return Ok(());
        };
        self.staged.limit_statements(connection).await?;
        let has_rejected = sqlx::query_scalar::<Postgres, bool>(HAS_REJECTED)
            .persistent(false)
            .fetch_one(&mut *connection)
            .await?;
        if !has_rejected {
            return Ok(());
        }
        self.staged.limit_statements(connection).await?;
        let found = sqlx::query_as::<Postgres, (i64, i32)>(&find)
            .persistent(false)
            .bind(self.staged.source.number)
            .fetch_all(connection)
            .await?;
        let mut by_column: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for (number, column) in found {
            by_column.entry(column).or_default().push(number);
        }
        for (column, numbers) in by_column {
            if let Some(violation) = self.names.reason(column) {
                self.rejects.add(&numbers, violation.clone());
            }
        }
        Ok(())
    }
}
