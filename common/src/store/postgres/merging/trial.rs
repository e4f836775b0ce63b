//! Trials: merges that are rolled back.

use std::collections::BTreeMap;

use sqlx::{Executor, PgConnection, Postgres};

use super::merger::Merger;
use super::outcomes::read_rejected;
use super::rejects::Rejects;
use super::statements::CREATE_CHANGES;
use super::{Deadline, EXACT_TEXTS, PLAN, Source, Staged, lasting_refusal, user_table};
use crate::dataset::Mode;
use crate::rejects::RejectedRow;
use crate::store::postgres::datasets::WAIT_BRIEFLY;
use crate::store::sql::{self, count};
use crate::store::{Completed, Difference, FirstRejects, TRIAL_REJECTS, Trial, Tried};
use crate::upload::{UploadId, UploadKey};

/// How many rows are inserted, updated, duplicates and rejected, and how many wait.
const COUNTS: &str = "SELECT count(*) FILTER (WHERE _carga_state IN ('n', 'i')),
        count(*) FILTER (WHERE _carga_state IN ('c', 'u')),
        count(*) FILTER (WHERE _carga_state = 'd'),
        count(*) FILTER (WHERE _carga_state = 'v'),
        count(*) FILTER (WHERE _carga_state = 'a')
    FROM pg_temp.carga_merge";

/// The staged rows of a trial.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::postgres) struct TrialRows {
    /// A table with the columns of `landing`.
    pub(in crate::store::postgres) table: &'static str,
    /// The number in its column `upload`.
    pub(in crate::store::postgres) number: i64,
    pub(in crate::store::postgres) count: i64,
}

/// Merges the staged rows of a trial, and counts what the merge has done. The caller must roll the
/// transaction back. Returns `None` if an upload would have to wait.
pub(in crate::store::postgres) async fn try_rows(
    connection: &mut PgConnection,
    trial: &Trial,
    rows: TrialRows,
    deadline: Deadline,
) -> sqlx::Result<Option<Tried>> {
    deadline.limit_statements(connection).await?;
    // A merge waits for other merges into a table of Carga. Here a client waits for the answer.
    for setting in [EXACT_TEXTS, PLAN, WAIT_BRIEFLY] {
        sqlx::query(setting).execute(&mut *connection).await?;
    }
    let staged = staged(connection, trial, rows, deadline).await?;
    connection.execute(CREATE_CHANGES).await?;
    let mut merger = Merger::new(&staged);
    let merged = merger.run(connection).await;
    match merged.map_err(lasting_refusal)? {
        Completed::No => Ok(None),
        Completed::TooManyRejects { rejected } => {
            let rejects = first_rejects(connection, &staged, merger.rejects(), 1).await?;
            let first = rejects.into_iter().next();
            Ok(Some(Tried::TooManyRejects { rejected, first }))
        }
        Completed::Yes => {
            let mut difference = counts(connection, &staged, &merger).await?;
            difference.changed_columns = changed_columns(connection, &merger, &staged).await?;
            let rejects = first_rejects(connection, &staged, merger.rejects(), TRIAL_REJECTS);
            difference.rejects = rejects.await?;
            Ok(Some(Tried::Difference(difference)))
        }
    }
}

async fn staged(
    connection: &mut PgConnection,
    trial: &Trial,
    rows: TrialRows,
    deadline: Deadline,
) -> sqlx::Result<Staged> {
    let dataset = trial.dataset.clone();
    let Some(merge) = dataset.merge.clone() else {
        return Err(sql::invalid("the dataset of a trial has no mode"));
    };
    let table = user_table(connection, &dataset).await?;
    Ok(Staged {
        key: UploadKey::first(UploadId::generate()),
        columns: trial.columns.clone(),
        rows_read: trial.rows_read,
        rows_rejected: trial.rows_rejected,
        dataset,
        merge,
        table,
        source: Source {
            table: rows.table,
            number: rows.number,
        },
        rows: rows.count,
        deadline: Some(deadline),
    })
}

async fn counts(
    connection: &mut PgConnection,
    staged: &Staged,
    merger: &Merger<'_>,
) -> sqlx::Result<Difference> {
    staged.limit_statements(connection).await?;
    let counted = sqlx::query_as::<Postgres, (i64, i64, i64, i64, i64)>(COUNTS)
        .persistent(false)
        .fetch_one(connection)
        .await?;
    let (inserted, updated, duplicate, rejected, waiting) = counted;
    if waiting > 0 || inserted + updated != merger.stored() {
        return Err(sqlx::Error::Decode("the trial has left rows".into()));
    }
    Ok(Difference {
        inserted: count("inserted", inserted)?,
        updated: count("updated", updated)?,
        duplicate: count("duplicate", duplicate)?,
        rejected: count("rejected", rejected)?,
        ..Difference::default()
    })
}

/// How many of the updated rows have another value in each column. A column without such a row is
/// missing.
async fn changed_columns(
    connection: &mut PgConnection,
    merger: &Merger<'_>,
    staged: &Staged,
) -> sqlx::Result<BTreeMap<String, u64>> {
    let is_update = staged.merge.mode == Mode::Update;
    let Some(statement) = merger.count_changes().filter(|_| is_update) else {
        return Ok(BTreeMap::new());
    };
    staged.limit_statements(connection).await?;
    let counted = sqlx::query_scalar::<Postgres, Vec<i64>>(&statement)
        .persistent(false)
        .fetch_one(connection)
        .await?;
    let key = &staged.merge.key;
    let written = staged.dataset.written_names().into_iter();
    let others = written.filter(|name| key.iter().all(|column| column != name));
    sql::changed_columns(others, counted)
}

/// The first rejected rows, at most this many.
async fn first_rejects(
    connection: &mut PgConnection,
    staged: &Staged,
    rejects: &Rejects,
    count: usize,
) -> sqlx::Result<Vec<RejectedRow>> {
    let mut numbers = rejects.numbers();
    numbers.truncate(count);
    staged.limit_statements(connection).await?;
    let mut first = FirstRejects::default();
    let keep = |row| first.push(row);
    read_rejected(connection, staged, rejects, &numbers, keep).await?;
    Ok(first.into_rows())
}
