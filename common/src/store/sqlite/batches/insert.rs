//! Inserts the rows of a batch.

use std::time::Instant;

use sqlx::SqliteConnection;

use super::runs::{Insert, runs};
use super::{Known, typed_rows};
use crate::batch::Batch;
use crate::store::sql;
use crate::store::sqlite::typed_tables;
use crate::store::violations::origin_json;
use crate::upload::UploadDataset;

/// A row number takes the low 36 bits of a row's id.
const ROW_NUMBER_LIMIT: u64 = 1 << 36;

/// Inserts a run of rows into `rows`, or into a table with the same columns. `$1` is the id of the
/// first row, `$2` has all rows as JSON, and `$3` has the offset and the length of each row.
fn insert_fields(table: &str) -> String {
    format!(
        "INSERT INTO {table} (id, fields)
         SELECT $1 + key, CAST(substr($2, value >> 32, value & 0xffffffff) AS TEXT) FROM json_each($3)"
    )
}

/// Inserts the rows of a batch. Returns how many of them are rejected. `started` is the time at
/// which the group began.
pub(super) async fn rows(
    connection: &mut SqliteConnection,
    batch: &Batch,
    upload: &Known,
    started: Instant,
) -> sqlx::Result<u32> {
    const TABLE: &str = "rows";
    let number = upload.number;
    let dataset = match &upload.dataset {
        None => {
            check(batch, None)?;
            land(connection, batch, Vec::new(), (TABLE, number)).await?;
            return Ok(0);
        }
        Some(dataset) if dataset.is_staged() => {
            stage(connection, batch, dataset, (TABLE, number)).await?;
            return Ok(0);
        }
        Some(dataset) => dataset,
    };
    check(batch, Some(dataset))?;
    let runs = runs(batch);
    let insert = Insert {
        statement: typed_tables::insert_rows(dataset),
        rows: batch.rows_json().collect(),
        origins: Vec::new(),
        number,
        typed: Some(batch.id.upload.id.to_string()),
    };
    let violations = typed_rows::insert(connection, &insert, &runs, dataset, started).await?;
    if !violations.is_empty() {
        typed_rows::reject(connection, batch, (number, dataset), &violations).await?;
    }
    Ok(violations.len() as u32)
}

/// Inserts the rows of a batch, with their positions in the file, into a table of staged rows. The
/// target is `rows` or a table with the same columns, and the number of the upload.
pub(in crate::store::sqlite) async fn stage(
    connection: &mut SqliteConnection,
    batch: &Batch,
    dataset: &UploadDataset,
    target: (&str, i64),
) -> sqlx::Result<()> {
    check(batch, Some(dataset))?;
    land(connection, batch, origins(batch)?, target).await
}

/// Inserts the rows of a batch as they are in the message. `origins` has the JSON text that follows
/// the cells of each staged row; it is empty for other rows.
async fn land(
    connection: &mut SqliteConnection,
    batch: &Batch,
    origins: Vec<String>,
    (table, number): (&str, i64),
) -> sqlx::Result<()> {
    let insert = Insert {
        statement: insert_fields(table),
        rows: batch.rows_json().collect(),
        origins,
        number,
        typed: None,
    };
    for run in runs(batch) {
        insert.run(connection, run).await?;
    }
    Ok(())
}

/// The positions of the rows in their file, each as JSON in a JSON text. Without them, the merge
/// could not report a row that violates a constraint.
fn origins(batch: &Batch) -> sqlx::Result<Vec<String>> {
    if batch.row_count() == 0 {
        return Ok(Vec::new());
    }
    let indexes: Vec<usize> = (0..batch.row_count()).collect();
    let origins = batch.origins(&indexes).map_err(sql::invalid)?;
    let text = |origin| serde_json::to_string(&origin_json(origin)).map_err(sql::invalid);
    origins.iter().map(text).collect()
}

/// Fails for a batch that must not be stored, although SQLite would store its rows.
fn check(batch: &Batch, dataset: Option<&UploadDataset>) -> sqlx::Result<()> {
    if has_nul(batch) {
        return Err(sql::invalid(
            "a cell has a NUL character, which cannot be stored as text",
        ));
    }
    if batch.last_row() >= ROW_NUMBER_LIMIT {
        return Err(sql::invalid(
            "an upload on SQLite has at most 2^36 - 1 rows; use Postgres for a larger file",
        ));
    }
    if let Some(dataset) = dataset {
        let names = dataset.columns.iter().map(|column| &column.name);
        if !batch.columns.iter().eq(names) {
            return Err(sql::invalid(
                "the batch does not have the columns of its upload's dataset",
            ));
        }
    }
    Ok(())
}

/// SQLite stores a NUL, but some clients then cut the text at the NUL. Postgres does not accept a
/// NUL, so this adapter does not either.
fn has_nul(batch: &Batch) -> bool {
    let suspect = |row: &[u8]| memchr::memmem::find(row, b"\\u0000").is_some();
    batch.rows_json().any(suspect)
        && batch.rows().flatten().any(|cell| {
            // Decoding the batch fails for an escape that is not text, so no such cell gets here.
            let text = cell.text().ok().flatten();
            text.is_some_and(|text| text.contains(&0))
        })
}
