//! Locks the table before rows of it are compared.

use sqlx::{PgConnection, Postgres};

use super::Merger;
use crate::dataset::Mode;
use crate::store::postgres::datasets;
use crate::store::postgres::merging::user_table;

impl Merger<'_> {
    /// Makes other writers of the table wait. Returns false if the rows cannot be merged now.
    pub(super) async fn lock(&self, connection: &mut PgConnection) -> sqlx::Result<bool> {
        let table = self.staged.dataset.table.as_ref();
        let (Some(table), Some(known)) = (table, &self.staged.table) else {
            self.execute(connection, &self.names.lock()).await?;
            let is_ignore = self.staged.merge.mode == Mode::Ignore;
            return Ok(!is_ignore || !self.has_leaving(connection).await?);
        };
        self.staged.limit_statements(connection).await?;
        datasets::lock_table_of_user(connection, table).await?;
        self.staged.limit_statements(connection).await?;
        // The statements were made for the table as it was then. The lock keeps it as it is now.
        let found = user_table(connection, &self.staged.dataset).await?;
        Ok(found.as_ref() == Some(known))
    }

    async fn has_leaving(&self, connection: &mut PgConnection) -> sqlx::Result<bool> {
        self.staged.limit_statements(connection).await?;
        sqlx::query_scalar::<Postgres, bool>(&self.names.has_leaving())
            .persistent(false)
            .fetch_one(connection)
            .await
    }
}
