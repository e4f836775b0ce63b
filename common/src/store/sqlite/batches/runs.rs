//! Runs of rows, and the statements that insert them.

use std::fmt::Write as _;

use sqlx::{Sqlite, SqliteConnection};

use crate::batch::Batch;
use crate::store::sql::signed;
use crate::store::sqlite::constraints::check_taken;
use crate::store::sqlite::first_id;

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
    pub(super) statement: String,
    /// Each row as the JSON between the brackets of its list of cells.
    pub(super) rows: Vec<&'a [u8]>,
    /// The JSON text behind the cells of each staged row; empty for other rows.
    pub(super) origins: Vec<String>,
    /// The upload's number in the ids of its rows.
    pub(super) number: i64,
    /// The id of an upload whose rows go into the table of a dataset.
    pub(super) typed: Option<String>,
}

/// The runs of a batch, in order.
pub(super) fn runs(batch: &Batch) -> Vec<Run> {
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
