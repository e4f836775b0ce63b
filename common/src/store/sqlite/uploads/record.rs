//! Reads the record of an upload from a row.

use std::fmt::Display;
use std::str::FromStr;

use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row};

use crate::store::sql;
use crate::upload::{Dialect, Failure, UndoneRows, Upload, UploadDataset};

impl FromRow<'_, SqliteRow> for Upload {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let count = |name| sql::count(name, row.try_get::<i64, _>(name)?);
        let maybe_count = |name| {
            let value: Option<i64> = row.try_get(name)?;
            value.map(|value| sql::count(name, value)).transpose()
        };
        let sha256: Option<Vec<u8>> = row.try_get("sha256")?;
        let failure: Option<Json<Failure>> = row.try_get("failure")?;
        let undone: Option<Json<UndoneRows>> = row.try_get("undone")?;
        let dialect: Json<Dialect> = row.try_get("dialect")?;
        let columns: Json<Vec<String>> = row.try_get("columns")?;
        let dataset: Option<Json<UploadDataset>> = row.try_get("dataset")?;
        let batches_total: Option<i32> = row.try_get("batches_total")?;
        Ok(Self {
            id: parsed(row, "id")?,
            epoch: row.try_get::<i32, _>("epoch")?.into(),
            status: parsed(row, "status")?,
            filename: row.try_get("filename")?,
            dialect: dialect.0,
            columns: columns.0,
            dataset: dataset.map(|dataset| dataset.0),
            bytes_total: maybe_count("bytes_total")?,
            bytes_received: count("bytes_received")?,
            rows_read: count("rows_read")?,
            rows_rejected: count("rows_rejected")?,
            rows_violating: maybe_count("rows_violating")?,
            blank_lines: maybe_count("blank_lines")?,
            batches_total: batches_total
                .map(|total| sql::count("batches_total", total))
                .transpose()?,
            batches_dead: count("batches_dead")?,
            rows_inserted: maybe_count("rows_inserted")?,
            rows_updated: maybe_count("rows_updated")?,
            rows_duplicate: maybe_count("rows_duplicate")?,
            sha256: sha256
                .map(|bytes| sql::digest("sha256", bytes))
                .transpose()?,
            duplicate_of: maybe_parsed(row, "duplicate_of")?,
            failure: failure.map(|failure| failure.0),
            cleanup_pending: row.try_get("cleanup_pending")?,
            is_reversible: row.try_get("is_reversible")?,
            undone: undone.map(|undone| undone.0),
            created_at: parsed(row, "created_at")?,
            updated_at: parsed(row, "updated_at")?,
            finished_at: maybe_parsed(row, "finished_at")?,
            expired_at: maybe_parsed(row, "expired_at")?,
            missing_since: maybe_parsed(row, "missing_since")?,
        })
    }
}

fn parsed<T: FromStr<Err: Display>>(row: &SqliteRow, column: &'static str) -> sqlx::Result<T> {
    sql::parsed(column, row.try_get(column)?)
}

fn maybe_parsed<T: FromStr<Err: Display>>(
    row: &SqliteRow,
    column: &'static str,
) -> sqlx::Result<Option<T>> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| sql::parsed(column, text)).transpose()
}
