//! Applies the staged rows of an upload to the table of its dataset, and finds the rows that
//! violate a constraint.

mod excluding;
mod locking;
mod unfit;
mod writing;

use std::ops::RangeInclusive;
use std::time::Instant;

use sqlx::{Executor, PgConnection, Postgres};

use self::writing::Kept;
use super::rejects::Rejects;
use super::statements::{self, Names};
use super::{Staged, is_lasting};
use crate::dataset::Mode;
use crate::store::Completed;
use crate::store::postgres::rows::READ_BY_INDEX;
use crate::store::postgres::savepoint;
use crate::store::postgres::table_rows::constraints::OnlyColumns;
use crate::store::postgres::table_rows::fault::Fault;
use crate::store::postgres::table_rows::splitting::{ALL_ROWS, Split, check_duration};
use crate::store::rules::too_many_rejects;
use crate::store::sql;
use crate::store::violations::Violation;

/// The most attempts to store all rows that are left at once.
const ROUNDS: usize = 32;

const TOO_LONG: &str = "merging the rows takes longer than 10 minutes, because many of them violate a constraint; \
                        set max_rejects, or change the trigger or constraint of the table";

/// A step of a merge that takes a range of rows.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Reads staged rows into the temporary table.
    Fill,
    /// Stores rows of the temporary table.
    Apply,
}

/// Merges the rows of one upload, or tries them.
#[derive(Debug)]
pub(super) struct Merger<'a> {
    started: Instant,
    staged: &'a Staged,
    names: Names,
    rejects: Rejects,
    only_columns: OnlyColumns,
    /// What is kept so that an undo can take the rows back.
    kept: Kept,
    /// How many rows the table has taken.
    stored: i64,
    /// Whether rows wait until others are stored.
    has_waiting: bool,
}

impl<'a> Merger<'a> {
    pub(super) fn new(staged: &'a Staged) -> Self {
        Self {
            started: Instant::now(),
            staged,
            names: Names::new(staged),
            rejects: Rejects::default(),
            only_columns: OnlyColumns::default(),
            kept: Kept::default(),
            stored: 0,
            has_waiting: false,
        }
    }

    /// The statement that counts the changed columns of a trial. `None` if no column is compared.
    pub(super) fn count_changes(&self) -> Option<String> {
        self.names.count_changes()
    }

    pub(super) fn rejects(&self) -> &Rejects {
        &self.rejects
    }

    /// How many rows the table has taken.
    pub(super) fn stored(&self) -> i64 {
        self.stored
    }

    /// Applies all rows but those that are rejected. Returns [`Completed::No`] if rows of the table
    /// must be removed before, or if somebody has just changed the table of the user.
    pub(super) async fn run(&mut self, connection: &mut PgConnection) -> sqlx::Result<Completed> {
        self.fill_all(connection).await?;
        if let Some(rejected) = self.too_many() {
            return Ok(Completed::TooManyRejects { rejected });
        }
        let is_of_user = self.staged.table.is_some();
        let stored = self.store_all(connection).await;
        let is_stored = stored.map_err(|error| match is_of_user && is_lasting(&error) {
            true => sql::invalid(error),
            false => error,
        })?;
        Ok(match (self.too_many(), is_stored) {
            (_, false) => Completed::No,
            (Some(rejected), true) => Completed::TooManyRejects { rejected },
            (None, true) => Completed::Yes,
        })
    }

    /// Stores the rows of the temporary table. Returns false if they cannot be stored now.
    async fn store_all(&mut self, connection: &mut PgConnection) -> sqlx::Result<bool> {
        if !self.classify(connection).await? {
            return Ok(false);
        }
        self.apply_all(connection).await?;
        Ok(true)
    }

    fn too_many(&self) -> Option<u64> {
        let staged = self.staged;
        let figures = (staged.rows_read, staged.rows_rejected);
        too_many_rejects(staged.dataset.reject_limit, figures, self.rejects.len())
    }

    /// Fills the temporary table.
    async fn fill_all(&mut self, connection: &mut PgConnection) -> sqlx::Result<()> {
        self.execute(connection, &self.names.create()).await?;
        sqlx::query(READ_BY_INDEX).execute(&mut *connection).await?;
        if self
            .attempt(connection, Step::Fill, &ALL_ROWS)
            .await?
            .is_some()
        {
            let numbers = self.staged_rows(connection).await?;
            self.divide(connection, Step::Fill, &numbers).await?;
        }
        self.record_unfit(connection).await?;
        connection
            .execute("SET LOCAL enable_seqscan TO DEFAULT")
            .await?;
        self.staged.limit_statements(connection).await?;
        connection.execute(statements::INDEX).await?;
        self.staged.limit_statements(connection).await?;
        let count = sqlx::query_scalar::<Postgres, i64>("SELECT count(*) FROM pg_temp.carga_merge")
            .persistent(false)
            .fetch_one(connection)
            .await?;
        match count == self.staged.rows || self.too_many().is_some() {
            true => Ok(()),
            false => Err(sql::invalid("the staged rows are not those of the ledger")),
        }
    }

    /// Locks the table, and takes rows out that change nothing. Returns false if a row has the key
    /// of a row that will be removed, or if the table of the user has changed.
    async fn classify(&self, connection: &mut PgConnection) -> sqlx::Result<bool> {
        let names = &self.names;
        let (repeated, existing) = match self.staged.merge.mode {
            Mode::Append => (None, None),
            Mode::Ignore => (
                Some(names.take_repeated("ASC")),
                Some(names.take_existing()),
            ),
            Mode::Update => (
                Some(names.take_repeated("DESC")),
                Some(names.find_changed()),
            ),
        };
        if let Some(statement) = repeated {
            self.execute(connection, &statement).await?;
        }
        // The table is locked as late as possible, because other writers wait.
        if !self.lock(connection).await? {
            return Ok(false);
        }
        if let Some(statement) = existing {
            self.execute(connection, &statement).await?;
            self.execute(connection, statements::ANALYZE_STATES).await?;
        }
        Ok(true)
    }

    /// Stores the rows that are left.
    async fn apply_all(&mut self, connection: &mut PgConnection) -> sqlx::Result<()> {
        self.kept = Kept::read(connection, self.staged).await?;
        for _ in 0..ROUNDS {
            match self.attempt(connection, Step::Apply, &ALL_ROWS).await? {
                None if !self.has_waiting => return Ok(()),
                None => {
                    self.execute(connection, statements::MARK).await?;
                    self.put_back(connection).await?;
                }
                Some(fault) => {
                    check_duration(self.started, TOO_LONG)?;
                    let is_excluded = self.exclude(connection, fault).await?;
                    if self.too_many().is_some() {
                        return Ok(());
                    }
                    if !is_excluded {
                        break;
                    }
                }
            }
        }
        self.put_back(connection).await?;
        self.staged.limit_statements(connection).await?;
        let numbers = sqlx::query_scalar::<Postgres, i64>(statements::LEFT)
            .persistent(false)
            .fetch_all(&mut *connection)
            .await?;
        self.divide(connection, Step::Apply, &numbers).await
    }

    /// Runs a step for a range of rows. If a row violates a constraint, nothing changes, and the
    /// fault is returned.
    async fn attempt(
        &mut self,
        connection: &mut PgConnection,
        step: Step,
        range: &RangeInclusive<i64>,
    ) -> sqlx::Result<Option<Fault>> {
        self.staged.limit_statements(connection).await?;
        savepoint::begin_checked(connection).await?;
        let done = match step {
            Step::Fill => self.fill(connection, range).await.map(|()| 0),
            Step::Apply => self.apply(connection, range).await,
        };
        let dataset = &self.staged.dataset;
        let mut fault = match savepoint::settle(connection, done, dataset).await? {
            Ok(stored) => {
                self.stored += stored;
                return Ok(None);
            }
            Err(fault) => fault,
        };
        // The end of the savepoint has restored an earlier limit.
        self.staged.limit_statements(connection).await?;
        self.only_columns
            .name(connection, dataset, &mut fault)
            .await?;
        Ok(Some(fault))
    }

    async fn fill(
        &self,
        connection: &mut PgConnection,
        range: &RangeInclusive<i64>,
    ) -> sqlx::Result<()> {
        sqlx::query(&self.names.fill())
            .persistent(false)
            .bind(*range.start())
            .bind(*range.end())
            .bind(self.staged.source.number)
            .execute(connection)
            .await?;
        Ok(())
    }

    /// The numbers of the staged rows, in order.
    async fn staged_rows(&self, connection: &mut PgConnection) -> sqlx::Result<Vec<i64>> {
        self.staged.limit_statements(connection).await?;
        sqlx::query_scalar::<Postgres, i64>(&self.names.staged_rows())
            .persistent(false)
            .bind(self.staged.source.number)
            .fetch_all(connection)
            .await
    }

    /// Runs a step for ranges of these rows. A range that fails is divided, and a row that fails
    /// alone is rejected. Stops when too many rows are rejected.
    async fn divide(
        &mut self,
        connection: &mut PgConnection,
        step: Step,
        numbers: &[i64],
    ) -> sqlx::Result<()> {
        let mut split = Split::new(numbers.len());
        while let Some(range) = split.next_range() {
            check_duration(self.started, TOO_LONG)?;
            let rows = numbers[range.start]..=numbers[range.end - 1];
            let Some(fault) = self.attempt(connection, step, &rows).await? else {
                split.succeed(&range);
                continue;
            };
            let Some(index) = split.fail(range, None, false) else {
                continue;
            };
            self.reject(connection, step, numbers[index], fault.violation)
                .await?;
            if self.too_many().is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn reject(
        &mut self,
        connection: &mut PgConnection,
        step: Step,
        number: i64,
        violation: Violation,
    ) -> sqlx::Result<()> {
        let reject = match step {
            Step::Fill => statements::REJECT_UNREAD,
            Step::Apply => statements::REJECT,
        };
        self.staged.limit_statements(connection).await?;
        sqlx::query(reject)
            .persistent(false)
            .bind(number)
            .execute(connection)
            .await?;
        self.rejects.add(&[number], violation);
        Ok(())
    }

    /// Puts the rows back that wait until others are stored.
    async fn put_back(&mut self, connection: &mut PgConnection) -> sqlx::Result<()> {
        self.execute(connection, statements::PUT_BACK).await?;
        self.has_waiting = false;
        Ok(())
    }

    /// Runs a statement, and returns how many rows it changed. The temporary table is another one
    /// in each merge, so no statement on it is kept prepared.
    async fn execute(&self, connection: &mut PgConnection, statement: &str) -> sqlx::Result<u64> {
        self.staged.limit_statements(connection).await?;
        let done = sqlx::query(statement)
            .persistent(false)
            .execute(connection)
            .await?;
        Ok(done.rows_affected())
    }
}
