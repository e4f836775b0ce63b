//! Stores rows in the tables of datasets, and finds the rows that violate a constraint of their
//! table. The other rows are stored.
//!
//! 1. All rows are sent in one COPY under a savepoint. If no row violates a constraint, this is
//!    all.
//! 2. Otherwise the error names the line of the COPY, also in the binary format, and the COPY is
//!    sent again without this row. This happens a few times at most.
//! 3. If there are more violating rows, or if the error names no line, the rest goes into a
//!    temporary table (`staging`). From there the rows that violate the same constraint are removed
//!    together.
//! 4. Rows for which this is not possible are divided into ranges, and each range is a COPY
//!    (`splitting`).
//!
//! The counts are exact on each of these ways. Of two rows with the same unique value, the first in
//! the order of the files is stored. Only if rows violate several unique constraints, it may depend
//! on the way which of them are stored.

pub(super) mod constraints;
mod dirty;
pub(super) mod fault;
mod rows;
pub(super) mod splitting;
mod staging;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::{Duration, Instant};

use sqlx::PgConnection;

use self::constraints::OnlyColumns;
pub(super) use self::dirty::DirtyTables;
use self::fault::Fault;
use self::rows::TableRows;
use super::copy::typed as copy;
use super::{datasets, has_code, savepoint};
use crate::batch::Batch;
use crate::store::sql;
use crate::store::violations::Violation;
use crate::upload::{UploadDataset, UploadId};

/// The violating rows of batches: the index of the batch in the list that was stored, then the
/// index of the row in the batch.
pub(super) type Violations = BTreeMap<usize, BTreeMap<usize, Violation>>;

/// How often a COPY is repeated without the row that its error names.
const RETRIES: usize = 3;

/// The time for the rows of one call, once rows must be sent again. A call that takes longer than
/// `connections::LONG` is *unavailable*, and the worker would repeat it without end. This limit is
/// below that, and makes the call *invalid*: the worker then stores batch by batch, and a batch
/// that takes too long alone becomes a dead letter.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Stores every row of the batches in the table of its dataset, except those that violate a
/// constraint. Returns the violating rows.
pub(super) async fn store(
    connection: &mut PgConnection,
    batches: &[&Batch],
    datasets: &HashMap<UploadId, UploadDataset>,
    dirty: &DirtyTables,
) -> sqlx::Result<Violations> {
    // One COPY for each table and list of columns: an upload that began before a column was added
    // does not have it. In a fixed order, so that all workers lock the tables in the same order.
    let mut tables: BTreeMap<String, TableRows<'_>> = BTreeMap::new();
    for (position, &batch) in batches.iter().enumerate() {
        let dataset = &datasets[&batch.id.upload.id];
        check_columns(batch, dataset)?;
        let table = datasets::table_of(dataset);
        let statement = copy::statement(&table, &dataset.columns);
        let rows = tables
            .entry(statement)
            .or_insert_with(|| TableRows::new(dataset));
        rows.push(position, batch, dataset);
    }
    let mut violations = Violations::new();
    let started = Instant::now();
    for (statement, rows) in &tables {
        let mut writer = TableWriter::new(rows, statement, started);
        let stored = writer.store(connection, dirty).await;
        stored.map_err(|error| match is_changed_by_hand(&error) {
            true => sql::invalid(error),
            false => error,
        })?;
        rows.divide(writer.violations, &mut violations);
    }
    Ok(violations)
}

pub(super) fn check_columns(batch: &Batch, dataset: &UploadDataset) -> sqlx::Result<()> {
    let names = dataset.columns.iter().map(|column| &column.name);
    match batch.columns.iter().eq(names) {
        true => Ok(()),
        false => Err(sql::invalid(
            "the columns of the batch are not those of its dataset",
        )),
    }
}

/// Whether the schema, the table or a column is missing, because somebody has changed it by hand.
/// Elsewhere such an error is *misconfigured*, and a worker stores nothing until an operator
/// repairs the fault. Here the batches of other uploads can still be stored.
pub(super) fn is_changed_by_hand(error: &sqlx::Error) -> bool {
    has_code(error, &["3F000", "42P01", "42703"])
}

/// Writes rows into one table. Rows are given by their indexes in `rows`.
#[derive(Debug)]
struct TableWriter<'a> {
    rows: &'a TableRows<'a>,
    /// Starts a COPY into the table.
    statement: &'a str,
    /// When the call began to store rows.
    started: Instant,
    /// The rows that are neither stored nor violating, in order. Known after the first violation.
    left: Vec<usize>,
    violations: BTreeMap<usize, Violation>,
    only_columns: OnlyColumns,
}

impl<'a> TableWriter<'a> {
    fn new(rows: &'a TableRows<'a>, statement: &'a str, started: Instant) -> Self {
        Self {
            rows,
            statement,
            started,
            left: Vec::new(),
            violations: BTreeMap::new(),
            only_columns: OnlyColumns::default(),
        }
    }

    fn dataset(&self) -> &'a UploadDataset {
        self.rows.dataset
    }

    /// Fails if the time is over. Called before rows are sent again.
    fn check_time(&self) -> sqlx::Result<()> {
        match self.started.elapsed() < TIME_LIMIT {
            true => Ok(()),
            false => Err(sql::invalid(format!(
                "storing the rows of the batch one by one takes too long: more than {} s for {}; \
                 drop a slow trigger of the table, or set a smaller CARGA_BATCH_ROWS",
                TIME_LIMIT.as_secs(),
                datasets::table_of(self.dataset()),
            ))),
        }
    }

    /// Stores all rows, or finds out that they violate a constraint.
    async fn store(
        &mut self,
        connection: &mut PgConnection,
        dirty: &DirtyTables,
    ) -> sqlx::Result<()> {
        let table = datasets::table_of(self.dataset());
        if dirty.contains(&table) {
            self.left = (0..self.rows.len()).collect();
        } else {
            self.copy_all(connection).await?;
        }
        if !self.left.is_empty() {
            self.put_back();
            staging::store(connection, self).await?;
        }
        if !self.left.is_empty() {
            splitting::store(connection, self).await?;
        }
        dirty.set(&table, !self.violations.is_empty());
        Ok(())
    }

    /// Sends all rows in one COPY, and repeats it a few times without violating rows.
    async fn copy_all(&mut self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let all = 0..self.rows.len();
        let mut found = self
            .try_copy(connection, std::slice::from_ref(&all))
            .await?;
        if found.is_some() {
            self.left = all.collect();
        }
        for _ in 0..RETRIES {
            let Some((place, fault)) = found.and_then(|fault| Some((fault.row?, fault))) else {
                return Ok(());
            };
            if place >= self.left.len() {
                return Ok(());
            }
            let index = self.left.remove(place);
            self.violations.insert(index, fault.violation);
            if self.left.is_empty() {
                return Ok(());
            }
            self.check_time()?;
            let runs = rows::runs(&self.left);
            found = self.try_copy(connection, &runs).await?;
            if found.is_none() {
                self.left.clear();
            }
        }
        Ok(())
    }

    /// Puts the rows back that were taken out because of other rows. Those may yet violate a
    /// constraint themselves, such as a foreign key, which is checked at the end of a COPY.
    fn put_back(&mut self) {
        let violations = std::mem::take(&mut self.violations).into_iter();
        let (put_back, violations): (BTreeMap<_, _>, BTreeMap<_, _>) =
            violations.partition(|(_, violation)| fault::depends_on_others(violation));
        self.violations = violations;
        self.left.extend(put_back.into_keys());
        self.left.sort_unstable();
    }

    /// Sends these runs of rows in one COPY. If a row violates a constraint, none is stored, and
    /// the fault is returned.
    async fn try_copy(
        &mut self,
        connection: &mut PgConnection,
        runs: &[Range<usize>],
    ) -> sqlx::Result<Option<Fault>> {
        savepoint::begin_checked(connection).await?;
        let segments = self.rows.segments(runs);
        let given: usize = runs.iter().map(Range::len).sum();
        let sent = copy::send_segments(connection, self.statement, segments).await;
        let sent = sent.and_then(|taken| fault::check_taken(given as u64, taken));
        let settled = self.settle(connection, sent).await?;
        Ok(settled.err())
    }

    /// Ends an attempt with this outcome. The inner result is the fault if a row violates a
    /// constraint.
    async fn settle<T>(
        &mut self,
        connection: &mut PgConnection,
        outcome: sqlx::Result<T>,
    ) -> sqlx::Result<Result<T, Fault>> {
        let dataset = self.dataset();
        self.only_columns.settle(connection, outcome, dataset).await
    }
}
