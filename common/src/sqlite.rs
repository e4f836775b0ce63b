//! Opens files, serializes writers and maps errors for all adapters on SQLite.
//!
//! Every file is in WAL mode with `synchronous=FULL`. A commit is on disk when it returns, and
//! readers never wait for writers. After a crash the next process recovers the log.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::SqliteConnection;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};

use crate::error::{ErrorKind, PortError, PortResult};
use crate::metrics::calls;

/// How long a call waits for the lock of another process, for example of a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The length of the log in pages (16 MiB) at which a checkpoint copies it to the database file. A
/// longer log saves writes of pages that change again, but costs memory and disk.
const CHECKPOINT_PAGES: &str = "4000";

/// A checkpoint truncates a larger log to this size.
const LOG_BYTES: &str = "67108864";

/// The page cache of a connection. A negative number is in KiB.
const WRITER_CACHE: &str = "-16000";
const READER_CACHE: &str = "-2000";

const READERS: u32 = 4;

/// One file, with one writing connection and a few reading ones.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    writer: SqlitePool,
    pub(crate) readers: SqlitePool,
}

impl Database {
    /// Opens the file, or creates it. Its directory must exist.
    pub(crate) async fn open(operation: &'static str, file: &Path) -> PortResult<Self> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("journal_size_limit", LOG_BYTES)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .synchronous(SqliteSynchronous::Full);
        let file_error = |source: sqlx::Error| {
            let kind = kind(&source);
            let file = file.display().to_string();
            PortError::new(kind, operation, FileError { file, source })
        };
        let writing = options
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .pragma("cache_size", WRITER_CACHE);
        let writer = open_writer(&writing).await.map_err(file_error)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_lazy_with(options.pragma("cache_size", READER_CACHE));
        Ok(Self { writer, readers })
    }

    /// The writer's connection, outside a transaction.
    pub(crate) fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Begins a write transaction. The next one waits until this one ends.
    pub(crate) async fn begin(&self) -> sqlx::Result<WriteTransaction> {
        // This value exists before BEGIN, so that a cancelled caller leaves no transaction in the
        // pool.
        let mut transaction = WriteTransaction {
            connection: self.writer.acquire().await?,
            ended: false,
        };
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut *transaction)
            .await?;
        Ok(transaction)
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Opens the writer, and retries while the file is busy. SQLite ignores the busy timeout when two
/// processes switch a new file to WAL at once, because upgrading both read locks could deadlock.
async fn open_writer(options: &SqliteConnectOptions) -> sqlx::Result<SqlitePool> {
    const PAUSE: Duration = Duration::from_millis(20);
    let start = Instant::now();
    loop {
        let pool = SqlitePoolOptions::new().max_connections(1);
        match pool.connect_with(options.clone()).await {
            Err(error) if is_busy(&error) && start.elapsed() < BUSY_TIMEOUT => {
                tokio::time::sleep(PAUSE).await;
            }
            opened => return opened,
        }
    }
}

/// A write transaction. A drop without a commit rolls back by closing the connection. sqlx's own
/// transactions lose count when SQLite rolls back by itself, for example on a full disk.
#[derive(Debug)]
pub(crate) struct WriteTransaction {
    connection: PoolConnection<Sqlite>,
    ended: bool,
}

impl WriteTransaction {
    pub(crate) async fn commit(mut self) -> sqlx::Result<()> {
        sqlx::query("COMMIT").execute(&mut *self.connection).await?;
        self.ended = true;
        Ok(())
    }

    /// Takes all changes back. A transaction that is dropped instead closes its connection.
    pub(crate) async fn rollback(mut self) -> sqlx::Result<()> {
        let rollback = sqlx::query("ROLLBACK");
        rollback.execute(&mut *self.connection).await?;
        self.ended = true;
        Ok(())
    }
}

impl Deref for WriteTransaction {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for WriteTransaction {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

impl Drop for WriteTransaction {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{file}")]
struct FileError {
    file: String,
    source: sqlx::Error,
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Runs one call of a port, maps its error and measures it.
pub(crate) async fn call<T>(
    operation: &'static str,
    work: impl Future<Output = sqlx::Result<T>>,
) -> PortResult<T> {
    let running = calls::begin(operation);
    let outcome = work.await;
    running.end(outcome.map_err(|error| port_error(operation, error)))
}

/// Maps an error by SQLite's result code. Data that cannot be encoded is *invalid*; a value that
/// cannot be decoded is *internal*.
pub(crate) fn port_error(operation: &'static str, error: sqlx::Error) -> PortError {
    match error {
        sqlx::Error::Encode(reason) => PortError::invalid(operation, reason),
        sqlx::Error::Decode(reason) => PortError::new(ErrorKind::Internal, operation, reason),
        error => PortError::new(kind(&error), operation, error),
    }
}

// https://www.sqlite.org/rescode.html; the low byte is the primary code.
const BUSY: u32 = 5;

fn result_code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error()?.code()?.parse().ok()
}

fn is_busy(error: &sqlx::Error) -> bool {
    result_code(error).is_some_and(|code| code & 0xff == BUSY)
}

fn kind(error: &sqlx::Error) -> ErrorKind {
    const NOT_PERMITTED: u32 = 3;
    const LOCKED: u32 = 6;
    const READ_ONLY: u32 = 8;
    const IO_ERROR: u32 = 10;
    const FULL: u32 = 13;
    const CANNOT_OPEN: u32 = 14;
    const TOO_BIG: u32 = 18;
    const CONSTRAINT: u32 = 19;
    /// The log's index is mapped memory. SQLite allocates its blocks in advance, and this code
    /// means that the disk is full.
    const IO_ERROR_SHM_SIZE: u32 = IO_ERROR | (19 << 8);
    match error {
        sqlx::Error::Database(fault) => match result_code(error).map(|code| (code, code & 0xff)) {
            Some((IO_ERROR_SHM_SIZE, _) | (_, FULL)) => ErrorKind::Full,
            Some((_, BUSY | LOCKED | IO_ERROR | CANNOT_OPEN)) => ErrorKind::Unavailable,
            Some((_, NOT_PERMITTED | READ_ONLY)) => ErrorKind::Misconfigured,
            Some((_, TOO_BIG)) => ErrorKind::Invalid,
            Some((_, CONSTRAINT)) if fault.is_unique_violation() => ErrorKind::Conflict,
            Some((_, CONSTRAINT)) => ErrorKind::Invalid,
            _ => ErrorKind::Internal,
        },
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SQLite before 3.51.3 can lose a committed transaction when two connections write and
    /// checkpoint one WAL file at once: <https://www.sqlite.org/wal.html#walresetbug>.
    #[tokio::test]
    async fn the_linked_sqlite_has_the_fix_of_the_wal_reset_bug() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("version.db");
        let database = Database::open("test", &file).await.unwrap();
        let query = sqlx::query_scalar("SELECT sqlite_version()");
        let version: String = query.fetch_one(&database.readers).await.unwrap();
        let numbers: Vec<u32> = version
            .split('.')
            .map(|part| part.parse().unwrap())
            .collect();
        assert!(numbers >= vec![3, 51, 3], "SQLite {version} is linked");
    }
}
