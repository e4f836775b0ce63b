//! Inserts the rows of a batch.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Instant;

use sqlx::{Sqlite, SqliteConnection};

use super::{Known, typed_rows};
use crate::batch::Batch;
use crate::store::sql::{self, signed};
use crate::store::sqlite::constraints::check_taken;
use crate::store::sqlite::{first_id, typed_tables};
use crate::store::violations::origin_json;

/// A row number takes the low 36 bits of a row's id.
const ROW_NUMBER_LIMIT: u64 = 1 << 36;

/// Inserts a run of rows into the landing table. `$1` is the id of the first row, `$2` has all rows
/// as JSON, and `$3` has the offset and the length of each row.
const INSERT_ROWS: &str = "INSERT INTO rows (id, fields)
    SELECT $1 + key, CAST(substr($2, value >> 32, value & 0xffffffff) AS TEXT) FROM json_each($3)";

/// Consecutive rows of a batch whose numbers have no gap.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// The index of the first row in the batch.
    pub(super) index: usize,
    /// The number of the first row.
    pub(super) first_row: u64,
    /// How many rows there are.
    pub(super) count: usize,
}

/// The statement that inserts rows of a batch, and what it needs.
pub(super) struct Insert<'a> {
    statement: Cow<'static, str>,
    /// Each row as the JSON between the brackets of its list of cells.
    rows: Vec<&'a [u8]>,
    /// The JSON text behind the cells of each staged row; empty for other rows.
    origins: Vec<String>,
    /// The upload's number in the ids of its rows.
    number: i64,
    /// The id of an upload whose rows go into the table of a dataset.
    typed: Option<String>,
}

/// Inserts the rows of a batch. Returns how many of them are rejected. `started` is the time at
/// which the group began.
pub(super) async fn rows(
    connection: &mut SqliteConnection,
    batch: &Batch,
    upload: &Known,
    started: Instant,
) -> sqlx::Result<u32> {
    check(batch, upload)?;
    let rows: Vec<&[u8]> = batch.rows_json().collect();
    let (number, runs) = (upload.number, runs(batch));
    let typed = upload.dataset.as_ref();
    let Some(dataset) = typed.filter(|dataset| !dataset.is_staged()) else {
        let insert = Insert {
            statement: Cow::Borrowed(INSERT_ROWS),
            rows,
            origins: match typed {
                Some(_) => origins(batch)?,
                None => Vec::new(),
            },
            number,
            typed: None,
        };
        for run in runs {
            insert.run(connection, run).await?;
        }
        return Ok(0);
    };
    let insert = Insert {
        statement: Cow::Owned(typed_tables::insert_rows(dataset)),
        rows,
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

fn runs(batch: &Batch) -> Vec<Run> {
    let mut index = 0;
    let run = |&(first_row, count): &(u64, u32)| {
        let count = count as usize;
        index += count;
        Run {
            index: index - count,
            first_row,
            count,
        }
    };
    batch.runs().iter().map(run).collect()
}

impl Insert<'_> {
    /// Inserts a run with one statement, since every statement is a round trip to SQLite's thread.
    /// The statement also gets the offset and the length of each row. Otherwise SQLite would parse
    /// the JSON and serialise every row again.
    ///
    /// Fails if a trigger leaves a row out.
    pub(super) async fn run(
        &self,
        connection: &mut SqliteConnection,
        run: Run,
    ) -> sqlx::Result<()> {
        let indexes = run.index..run.index + run.count;
        let origins = self.origins.get(indexes.clone()).unwrap_or_default();
        let run_rows = &self.rows[indexes];
        let cell_bytes: usize = run_rows.iter().map(|row| row.len() + 2).sum();
        let origin_bytes: usize = origins.iter().map(|origin| origin.len() + 1).sum();
        let mut rows = Vec::with_capacity(cell_bytes + origin_bytes);
        let mut spans = String::with_capacity(18 * run.count);
        for (index, row) in run_rows.iter().enumerate() {
            let start = rows.len();
            rows.push(b'[');
            rows.extend_from_slice(row);
            if let Some(origin) = origins.get(index) {
                rows.push(b',');
                rows.extend_from_slice(origin.as_bytes());
            }
            rows.push(b']');
            // SQLite counts from 1.
            let span = (start + 1) << 32 | (rows.len() - start);
            spans.push(if spans.is_empty() { '[' } else { ',' });
            let _: std::fmt::Result = write!(spans, "{span}");
        }
        spans.push(']');
        let mut insert = sqlx::query::<Sqlite>(&self.statement)
            .bind(first_id(self.number) + signed(run.first_row))
            .bind(rows)
            .bind(spans);
        if let Some(id) = &self.typed {
            insert = insert.bind(id.as_str());
        }
        let inserted = insert.execute(connection).await?.rows_affected();
        check_taken(run.count as u64, inserted)
    }
}

/// Fails for a batch that must not be stored, although SQLite would store its rows.
fn check(batch: &Batch, upload: &Known) -> sqlx::Result<()> {
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
    if let Some(dataset) = &upload.dataset {
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
