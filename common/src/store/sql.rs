//! Helpers around sqlx that both SQL adapters share.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use futures::future::BoxFuture;
use jiff::Timestamp;
use sqlx::migrate::{MigrateError, Migration, MigrationSource, MigrationType, Migrator};
use sqlx::types::Json;

use super::{ArchivedBatch, BatchRecord, BatchRows, LedgerEntry, RetryScope};
use crate::access::{KeyDigest, TokenSecret};
use crate::archive::ArchiveCompression;
use crate::error::{ErrorKind, PortError, PortResult};
use crate::progress::StoredBatch;
use crate::rejects::RejectedRow;
use crate::sha256::Sha256;

/// The most rejected rows on a page, and the size at which a page ends earlier. Only the last row
/// of a page may exceed the size.
pub(super) const REJECT_PAGE_ROWS: i64 = 256;
pub(super) const REJECT_PAGE_BYTES: i64 = 1 << 20;

/// The size of the definitions at which a page of datasets ends before its limit. Only the last
/// definition of a page may exceed the size.
pub(super) const DATASET_PAGE_BYTES: i64 = 1 << 20;

/// How many counts of ended tokens are removed with each count of an upload. More than one, so that
/// their number goes down.
pub(super) const TOKEN_COUNTS_REMOVED_AT_ONCE: i64 = 16;

/// Whether an upload was sealed with these totals and has not failed. `$1` to `$6`: id, epoch,
/// rows, batches, rejected rows, SHA-256.
pub(super) const IS_SEALED: &str = "SELECT EXISTS (
    SELECT 1 FROM uploads
    WHERE id = $1 AND epoch = $2 AND status IN ('processing', 'completed', 'partial')
      AND rows_read = $3 AND batches_total = $4 AND rows_rejected = $5 AND sha256 = $6)";

/// The public id of the last upload of a tenant that keeps rows of this content. `$1`: SHA-256,
/// `$2`: the id of an upload that is left out, `$3`: the tenant.
pub(super) const SAME_CONTENT: &str = "SELECT coalesce(public_id, id) FROM uploads
    WHERE sha256 = $1 AND id <> $2 AND status IN ('completed', 'partial')
      AND expired_at IS NULL AND tenant = $3
    ORDER BY finished_at DESC LIMIT 1";

/// The public id of another upload of the same tenant that has reserved this content or keeps rows
/// of it. `$1`: SHA-256, `$2`: the id of the upload that asks.
pub(super) const CONTENT_HOLDER: &str = "SELECT coalesce(public_id, id) FROM uploads
    WHERE sha256 = $1 AND id <> $2 AND status IN ('receiving', 'processing', 'completed', 'partial')
      AND expired_at IS NULL AND tenant = (SELECT tenant FROM uploads WHERE id = $2)
    ORDER BY finished_at DESC LIMIT 1";

/// Reserves this content for a receiving upload. `$1` to `$3`: id, epoch, SHA-256.
pub(super) const CLAIM_CONTENT: &str =
    "UPDATE uploads SET sha256 = $3 WHERE id = $1 AND epoch = $2 AND status = 'receiving'";

/// The columns with changed rows, and how many. `counts` has a number for each column.
pub(super) fn changed_columns<'a>(
    columns: impl IntoIterator<Item = &'a str>,
    counts: Vec<i64>,
) -> sqlx::Result<BTreeMap<String, u64>> {
    let changed = columns.into_iter().zip(counts);
    let changed = changed.filter(|(_, rows)| *rows > 0);
    changed
        .map(|(column, rows)| Ok((column.to_owned(), count("changed", rows)?)))
        .collect()
}

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
                "the database has migration {version}, which this build does not know; start the newer version that added it"
            );
            PortError::new(ErrorKind::Conflict, OPERATION, reason)
        }
        error => PortError::new(ErrorKind::Internal, OPERATION, error),
    })
}

/// An error for data that the database can never store. Both adapters map it to *invalid*.
pub(super) fn invalid(reason: impl Into<sqlx::error::BoxDynError>) -> sqlx::Error {
    sqlx::Error::Encode(reason.into())
}

/// How many entries of the audit log, or how many events, one call deletes.
pub(super) const FORGOTTEN_AT_ONCE: i64 = 10_000;

/// Converts a count for a column. Counts are far below 2^63, so none is cut.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A value in the database that no build of Carga writes. Both adapters map it to *internal*.
#[derive(Debug, thiserror::Error)]
#[error("column `{column}` holds `{value}`: {reason}")]
struct CorruptValue {
    column: &'static str,
    value: String,
    reason: String,
}

fn corrupt(column: &'static str, value: impl Display, reason: impl Display) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(CorruptValue {
        column,
        value: value.to_string(),
        reason: reason.to_string(),
    }))
}

/// Parses the value of a text column.
pub(super) fn parsed<T>(column: &'static str, text: &str) -> sqlx::Result<T>
where
    T: FromStr<Err: Display>,
{
    text.parse().map_err(|error| corrupt(column, text, error))
}

/// Parses the value of a text column that may be NULL.
pub(super) fn parsed_if_any<T>(column: &'static str, text: Option<&str>) -> sqlx::Result<Option<T>>
where
    T: FromStr<Err: Display>,
{
    text.map(|text| parsed(column, text)).transpose()
}

/// Converts the value of a column that counts.
pub(super) fn count<N>(column: &'static str, value: N) -> sqlx::Result<N::Unsigned>
where
    N: Count,
{
    N::Unsigned::try_from(value).map_err(|_| corrupt(column, value, "a count cannot be negative"))
}

/// The type of a column that counts.
pub(super) trait Count: Copy + Display {
    type Unsigned: TryFrom<Self>;
}

impl Count for i64 {
    type Unsigned = u64;
}

impl Count for i32 {
    type Unsigned = u32;
}

/// Converts the value of the column `digest` of a key. An error does not show the value.
pub(super) fn key_digest(bytes: Vec<u8>) -> sqlx::Result<KeyDigest> {
    let digest: Result<[u8; 32], _> = bytes.try_into();
    let digest = digest.map(KeyDigest::from);
    digest.map_err(|_| corrupt("digest", "***", "expected 32 bytes"))
}

/// Converts the secret that signs tokens. An error does not show the value.
pub(super) fn token_secret(bytes: Vec<u8>) -> sqlx::Result<TokenSecret> {
    let secret: Result<[u8; 32], _> = bytes.try_into();
    let secret = secret.map(TokenSecret::from);
    secret.map_err(|_| corrupt("secret", "***", "expected 32 bytes"))
}

/// Converts the value of a column that has a digest.
pub(super) fn digest(column: &'static str, bytes: Vec<u8>) -> sqlx::Result<Sha256> {
    let digest: Result<[u8; 32], _> = bytes.try_into();
    digest.map(Sha256::from).map_err(|bytes| {
        let value: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        corrupt(column, value, "expected 32 bytes")
    })
}

/// The columns `row_number`, `line`, `byte_offset`, `column_name`, `code`, `constraint_name`,
/// `message`, `raw` and `fields`.
pub(super) type RejectedRecord = (
    i64,
    i64,
    i64,
    Option<String>,
    String,
    Option<String>,
    String,
    Option<String>,
    Option<Json<Vec<String>>>,
);

/// Makes a rejected row of these columns.
pub(super) fn rejected_row(record: RejectedRecord) -> sqlx::Result<RejectedRow> {
    let (row, line, offset, column, code, constraint, message, raw, fields) = record;
    Ok(RejectedRow {
        row: count("row_number", row)?,
        line: count("line", line)?,
        offset: count("byte_offset", offset)?,
        column,
        code,
        constraint,
        message,
        raw,
        fields: fields.map(|fields| fields.0),
    })
}

/// The columns `archive_compression` and `object_bytes` of a batch. Both are NULL for an object
/// without compression, as in the entries of versions that cannot compress.
pub(super) fn compression_columns(archived: &ArchivedBatch) -> (Option<&'static str>, Option<i64>) {
    match archived.archive_compression {
        ArchiveCompression::None => (None, None),
        compression => (
            Some(compression.name()),
            Some(signed(archived.object_bytes)),
        ),
    }
}

/// The columns `seq`, `first_row`, `rows`, `rejected`, `updated`, `duplicate`, `archive_bytes`,
/// `archive_crc32`, `archive_compression` and `object_bytes`.
pub(super) type LedgerRecord = (
    i32,
    i64,
    i32,
    i32,
    i32,
    i32,
    i64,
    i64,
    Option<String>,
    Option<i64>,
);

pub(super) fn ledger_entry(record: LedgerRecord) -> sqlx::Result<LedgerEntry> {
    let (seq, first_row, rows, rejected, updated, duplicate, bytes, crc32, compression, object) =
        record;
    Ok(LedgerEntry {
        seq: count("seq", seq)?,
        first_row: count("first_row", first_row)?,
        rows: count("rows", rows)?,
        rejected: count("rejected", rejected)?,
        updated: count("updated", updated)?,
        duplicate: count("duplicate", duplicate)?,
        archive_compression: match compression {
            Some(name) => parsed("archive_compression", &name)?,
            None => ArchiveCompression::None,
        },
        archive_bytes: count("archive_bytes", bytes)?,
        archive_crc32: u32::try_from(crc32)
            .map_err(|error| corrupt("archive_crc32", crc32, error))?,
        object_bytes: count("object_bytes", object.unwrap_or(bytes))?,
    })
}

/// The columns `first_row`, `last_row` and `rows` of a dead letter.
pub(super) fn dead_rows(rows: Option<BatchRows>) -> (Option<i64>, Option<i64>, Option<i32>) {
    let count = |rows: BatchRows| i32::try_from(rows.count).unwrap_or(i32::MAX);
    (
        rows.map(|rows| signed(rows.first)),
        rows.map(|rows| signed(rows.last)),
        rows.map(count),
    )
}

/// Makes the rows of a dead letter of these columns.
pub(super) fn batch_rows(
    first: Option<i64>,
    last: Option<i64>,
    rows: Option<i32>,
) -> sqlx::Result<Option<BatchRows>> {
    let (Some(first), Some(last), Some(rows)) = (first, last, rows) else {
        return Ok(None);
    };
    Ok(Some(BatchRows {
        first: count("first_row", first)?,
        last: count("last_row", last)?,
        count: count("rows", rows)?,
    }))
}

/// The columns of a batch in a list, but its time: `seq`, `status`, `first_row`, `rows`,
/// `rejected`, `attempts` and `reason`.
pub(super) type ListedBatch = (
    i32,
    String,
    Option<i64>,
    Option<i32>,
    i32,
    Option<i32>,
    Option<String>,
);

/// Makes a batch in a list of these columns.
pub(super) fn batch_record(listed: ListedBatch, at: Timestamp) -> sqlx::Result<BatchRecord> {
    let (seq, status, first_row, rows, rejected, attempts, reason) = listed;
    let first_row = first_row.map(|first| count("first_row", first));
    let rows = rows.map(|rows| count("rows", rows));
    let attempts = attempts.map(|attempts| count("attempts", attempts));
    Ok(BatchRecord {
        seq: count("seq", seq)?,
        status: parsed("status", &status)?,
        first_row: first_row.transpose()?,
        rows: rows.transpose()?,
        rejected: count("rejected", rejected)?,
        attempts: attempts.transpose()?,
        reason,
        at,
    })
}

/// The number of the batch, or of the row, that a retry is limited to.
pub(super) fn retry_conditions(scope: RetryScope) -> (Option<i32>, Option<i64>) {
    match scope {
        RetryScope::Upload => (None, None),
        RetryScope::Batch(seq) => (Some(seq.cast_signed()), None),
        RetryScope::Row(number) => (None, Some(signed(number))),
    }
}

/// Makes a stored batch of the columns `seq`, `rows` and `rejected`.
pub(super) fn stored_batch((seq, rows, rejected): (i32, i32, i32)) -> sqlx::Result<StoredBatch> {
    Ok(StoredBatch {
        seq: count("seq", seq)?,
        rows: count("rows", rows - rejected)?,
        rejected: count("rejected", rejected)?,
    })
}
