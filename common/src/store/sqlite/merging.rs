//! Merges the staged rows of an upload into the table of its dataset, in the transaction that
//! completes the upload.

mod statements;

use std::time::{Duration, Instant};

use sqlx::SqliteConnection;
use sqlx::types::Json;

use self::statements::{DUPLICATE, MEETS_ROWS_TO_REMOVE, REJECTED, Statements};
use super::constraints::check_taken;
use super::dividing::{self, IdRange};
use super::uploads::find_in;
use super::{first_id, last_id, now, rejects};
use crate::dataset::Mode;
use crate::rejects::RejectedRow;
use crate::sqlite::Database;
use crate::store::sql::invalid;
use crate::store::violations::{StagedRow, Violation, rejected_staged_row};
use crate::store::{Completed, rules};
use crate::upload::{Merge, Status, Upload, UploadDataset, UploadKey};

/// How long the rows that violate a constraint are searched for. All other writers wait meanwhile.
const SEARCH_LIMIT: Duration = Duration::from_secs(10 * 60);

/// An upload whose rows are all staged.
struct Staged {
    upload: Upload,
    dataset: UploadDataset,
    merge: Merge,
    /// The upload's number in the ids of its rows.
    number: i64,
}

impl Staged {
    fn all(&self) -> IdRange {
        IdRange {
            first: first_id(self.number),
            last: last_id(self.number),
        }
    }
}

/// The rows that the table does not take.
#[derive(Default)]
struct Rejected {
    rows: Vec<RejectedRow>,
    /// The number of all rejected rows of the upload, if it is too large.
    too_many: Option<u64>,
}

/// Merges an upload that is being processed, and completes it.
pub(super) async fn complete(database: &Database, key: UploadKey) -> sqlx::Result<Completed> {
    let completed = try_complete(database, key).await;
    completed.map_err(|error| match is_changed_by_hand(&error) {
        true => invalid(error),
        false => error,
    })
}

/// Whether the table or a column is missing, because somebody has changed it by hand. No later
/// attempt would succeed.
fn is_changed_by_hand(error: &sqlx::Error) -> bool {
    const ERROR: &str = "1";
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == ERROR)
}

async fn try_complete(database: &Database, key: UploadKey) -> sqlx::Result<Completed> {
    let mut transaction = database.begin().await?;
    let Some(staged) = find_staged(&mut transaction, key).await? else {
        transaction.commit().await?;
        return Ok(Completed::No);
    };
    dividing::execute(&mut transaction, "SAVEPOINT carga_merge").await?;
    prepare(&mut transaction, &staged).await?;
    if must_wait(&mut transaction, &staged).await? {
        // Without a commit, all of it is undone. A later call merges the upload.
        return Ok(Completed::No);
    }
    let rejected = merge(&mut transaction, &staged).await?;
    if rejected.too_many.is_some() {
        dividing::execute(&mut transaction, "ROLLBACK TO carga_merge").await?;
    }
    dividing::execute(&mut transaction, "RELEASE carga_merge").await?;
    rejects::insert(&mut transaction, staged.number, &rejected.rows).await?;
    let completed = match rejected.too_many {
        Some(rejected) => Completed::TooManyRejects { rejected },
        None => {
            record(&mut transaction, &staged).await?;
            dividing::execute(&mut transaction, "DROP TABLE temp.carga_merge").await?;
            Completed::Yes
        }
    };
    transaction.commit().await?;
    Ok(completed)
}

/// Returns `None` if the upload has ended, or has rows that are not accounted for.
async fn find_staged(
    connection: &mut SqliteConnection,
    key: UploadKey,
) -> sqlx::Result<Option<Staged>> {
    let Some(mut upload) = find_in(connection, key.id).await? else {
        return Ok(None);
    };
    let dataset = upload.dataset.take();
    let merge = dataset.as_ref().and_then(|dataset| dataset.merge.clone());
    let (Some(dataset), Some(merge)) = (dataset, merge) else {
        return Ok(None);
    };
    if upload.key() != key || upload.status != Status::Processing {
        return Ok(None);
    }
    let rejected = rejects::count(connection, key.id).await?;
    let number: Option<i64> = sqlx::query_scalar(
        "SELECT u.number FROM uploads u,
             (SELECT count(*) AS batches, coalesce(sum(rows), 0) AS rows
              FROM batches WHERE upload_id = $1 AND epoch = $2) l
         WHERE u.id = $1 AND u.batches_total = l.batches AND u.rows_read = l.rows + u.rows_rejected
           AND u.rows_rejected = $3",
    )
    .bind(key.id.to_string())
    .bind(key.epoch.get())
    .bind(rejected)
    .fetch_optional(connection)
    .await?;
    Ok(number.map(|number| Staged {
        upload,
        dataset,
        merge,
        number,
    }))
}

/// Finds what happens to each row.
async fn prepare(connection: &mut SqliteConnection, staged: &Staged) -> sqlx::Result<()> {
    let statements = Statements::new(&staged.dataset, &staged.merge);
    for statement in statements.preparation() {
        run(connection, &statement, staged, staged.all()).await?;
    }
    Ok(())
}

/// Whether the merge must wait until rows of other uploads are removed. Rows that are ignored
/// because of them would be in the table no more.
async fn must_wait(connection: &mut SqliteConnection, staged: &Staged) -> sqlx::Result<bool> {
    if staged.merge.mode != Mode::Ignore {
        return Ok(false);
    }
    sqlx::query_scalar(MEETS_ROWS_TO_REMOVE)
        .fetch_one(connection)
        .await
}

/// Writes the rows to the table. If too many are rejected, it stops, and the caller undoes all.
async fn merge(connection: &mut SqliteConnection, staged: &Staged) -> sqlx::Result<Rejected> {
    let started = Instant::now();
    let writing = Statements::new(&staged.dataset, &staged.merge).writing();
    let mut rejected = Rejected::default();
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
                let row = reject(connection, staged, range.first, &violation).await?;
                rejected.rows.push(row);
                let violating = rejected.rows.len() as u64;
                rejected.too_many =
                    rules::too_many_rejects(&staged.upload, &staged.dataset, violating);
                if rejected.too_many.is_some() {
                    break;
                }
            }
        }
    }
    Ok(rejected)
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
        .bind(staged.upload.id.to_string())
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
    sqlx::query("DELETE FROM previous_rows WHERE id = $1")
        .bind(id)
        .execute(&mut *connection)
        .await?;
    let fields: Json<Vec<Option<String>>> =
        sqlx::query_scalar("SELECT fields FROM rows WHERE id = $1")
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
    rejected_staged_row(&row, &staged.dataset, &staged.upload.columns, violation)
        .map_err(|error| sqlx::Error::Decode(error.into()))
}

/// Records the outcomes of all rows, and deletes the staged rows.
async fn record(connection: &mut SqliteConnection, staged: &Staged) -> sqlx::Result<()> {
    let Staged { upload, number, .. } = staged;
    record_batches(connection, staged).await?;
    sqlx::query("DELETE FROM rows WHERE id BETWEEN $1 AND $2")
        .bind(first_id(*number))
        .bind(last_id(*number))
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "UPDATE uploads
         SET status = CASE WHEN rows_rejected + m.violating = 0 THEN 'completed' ELSE 'partial' END,
             rows_inserted = m.inserted, rows_updated = m.updated, rows_duplicate = m.duplicate,
             rows_violating = m.violating, updated_at = $2, finished_at = $2
         FROM (SELECT count(*) FILTER (WHERE outcome = 0 AND partner IS NULL) AS inserted,
                      count(*) FILTER (WHERE outcome = 0 AND partner IS NOT NULL) AS updated,
                      count(*) FILTER (WHERE outcome = $3) AS duplicate,
                      count(*) FILTER (WHERE outcome = $4) AS violating
               FROM temp.carga_merge) m
         WHERE uploads.id = $1",
    )
    .bind(upload.id.to_string())
    .bind(now())
    .bind(DUPLICATE)
    .bind(REJECTED)
    .execute(connection)
    .await?;
    Ok(())
}

/// Records the outcomes in the ledger. The rows of a batch end before the first row of the next
/// one.
async fn record_batches(connection: &mut SqliteConnection, staged: &Staged) -> sqlx::Result<()> {
    let key = staged.upload.key();
    sqlx::query(
        "WITH ranges AS
             (SELECT seq, $3 + first_row AS first_id,
                     $3 + lead(first_row, 1, 1 << 36) OVER (ORDER BY first_row) - 1 AS last_id
              FROM batches WHERE upload_id = $1 AND epoch = $2 AND rows > 0),
         counts AS
             (SELECT r.seq, count(*) FILTER (WHERE m.outcome = $4) AS duplicate,
                     count(*) FILTER (WHERE m.outcome = $5) AS rejected,
                     count(*) FILTER (WHERE m.outcome = 0 AND m.partner IS NOT NULL) AS updated
              FROM ranges r CROSS JOIN temp.carga_merge m ON m.id BETWEEN r.first_id AND r.last_id
              GROUP BY r.seq)
         UPDATE batches AS b
         SET rejected = c.rejected, updated = c.updated, duplicate = c.duplicate
         FROM counts c
         WHERE b.upload_id = $1 AND b.epoch = $2 AND b.seq = c.seq",
    )
    .bind(key.id.to_string())
    .bind(key.epoch.get())
    .bind(first_id(staged.number))
    .bind(DUPLICATE)
    .bind(REJECTED)
    .execute(connection)
    .await?;
    Ok(())
}
