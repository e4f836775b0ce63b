//! What both SQL adapters share of sqlx, whatever the dialect.

use std::borrow::Cow;

use futures::future::BoxFuture;
use sqlx::migrate::{MigrateError, Migration, MigrationSource, MigrationType, Migrator};
use sqlx::types::Json;

use super::LedgerEntry;
use crate::error::{ErrorKind, PortError, PortResult};
use crate::progress::StoredBatch;
use crate::rejects::RejectedRow;

/// Most rejected rows that one statement reads back, and the bytes at which a page ends earlier. A
/// page exceeds these by one row at most.
pub(super) const REJECT_PAGE_ROWS: i64 = 256;
pub(super) const REJECT_PAGE_BYTES: i64 = 1 << 20;

/// The migrations of one dialect, as `build.rs` embeds them: version, description, SQL.
pub(super) type EmbeddedMigrations = &'static [(i64, &'static str, &'static str)];

#[derive(Debug)]
struct Embedded(EmbeddedMigrations);

impl MigrationSource<'static> for Embedded {
    fn resolve(self) -> BoxFuture<'static, Result<Vec<Migration>, sqlx::error::BoxDynError>> {
        let migrations = self.0.iter().map(|(version, description, sql)| {
            let (description, sql) = (Cow::Borrowed(*description), Cow::Borrowed(*sql));
            Migration::new(*version, description, MigrationType::Simple, sql, false)
        });
        let migrations = migrations.collect();
        Box::pin(async { Ok(migrations) })
    }
}

/// sqlx's migrator for these migrations.
pub(super) async fn migrator(migrations: EmbeddedMigrations) -> Result<Migrator, MigrateError> {
    Migrator::new(Embedded(migrations)).await
}

/// Maps the outcome of a migration. `port_error` maps the errors of the database.
pub(super) fn migrated(
    outcome: Result<(), MigrateError>,
    port_error: fn(&'static str, sqlx::Error) -> PortError,
) -> PortResult<()> {
    const OPERATION: &str = "store.migrate";
    outcome.map_err(|error| match error {
        MigrateError::Execute(error) => port_error(OPERATION, error),
        MigrateError::VersionMissing(version) => {
            let reason = format!(
                "the database has migration {version}, which this build does not know: a newer build set it up"
            );
            PortError::new(ErrorKind::Conflict, OPERATION, reason)
        }
        error => PortError::new(ErrorKind::Internal, OPERATION, error),
    })
}

/// An error for data that the database can never hold. Both adapters map it to *invalid*.
pub(super) fn invalid(reason: impl Into<sqlx::error::BoxDynError>) -> sqlx::Error {
    sqlx::Error::Encode(reason.into())
}

/// A count for a column. Counts are far below 2^63.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// No count in a database is negative.
pub(super) fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// `row_number`, `line`, `byte_offset`, `column_name`, `code`, `message`, `raw`, `fields`.
pub(super) type RejectedRecord = (
    i64,
    i64,
    i64,
    Option<String>,
    String,
    String,
    Option<String>,
    Option<Json<Vec<String>>>,
);

/// A rejected row of these columns.
pub(super) fn rejected_row(record: RejectedRecord) -> RejectedRow {
    let (row, line, offset, column, code, message, raw, fields) = record;
    RejectedRow {
        row: unsigned(row),
        line: unsigned(line),
        offset: unsigned(offset),
        column,
        code,
        message,
        raw,
        fields: fields.map(|fields| fields.0),
    }
}

/// `seq`, `first_row`, `rows`, `archive_bytes`, `archive_crc32`.
impl From<(i32, i64, i32, i64, i64)> for LedgerEntry {
    fn from((seq, first_row, rows, bytes, crc32): (i32, i64, i32, i64, i64)) -> Self {
        Self {
            seq: seq.cast_unsigned(),
            first_row: unsigned(first_row),
            rows: rows.cast_unsigned(),
            archive_bytes: unsigned(bytes),
            archive_crc32: u32::try_from(crc32).unwrap_or(0),
        }
    }
}

/// `seq`, `rows`.
impl From<(i32, i32)> for StoredBatch {
    fn from((seq, rows): (i32, i32)) -> Self {
        Self {
            seq: seq.cast_unsigned(),
            rows: rows.cast_unsigned(),
        }
    }
}
