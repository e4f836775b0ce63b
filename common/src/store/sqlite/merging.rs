//! Merges the staged rows of an upload into the table of its dataset, in the transaction that
//! completes the upload.

pub(super) mod merger;
mod statements;

use sqlx::SqliteConnection;

use self::merger::Staged;
use self::statements::{DUPLICATE, REJECTED};
use super::dead_letters::forget_stored;
use super::upload_record::find_in;
use super::{dividing, first_id, last_id, now, rejects};
use crate::sqlite::Database;
use crate::store::Completed;
use crate::store::sql::invalid;
use crate::upload::{Status, UploadKey};

/// Merges an upload that is being processed, and completes it.
pub(super) async fn complete(database: &Database, key: UploadKey) -> sqlx::Result<Completed> {
    try_complete(database, key).await.map_err(lasting_refusal)
}

/// Makes the error of a missing table or column *invalid*: somebody has changed the table by hand,
/// and no later attempt would succeed.
pub(super) fn lasting_refusal(error: sqlx::Error) -> sqlx::Error {
    const ERROR: &str = "1";
    let code = error.as_database_error().and_then(|error| error.code());
    match code.is_some_and(|code| code == ERROR) {
        true => invalid(error),
        false => error,
    }
}

async fn try_complete(database: &Database, key: UploadKey) -> sqlx::Result<Completed> {
    let mut transaction = database.begin().await?;
    let Some(staged) = find_staged(&mut transaction, key).await? else {
        transaction.commit().await?;
        return Ok(Completed::No);
    };
    dividing::execute(&mut transaction, "SAVEPOINT carga_merge").await?;
    merger::prepare(&mut transaction, &staged).await?;
    if merger::must_wait(&mut transaction, &staged).await? {
        // Without a commit, all of it is undone. A later call merges the upload.
        return Ok(Completed::No);
    }
    merger::keep_previous(&mut transaction, &staged).await?;
    let mut kept = Vec::new();
    let too_many = merger::merge(&mut transaction, &staged, |row| kept.push(row)).await?;
    if too_many.is_some() {
        dividing::execute(&mut transaction, "ROLLBACK TO carga_merge").await?;
    }
    dividing::execute(&mut transaction, "RELEASE carga_merge").await?;
    rejects::insert(&mut transaction, staged.number, &kept).await?;
    let completed = match too_many {
        Some(rejected) => Completed::TooManyRejects { rejected },
        None => {
            record(&mut transaction, &staged).await?;
            forget_stored(&mut transaction, key.id).await?;
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
        key,
        columns: upload.columns,
        rows_read: upload.rows_read,
        rows_rejected: upload.rows_rejected,
        dataset,
        merge,
        number,
        source: "rows",
    }))
}

/// Records the outcomes of all rows, and deletes the staged rows. The rows that rejected rows would
/// have replaced need not be kept.
async fn record(connection: &mut SqliteConnection, staged: &Staged) -> sqlx::Result<()> {
    record_batches(connection, staged).await?;
    sqlx::query(
        "DELETE FROM previous_rows
         WHERE id IN (SELECT id FROM temp.carga_merge WHERE outcome = $1)",
    )
    .bind(REJECTED)
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM rows WHERE id BETWEEN $1 AND $2")
        .bind(first_id(staged.number))
        .bind(last_id(staged.number))
        .execute(&mut *connection)
        .await?;
    let outcomes = merger::outcomes(connection).await?;
    sqlx::query(
        "UPDATE uploads
         SET status = CASE WHEN rows_rejected + $6 = 0 THEN 'completed' ELSE 'partial' END,
             rows_inserted = $3, rows_updated = $4, rows_duplicate = $5, rows_violating = $6,
             updated_at = $2, finished_at = $2
         WHERE id = $1",
    )
    .bind(staged.key.id.to_string())
    .bind(now())
    .bind(outcomes.inserted)
    .bind(outcomes.updated)
    .bind(outcomes.duplicate)
    .bind(outcomes.rejected)
    .execute(connection)
    .await?;
    Ok(())
}

/// Records the outcomes in the ledger. The rows of a batch end before the first row of the next
/// one.
async fn record_batches(connection: &mut SqliteConnection, staged: &Staged) -> sqlx::Result<()> {
    let key = staged.key;
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
