//! Records what a merge has done: the rejected rows, the counts of each batch, and the end of the
//! upload.

use futures::TryStreamExt;
use sqlx::{Connection, PgConnection, Postgres};

use super::Staged;
use super::merger::Merger;
use super::rejects::Rejects;
use crate::rejects::RejectedRow;
use crate::store::postgres::rows::READ_BY_INDEX;
use crate::store::postgres::{lock_status, rejects};
use crate::store::sql::{self, count};
use crate::store::violations::{StagedRow, rejected_staged_row};
use crate::upload::UploadKey;

/// How many rejected rows are read and kept at a time.
const PAGE_ROWS: usize = 256;

/// Counts the outcomes of each batch, by the row numbers up to the next batch. `$1` and `$2`: id
/// and epoch.
const COUNT_IN_LEDGER: &str = "UPDATE batches b
    SET (updated, duplicate, rejected) = (
        SELECT count(*) FILTER (WHERE _carga_state IN ('c', 'u')),
               count(*) FILTER (WHERE _carga_state = 'd'),
               count(*) FILTER (WHERE _carga_state = 'v')
        FROM pg_temp.carga_merge
        WHERE row_number >= b.first_row
          AND row_number < coalesce(
              (SELECT next.first_row FROM batches next
               WHERE next.upload_id = $1 AND next.epoch = $2 AND next.seq > b.seq AND next.rows > 0
               ORDER BY next.seq LIMIT 1),
              9223372036854775807))
    WHERE b.upload_id = $1 AND b.epoch = $2 AND b.rows > 0";

/// Marks the rows as being in neither table, so that no removal by the ledger deletes rows of the
/// dataset's table.
const CLEAR_TABLES: &str = "UPDATE batches SET landing = false, dataset = false
    WHERE upload_id = $1 AND epoch = $2";

/// Ends the upload if no row waits, and if the table has taken as many rows as are counted as
/// inserted or updated. `$1` and `$2`: id and epoch, `$3` and `$4`: the columns of the written rows
/// and of their primary key, or NULL. Without a primary key, both are empty, and no undo finds the
/// rows. `$5`: how many rows the table has taken. A merge may take minutes, and `now()` is the time
/// of its beginning.
const END: &str = "UPDATE uploads u
    SET status = CASE WHEN u.rows_rejected + counted.rejected = 0 THEN 'completed' ELSE 'partial' END,
        rows_inserted = counted.inserted, rows_updated = counted.updated,
        rows_duplicate = counted.duplicate, rows_violating = counted.rejected,
        is_reversible = u.is_reversible AND $3::text[] IS DISTINCT FROM '{}',
        written_columns = $3, written_key = $4,
        updated_at = clock_timestamp(), finished_at = clock_timestamp()
    FROM (SELECT count(*) FILTER (WHERE _carga_state IN ('n', 'i')) AS inserted,
                 count(*) FILTER (WHERE _carga_state IN ('c', 'u')) AS updated,
                 count(*) FILTER (WHERE _carga_state = 'd') AS duplicate,
                 count(*) FILTER (WHERE _carga_state = 'v') AS rejected,
                 count(*) FILTER (WHERE _carga_state = 'a') AS waiting
          FROM pg_temp.carga_merge) AS counted
    WHERE u.id = $1 AND u.epoch = $2 AND u.status = 'processing'
      AND counted.waiting = 0 AND counted.inserted + counted.updated = $5";

/// Ends an upload whose rows are merged, in the transaction of the merge.
pub(super) async fn record(
    connection: &mut PgConnection,
    staged: &Staged,
    merger: &Merger<'_>,
) -> sqlx::Result<()> {
    sqlx::query(READ_BY_INDEX).execute(&mut *connection).await?;
    insert_rejects(connection, staged, merger.rejects()).await?;
    let key = staged.key;
    update(connection, COUNT_IN_LEDGER, key).await?;
    update(connection, CLEAR_TABLES, key).await?;
    if !end(connection, key, merger).await? {
        return Err(sqlx::Error::Decode("the merge has left rows".into()));
    }
    sqlx::query("DELETE FROM landing WHERE upload = $1")
        .bind(staged.source.number)
        .execute(connection)
        .await?;
    Ok(())
}

/// Ends the upload. Returns false if rows are left.
async fn end(
    connection: &mut PgConnection,
    key: UploadKey,
    merger: &Merger<'_>,
) -> sqlx::Result<bool> {
    let written = merger
        .written()
        .map(|written| (written.names, written.primary_key));
    let (names, primary_key) = written.unzip();
    let ended = sqlx::query::<Postgres>(END)
        .persistent(false)
        .bind(key.id.as_uuid())
        .bind(key.epoch.get())
        .bind(names)
        .bind(primary_key)
        .bind(merger.stored())
        .execute(connection)
        .await?;
    Ok(ended.rows_affected() > 0)
}

/// Keeps the rejected rows of a merge that was taken back, unless the upload has ended meanwhile.
pub(super) async fn keep_rejects(
    connection: &mut PgConnection,
    staged: &Staged,
    rejects: &Rejects,
) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    let key = staged.key;
    lock_status(&mut transaction, key.id).await?;
    let is_processing: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM uploads WHERE id = $1 AND epoch = $2 AND status = 'processing')",
    )
    .bind(key.id.as_uuid())
    .bind(key.epoch.get())
    .fetch_one(&mut *transaction)
    .await?;
    if is_processing {
        sqlx::query(READ_BY_INDEX)
            .execute(&mut *transaction)
            .await?;
        insert_rejects(&mut transaction, staged, rejects).await?;
    }
    transaction.commit().await
}

async fn insert_rejects(
    connection: &mut PgConnection,
    staged: &Staged,
    rejects: &Rejects,
) -> sqlx::Result<()> {
    for page in rejects.numbers().chunks(PAGE_ROWS) {
        let mut rows = Vec::with_capacity(page.len());
        read_rejected(connection, staged, rejects, page, |row| rows.push(row)).await?;
        rejects::insert(connection, staged.key.id, &rows).await?;
    }
    Ok(())
}

/// Makes the rejected rows of a page of staged rows, and gives each to `keep` once it is read.
/// `page` has their numbers, in order.
pub(super) async fn read_rejected(
    connection: &mut PgConnection,
    staged: &Staged,
    rejects: &Rejects,
    page: &[i64],
    mut keep: impl FnMut(RejectedRow) + Send,
) -> sqlx::Result<()> {
    let (Some(first), Some(last)) = (page.first(), page.last()) else {
        return Ok(());
    };
    let statement = format!(
        "SELECT row_number, fields FROM {}
         WHERE upload = $1 AND row_number BETWEEN $2 AND $3 AND row_number = ANY ($4)
         ORDER BY row_number",
        staged.source.table
    );
    let mut found = sqlx::query_as::<Postgres, (i64, Vec<Option<String>>)>(&statement)
        .persistent(false)
        .bind(staged.source.number)
        .bind(*first)
        .bind(*last)
        .bind(page)
        .fetch(connection);
    while let Some((number, fields)) = found.try_next().await? {
        let Some(violation) = rejects.violation(number) else {
            continue;
        };
        let row = staged_row(number, &fields)?;
        let rejected = rejected_staged_row(&row, &staged.dataset, &staged.columns, violation);
        keep(rejected.map_err(sql::invalid)?);
    }
    Ok(())
}

/// The cells of a staged row, and its origin behind them.
fn staged_row(number: i64, fields: &[Option<String>]) -> sqlx::Result<StagedRow<'_>> {
    let Some((Some(origin), cells)) = fields.split_last() else {
        return Err(sql::invalid("a staged row has no position in the file"));
    };
    Ok(StagedRow {
        number: count("row_number", number)?,
        origin,
        cells,
    })
}

/// Runs a statement with the id and the epoch. The temporary table is another one in each merge, so
/// the statement is not kept prepared.
async fn update(
    connection: &mut PgConnection,
    statement: &'static str,
    key: UploadKey,
) -> sqlx::Result<u64> {
    let done = sqlx::query::<Postgres>(statement)
        .persistent(false)
        .bind(key.id.as_uuid())
        .bind(key.epoch.get())
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_element_of_a_staged_row_is_its_origin() {
        let fields = [Some("A1".to_owned()), None, Some("[4,90]".to_owned())];
        let row = staged_row(3, &fields).unwrap();
        assert_eq!((row.number, row.origin), (3, "[4,90]"));
        assert_eq!(row.cells, [Some("A1".to_owned()), None]);
        assert!(staged_row(3, &fields[..2]).is_err());
        assert!(staged_row(3, &[]).is_err());
    }
}
