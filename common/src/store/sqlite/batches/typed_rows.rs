//! Inserts the rows of a batch into the table of a dataset, and finds the rows that violate a
//! constraint of the table.
//!
//! Rows that cannot be inserted together are halved, as in [`dividing`]. The halves are inserted
//! in the order of the file, so that of two rows with the same unique value the first is stored. A
//! trigger with `RAISE(IGNORE)` leaves a row out without an error, and this row is found in the
//! same way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx::SqliteConnection;
use sqlx::types::Json;

use super::runs::{Insert, Run};
use crate::batch::Batch;
use crate::store::sql::invalid;
use crate::store::sqlite::{dividing, rejects};
use crate::store::violations::{Violation, rejected_rows};
use crate::upload::UploadDataset;

/// The longest time of a group in which rows are halved. SQLite has one writer, so all other writes
/// wait meanwhile. Beyond it the worker stores the batches of the group one by one, and a batch
/// that is too slow alone becomes a dead letter.
const LONGEST: Duration = Duration::from_secs(30);

/// Inserts the rows of all runs but those that violate a constraint. Returns these by their index
/// in the batch. `started` is the time at which the group began.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    insert: &Insert<'_>,
    runs: &[Run],
    dataset: &UploadDataset,
    started: Instant,
) -> sqlx::Result<BTreeMap<usize, Violation>> {
    let mut search = Search::default();
    let found = insert_together(connection, insert, runs, dataset).await?;
    match (found, runs) {
        (None, _) => {}
        (Some(violation), [run]) => search.divide(*run, violation),
        (Some(_), _) => search.waiting.extend(runs.iter().rev()),
    }
    while let Some(run) = search.waiting.pop() {
        if started.elapsed() > LONGEST {
            return Err(too_slow());
        }
        if let Some(violation) = insert_together(connection, insert, &[run], dataset).await? {
            search.divide(run, violation);
        }
    }
    Ok(search.violations)
}

/// The search for violating rows.
#[derive(Default)]
struct Search {
    /// The runs that are not inserted yet. The next one is the last one here.
    waiting: Vec<Run>,
    violations: BTreeMap<usize, Violation>,
}

impl Search {
    /// Divides a run that could not be inserted. A single row is rejected.
    fn divide(&mut self, run: Run, violation: Violation) {
        match run.halves() {
            Some([first, second]) => self.waiting.extend([second, first]),
            None => {
                self.violations.insert(run.index, violation);
            }
        }
    }
}

fn too_slow() -> sqlx::Error {
    let seconds = LONGEST.as_secs();
    invalid(format!(
        "storing the rows of the batch one by one takes longer than {seconds} s; drop the slow trigger of the table, or set a smaller CARGA_BATCH_ROWS"
    ))
}

impl Run {
    /// Both halves, or `None` if it is a single row.
    fn halves(self) -> Option<[Self; 2]> {
        let half = self.count / 2;
        let first = Self {
            count: half,
            ..self
        };
        let second = Self {
            index: self.index + half,
            first_row: self.first_row + half as u64,
            count: self.count - half,
        };
        (half > 0).then_some([first, second])
    }
}

/// Inserts these rows, or none of them if one violates a constraint or is left out by a trigger.
/// Returns the violation.
async fn insert_together(
    connection: &mut SqliteConnection,
    insert: &Insert<'_>,
    runs: &[Run],
    dataset: &UploadDataset,
) -> sqlx::Result<Option<Violation>> {
    dividing::begin(connection).await?;
    let mut inserted = Ok(());
    for run in runs {
        inserted = insert.run(connection, *run).await;
        if inserted.is_err() {
            break;
        }
    }
    let inserted = dividing::end(connection, inserted, dataset).await?;
    Ok(inserted.err())
}

/// Writes the rejected rows of a batch. The upload is given by its number and its dataset.
pub(super) async fn reject(
    connection: &mut SqliteConnection,
    batch: &Batch,
    (number, dataset): (i64, &UploadDataset),
    violations: &BTreeMap<usize, Violation>,
) -> sqlx::Result<()> {
    let columns: Json<Vec<String>> =
        sqlx::query_scalar("SELECT columns FROM uploads WHERE number = $1")
            .bind(number)
            .fetch_one(&mut *connection)
            .await?;
    let rows = rejected_rows(batch, dataset, &columns, violations).map_err(invalid)?;
    rejects::insert(connection, number, &rows).await
}
