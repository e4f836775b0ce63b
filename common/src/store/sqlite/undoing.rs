//! Undoes an upload. The rows of a merged upload are taken back in the same transaction, because
//! the previous rows are restored in their place. The rows of any other upload are removed later.

use sqlx::SqliteConnection;
use sqlx::types::Json;

use super::dividing::{self, IdRange};
use super::{audit, first_id, last_id, now, previous_rows, typed_tables};
use crate::audit::Action;
use crate::sqlite::Database;
use crate::store::sql::count;
use crate::upload::{UndoneRows, UploadDataset, UploadKey};

/// The columns `number`, `dataset`, `rows_inserted` and `rows_updated` of an upload, and whether
/// the previous values of its rows are there.
type Found = (
    i64,
    Option<Json<UploadDataset>>,
    Option<i64>,
    Option<i64>,
    bool,
);

/// Returns whether this call undid the upload.
pub(super) async fn undo(database: &Database, key: UploadKey) -> sqlx::Result<bool> {
    let mut transaction = database.begin().await?;
    let found: Option<Found> = sqlx::query_as(
        "SELECT number, dataset, rows_inserted, rows_updated, is_reversible AND expired_at IS NULL
         FROM uploads WHERE id = $1 AND epoch = $2 AND status IN ('completed', 'partial')",
    )
    .bind(key.id.to_string())
    .bind(key.epoch.get())
    .fetch_optional(&mut *transaction)
    .await?;
    let Some((number, dataset, inserted, updated, is_reversible)) = found else {
        transaction.commit().await?;
        return Ok(false);
    };
    let merged = dataset.filter(|dataset| dataset.is_staged());
    let mut undone = None;
    if let Some(Json(dataset)) = merged {
        if !is_reversible {
            transaction.commit().await?;
            return Ok(false);
        }
        let written = inserted.unwrap_or(0) + updated.unwrap_or(0);
        let written = count("rows_inserted", written)?;
        undone = Some(take_back(&mut transaction, number, &dataset, written).await?);
    }
    record(&mut transaction, key, undone).await?;
    let written = audit::record_upload(&mut transaction, key.id, Action::UndoUpload).await?;
    transaction.commit().await?;
    written.log();
    Ok(true)
}

/// `undone` belongs to the next epoch, so messages of this epoch change nothing.
async fn record(
    connection: &mut SqliteConnection,
    key: UploadKey,
    undone: Option<UndoneRows>,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE uploads
         SET status = 'undone', epoch = epoch + 1, cleanup_pending = 1, archive_pending = 1,
             rows_inserted = NULL, rows_updated = NULL, rows_duplicate = NULL, rows_dead = NULL, undone = $2,
             updated_at = $3, finished_at = $3
         WHERE id = $1",
    )
    .bind(key.id.to_string())
    .bind(undone.map(Json))
    .bind(now())
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes back the rows that a merged upload wrote. A row that a later upload has replaced has
/// another id, and is kept.
async fn take_back(
    connection: &mut SqliteConnection,
    number: i64,
    dataset: &UploadDataset,
    written: u64,
) -> sqlx::Result<UndoneRows> {
    let mut undone = UndoneRows::default();
    // An operator may have dropped the table.
    if typed_tables::exists(connection, &dataset.key()).await? {
        take_back_rows(connection, number, dataset, &mut undone).await?;
    }
    undone.kept = written.saturating_sub(undone.reversed + undone.errored);
    previous_rows::splice(connection, number).await?;
    previous_rows::delete(connection, number).await?;
    Ok(undone)
}

async fn take_back_rows(
    connection: &mut SqliteConnection,
    number: i64,
    dataset: &UploadDataset,
    undone: &mut UndoneRows,
) -> sqlx::Result<()> {
    let statements = [
        typed_tables::delete_inserted(&dataset.key()),
        typed_tables::restore_rows(dataset),
    ];
    let range = rows_in_table(connection, number, dataset).await?;
    // All deletions come first, since a row to delete may have the unique value of a previous row.
    for statement in &statements {
        let mut waiting: Vec<IdRange> = range.into_iter().collect();
        while let Some(range) = waiting.pop() {
            dividing::begin(connection).await?;
            let reversed = run(connection, statement, range).await;
            let reversed = dividing::end(connection, reversed, dataset).await?;
            match (reversed, range.halves()) {
                (Ok(rows), _) => undone.reversed += rows,
                (Err(_), Some([first, second])) => waiting.extend([second, first]),
                (Err(_), None) => undone.errored += 1,
            }
        }
    }
    Ok(())
}

/// The rows of the upload that are still in the table.
async fn rows_in_table(
    connection: &mut SqliteConnection,
    number: i64,
    dataset: &UploadDataset,
) -> sqlx::Result<Option<IdRange>> {
    let statement = typed_tables::select_range(&dataset.key());
    let (first, last): (Option<i64>, Option<i64>) = sqlx::query_as(&statement)
        .persistent(false)
        .bind(first_id(number))
        .bind(last_id(number))
        .fetch_one(connection)
        .await?;
    let range = first.zip(last);
    Ok(range.map(|(first, last)| IdRange { first, last }))
}

/// Runs a statement for these rows. Returns how many rows it changed.
async fn run(
    connection: &mut SqliteConnection,
    statement: &str,
    range: IdRange,
) -> sqlx::Result<u64> {
    let done = sqlx::query(statement)
        .persistent(false)
        .bind(range.first)
        .bind(range.last)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
