//! Writes rows of the temporary table, and keeps what an undo needs.

use std::ops::RangeInclusive;

use sqlx::{PgConnection, Postgres};

use super::Merger;
use crate::dataset::Mode;
use crate::store::postgres::datasets;
use crate::store::postgres::merging::{Staged, statements};
use crate::store::postgres::previous_rows::TableColumns;
use crate::store::postgres::table_rows::fault::check_taken;
use crate::store::postgres::written_rows::{RowIdentity, WrittenColumns};

/// What a merge keeps of the rows that it writes.
#[derive(Debug, Default)]
pub(super) enum Kept {
    /// Nothing: only rows of Carga's own table are inserted, a table of the user has no primary
    /// key, or the rows are only tried.
    #[default]
    Nothing,
    /// The replaced rows of Carga's own table, with these columns.
    Replaced(TableColumns),
    /// The written rows of a table of the user.
    Written(RowIdentity),
}

impl Kept {
    /// Reads the columns of the table, which is locked.
    pub(super) async fn read(connection: &mut PgConnection, staged: &Staged) -> sqlx::Result<Self> {
        if staged.deadline.is_some() {
            return Ok(Self::Nothing);
        }
        let dataset = &staged.dataset;
        if let Some(table) = &dataset.table {
            let identity = RowIdentity::read(connection, table).await?;
            return Ok(identity.map_or(Self::Nothing, Self::Written));
        }
        if staged.merge.mode != Mode::Update {
            return Ok(Self::Nothing);
        }
        let table = datasets::table_of(dataset);
        let columns = TableColumns::read(connection, &table).await?;
        Ok(Self::Replaced(columns))
    }
}

impl Merger<'_> {
    /// The columns by which an undo finds the written rows. `None` for a table of Carga, and no
    /// columns for a table of the user without a primary key.
    pub(in crate::store::postgres::merging) fn written(&self) -> Option<WrittenColumns> {
        self.staged.table.as_ref()?;
        Some(match &self.kept {
            Kept::Written(identity) => identity.written(),
            Kept::Nothing | Kept::Replaced(_) => WrittenColumns::default(),
        })
    }

    /// Stores the rows of a range that are left, and returns how many these are.
    pub(super) async fn apply(
        &self,
        connection: &mut PgConnection,
        range: &RangeInclusive<i64>,
    ) -> sqlx::Result<i64> {
        let taken = match self.staged.table {
            None => self.write_own(connection, range).await?,
            Some(_) => self.write_of_user(connection, range).await?,
        };
        self.staged.limit_statements(connection).await?;
        let given = sqlx::query_scalar::<Postgres, i64>(statements::COUNT_LEFT)
            .persistent(false)
            .bind(*range.start())
            .bind(*range.end())
            .fetch_one(connection)
            .await?;
        check_taken(given.unsigned_abs(), taken)?;
        Ok(given)
    }

    /// Writes rows into Carga's own table. Returns how many the table has taken.
    async fn write_own(
        &self,
        connection: &mut PgConnection,
        range: &RangeInclusive<i64>,
    ) -> sqlx::Result<u64> {
        if let Kept::Replaced(columns) = &self.kept {
            self.save(connection, columns, range).await?;
        }
        let is_update = self.staged.merge.mode == Mode::Update;
        let replace = self.names.replace().filter(|_| is_update);
        let mut taken = 0;
        for statement in replace.into_iter().chain([self.names.insert()]) {
            self.staged.limit_statements(connection).await?;
            let written = sqlx::query(&statement)
                .persistent(false)
                .bind(*range.start())
                .bind(*range.end())
                .bind(self.staged.key.id.as_uuid())
                .execute(&mut *connection)
                .await?;
            taken += written.rows_affected();
        }
        Ok(taken)
    }

    /// Keeps the rows of Carga's own table that will be replaced.
    async fn save(
        &self,
        connection: &mut PgConnection,
        columns: &TableColumns,
        range: &RangeInclusive<i64>,
    ) -> sqlx::Result<()> {
        sqlx::query(&self.names.save(columns))
            .persistent(false)
            .bind(*range.start())
            .bind(*range.end())
            .bind(self.staged.source.number)
            .bind(&columns.names)
            .execute(connection)
            .await?;
        Ok(())
    }

    /// Writes rows into a table of the user. Returns how many the table has taken.
    async fn write_of_user(
        &self,
        connection: &mut PgConnection,
        range: &RangeInclusive<i64>,
    ) -> sqlx::Result<u64> {
        let names = &self.names;
        let is_update = self.staged.merge.mode == Mode::Update;
        let replace = names.replace().filter(|_| is_update);
        let (replace, insert, columns) = match &self.kept {
            Kept::Written(identity) => (
                replace.map(|replace| identity.keep_updated(&replace, &names.replaced())),
                identity.keep_inserted(&names.insert()),
                identity.columns.names.as_slice(),
            ),
            _ => (replace, names.insert(), Default::default()),
        };
        let mut taken = 0;
        for statement in replace.into_iter().chain([insert]) {
            self.staged.limit_statements(connection).await?;
            // The server ignores parameters that a statement does not name.
            let written = sqlx::query(&statement)
                .persistent(false)
                .bind(*range.start())
                .bind(*range.end())
                .bind(columns)
                .bind(self.staged.source.number)
                .execute(&mut *connection)
                .await?;
            taken += written.rows_affected();
        }
        Ok(taken)
    }
}
