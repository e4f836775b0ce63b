//! Writes staged rows to the table of their dataset, and finds the rows that violate a constraint.
//! The caller commits the transaction of an upload, and rolls that of a trial back.

use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;
use sqlx::{Row, SqliteConnection};

use super::statements::{COUNTS, DUPLICATE, MEETS_ROWS_TO_REMOVE, REJECTED, Statements, WRITTEN};
use crate::dataset::Mode;
use crate::rejects::RejectedRow;
use crate::store::rules;
use crate::store::sql::invalid;
use crate::store::sqlite::constraints::check_taken;
use crate::store::sqlite::dividing::{self, IdRange};
use crate::store::sqlite::{first_id, last_id};
use crate::store::violations::{StagedRow, Violation, rejected_staged_row};
use crate::upload::{Merge, UploadDataset, UploadKey};

/// How long the rows that violate a constraint are searched for. All other writers wait meanwhile.
const SEARCH_LIMIT: Duration = Duration::from_secs(10 * 60);

/// Rows of a file that are all staged, and the dataset whose table gets them.
pub(in crate::store::sqlite) struct Staged {
    /// The upload of the rows. The upload of a trial is not recorded.
    pub(in crate::store::sqlite) key: UploadKey,
    /// The columns of the file.
    pub(in crate::store::sqlite) columns: Vec<String>,
    pub(in crate::store::sqlite) rows_read: u64,
    /// The rows that were rejected while the file was read.
    pub(in crate::store::sqlite) rows_rejected: u64,
    pub(in crate::store::sqlite) dataset: UploadDataset,
    pub(in crate::store::sqlite) merge: Merge,
    /// The upload's number in the ids of its rows.
    pub(in crate::store::sqlite) number: i64,
    /// The table of the staged rows: `rows`, or a table with the same columns.
    pub(in crate::store::sqlite) source: &'static str,
}

impl Staged {
    fn all(&self) -> IdRange {
        IdRange {
            first: first_id(self.number),
            last: last_id(self.number),
        }
    }

    fn statements(&self) -> Statements<'_> {
        Statements::new(&self.dataset, &self.merge, self.source)
    }

    /// The names of the columns in [`Changes`].
    pub(in crate::store::sqlite) fn compared(&self) -> Vec<&str> {
        let compared = self.statements().compared().into_iter();
        compared.map(|(_, column)| column.name.as_str()).collect()
    }
}

/// How many rows have each outcome.
pub(in crate::store::sqlite) struct Outcomes {
    pub(in crate::store::sqlite) inserted: i64,
    pub(in crate::store::sqlite) updated: i64,
    pub(in crate::store::sqlite) duplicate: i64,
    pub(in crate::store::sqlite) rejected: i64,
}

/// Finds what happens to each row.
pub(in crate::store::sqlite) async fn prepare(
    connection: &mut SqliteConnection,
    staged: &Staged,
) -> sqlx::Result<()> {
    for statement in staged.statements().preparation() {
        run(connection, &statement, staged, staged.all()).await?;
    }
    Ok(())
}

/// Keeps the rows that will be replaced. An undo needs them.
pub(super) async fn keep_previous(
    connection: &mut SqliteConnection,
    staged: &Staged,
) -> sqlx::Result<()> {
    if let Some(statement) = staged.statements().keep_previous() {
        run(connection, &statement, staged, staged.all()).await?;
    }
    Ok(())
}

/// Whether the merge must wait until rows of other uploads are removed. Rows that are ignored
/// because of them would be in the table no more.
pub(in crate::store::sqlite) async fn must_wait(
    connection: &mut SqliteConnection,
    staged: &Staged,
) -> sqlx::Result<bool> {
    if staged.merge.mode != Mode::Ignore {
        return Ok(false);
    }
    sqlx::query_scalar(MEETS_ROWS_TO_REMOVE)
        .fetch_one(connection)
        .await
}

/// Writes the rows to the table. Each row that the table does not take goes to `keep`, in the order
/// of the file. If too many rows of the file are rejected, it stops and returns their number. The
/// caller must then undo all.
pub(in crate::store::sqlite) async fn merge(
    connection: &mut SqliteConnection,
    staged: &Staged,
    mut keep: impl FnMut(RejectedRow) + Send,
) -> sqlx::Result<Option<u64>> {
    let started = Instant::now();
    let writing = staged.statements().writing();
    let mut violating = 0;
    // The next range is the last one here, so that rows are written in the order of the file.
    let mut waiting: Vec<IdRange> = unwritten(connection).await?.into_iter().collect();
    while let Some(range) = waiting.pop() {
        check_time(started)?;
        dividing::begin(connection).await?;
        let written = write(connection, &writing, staged, range).await;
        let written = dividing::end(connection, written, &staged.dataset).await?;
        match (written, range.halves()) {
            (Ok(()), _) => {}
            (Err(_), Some([first, second])) => waiting.extend([second, first]),
            (Err(violation), None) => {
                keep(reject(connection, staged, range.first, &violation).await?);
                violating += 1;
                let figures = (staged.rows_read, staged.rows_rejected);
                let limit = staged.dataset.reject_limit;
                let too_many = rules::too_many_rejects(limit, figures, violating);
                if too_many.is_some() {
                    return Ok(too_many);
                }
            }
        }
    }
    Ok(None)
}

/// Fails if the search for violating rows takes too long. The upload must then fail, since the next
/// merge would take as long.
fn check_time(started: Instant) -> sqlx::Result<()> {
    if started.elapsed() < SEARCH_LIMIT {
        return Ok(());
    }
    Err(invalid(
        "merging the rows takes longer than 10 minutes, because many of them violate a constraint; set max_rejects, or change the trigger or constraint of the table",
    ))
}

/// The rows that are to be written.
async fn unwritten(connection: &mut SqliteConnection) -> sqlx::Result<Option<IdRange>> {
    let (first, last): (Option<i64>, Option<i64>) =
        sqlx::query_as("SELECT min(id), max(id) FROM temp.carga_merge WHERE outcome = 0")
            .fetch_one(connection)
            .await?;
    let range = first.zip(last);
    Ok(range.map(|(first, last)| IdRange { first, last }))
}

async fn write(
    connection: &mut SqliteConnection,
    statements: &[String],
    staged: &Staged,
    range: IdRange,
) -> sqlx::Result<()> {
    let mut taken = 0;
    for statement in statements {
        taken += run(connection, statement, staged, range).await?;
    }
    let given: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM temp.carga_merge WHERE outcome = 0 AND id BETWEEN $1 AND $2",
    )
    .bind(range.first)
    .bind(range.last)
    .fetch_one(connection)
    .await?;
    check_taken(given.cast_unsigned(), taken)
}

/// Runs a statement of [`Statements`], and returns how many rows it writes. It is not kept, since
/// each dataset has its own.
async fn run(
    connection: &mut SqliteConnection,
    statement: &str,
    staged: &Staged,
    range: IdRange,
) -> sqlx::Result<u64> {
    let done = sqlx::query(statement)
        .persistent(false)
        .bind(range.first)
        .bind(range.last)
        .bind(staged.key.id.to_string())
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// Takes a row out of the merge, and makes a rejected row of it.
async fn reject(
    connection: &mut SqliteConnection,
    staged: &Staged,
    id: i64,
    violation: &Violation,
) -> sqlx::Result<RejectedRow> {
    sqlx::query("UPDATE temp.carga_merge SET outcome = $2 WHERE id = $1")
        .bind(id)
        .bind(REJECTED)
        .execute(&mut *connection)
        .await?;
    let fields = format!("SELECT fields FROM {} WHERE id = $1", staged.source);
    let fields: Json<Vec<Option<String>>> = sqlx::query_scalar(&fields)
        .bind(id)
        .fetch_one(connection)
        .await?;
    let mut cells = fields.0;
    let origin = cells.pop().flatten().unwrap_or_default();
    let row = StagedRow {
        number: (id - first_id(staged.number)).cast_unsigned(),
        origin: &origin,
        cells: &cells,
    };
    rejected_staged_row(&row, &staged.dataset, &staged.columns, violation)
        .map_err(|error| sqlx::Error::Decode(error.into()))
}

/// Counts the rows of a merge that has ended.
pub(in crate::store::sqlite) async fn outcomes(
    connection: &mut SqliteConnection,
) -> sqlx::Result<Outcomes> {
    let (inserted, updated, duplicate, rejected): (i64, i64, i64, i64) = sqlx::query_as(COUNTS)
        .bind(WRITTEN)
        .bind(DUPLICATE)
        .bind(REJECTED)
        .fetch_one(connection)
        .await?;
    Ok(Outcomes {
        inserted,
        updated,
        duplicate,
        rejected,
    })
}

/// How many rows would change each compared column of their partner. The table has the new values
/// after the merge, so the changes are counted before it. Call [`Changes::without_rejected`] after
/// it.
pub(in crate::store::sqlite) struct Changes(Vec<i64>);

impl Changes {
    /// Counts the changes of the rows that will be written.
    pub(in crate::store::sqlite) async fn count(
        connection: &mut SqliteConnection,
        staged: &Staged,
    ) -> sqlx::Result<Self> {
        Ok(Self(changes(connection, staged, WRITTEN).await?))
    }

    /// The changes without those of rejected rows, in the order of the columns. The partners of
    /// these rows still have their values.
    pub(in crate::store::sqlite) async fn without_rejected(
        self,
        connection: &mut SqliteConnection,
        staged: &Staged,
    ) -> sqlx::Result<Vec<i64>> {
        let rejected = changes(connection, staged, REJECTED).await?;
        let pairs = self.0.into_iter().zip(rejected);
        Ok(pairs.map(|(all, rejected)| all - rejected).collect())
    }
}

async fn changes(
    connection: &mut SqliteConnection,
    staged: &Staged,
    outcome: i64,
) -> sqlx::Result<Vec<i64>> {
    let Some(statement) = staged.statements().count_changes(outcome) else {
        return Ok(Vec::new());
    };
    let row: SqliteRow = sqlx::query(&statement)
        .persistent(false)
        .fetch_one(connection)
        .await?;
    (0..row.len()).map(|column| row.try_get(column)).collect()
}
