//! What the adapters on SQLite share: how a file is opened, one writer at a time, and what an
//! error means.
//!
//! Every file is in WAL mode with `synchronous=FULL`: a commit is on disk when it returns,
//! readers never wait for writers, and a process that dies leaves a log that the next one takes
//! up.

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

/// Another process in the same file (a copy, somebody's query with a lock) is waited for this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Pages in the log before they are moved to the file proper: 16 MiB. Longer logs spare writing a
/// page that changes again; they also cost memory and disk.
const CHECKPOINT_PAGES: &str = "4000";

/// The log is cut back to this size when it has grown beyond it.
const LOG_BYTES: &str = "67108864";

/// Kibibytes of pages that a connection keeps.
const WRITER_CACHE: &str = "-16000";
const READER_CACHE: &str = "-2000";

const READERS: u32 = 4;

/// One file, with one connection that writes and a few that read.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    writer: SqlitePool,
    pub(crate) readers: SqlitePool,
}

impl Database {
    /// Opens the file, or makes it. Its directory must be there.
    pub(crate) async fn open(operation: &'static str, file: &Path) -> PortResult<Self> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("journal_size_limit", LOG_BYTES)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .synchronous(SqliteSynchronous::Full);
        let named = |error: sqlx::Error| {
            let named = FileError {
                file: file.display().to_string(),
                source: error,
            };
            PortError::new(kind(&named.source), operation, named)
        };
        let writing = options
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .pragma("cache_size", WRITER_CACHE);
        let writer = open_writer(&writing).await.map_err(named)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_lazy_with(options.pragma("cache_size", READER_CACHE));
        Ok(Self { writer, readers })
    }

    /// The writer's connection, outside a transaction.
    pub(crate) fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Begins a transaction that writes. There is no other one until it ends.
    pub(crate) async fn begin(&self) -> sqlx::Result<WriteTransaction> {
        // Made before BEGIN: a caller that is cancelled in between must not leave a transaction in
        // the pool.
        let mut transaction = WriteTransaction {
            connection: self.writer.acquire().await?,
            committed: false,
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

/// Two who turn a new file to WAL at once do not wait for each other, whatever the busy timeout:
/// SQLite upgrades a read lock for it, which could be a deadlock. So the one who is refused comes
/// again.
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

/// A transaction that writes. Dropped without a commit, it is rolled back by closing its
/// connection: SQLite may have rolled back by itself (a full disk), and sqlx would still count a
/// transaction that has ended.
#[derive(Debug)]
pub(crate) struct WriteTransaction {
    connection: PoolConnection<Sqlite>,
    committed: bool,
}

impl WriteTransaction {
    pub(crate) async fn commit(mut self) -> sqlx::Result<()> {
        sqlx::query("COMMIT").execute(&mut *self.connection).await?;
        self.committed = true;
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
        if !self.committed {
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

/// Runs one call of a port and maps its error.
pub(crate) async fn call<T>(
    operation: &'static str,
    work: impl Future<Output = sqlx::Result<T>>,
) -> PortResult<T> {
    work.await.map_err(|error| port_error(operation, error))
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
    const LOCKED: u32 = 6;
    const IO_ERROR: u32 = 10;
    const FULL: u32 = 13;
    const CANNOT_OPEN: u32 = 14;
    const TOO_BIG: u32 = 18;
    const CONSTRAINT: u32 = 19;
    /// The log's index is mapped memory; SQLite claims its blocks first and says so when there
    /// are none.
    const IO_ERROR_SHM_SIZE: u32 = IO_ERROR | (19 << 8);
    match error {
        sqlx::Error::Database(refusal) => {
            match result_code(error).map(|code| (code, code & 0xff)) {
                Some((IO_ERROR_SHM_SIZE, _) | (_, FULL)) => ErrorKind::Full,
                Some((_, BUSY | LOCKED | IO_ERROR | CANNOT_OPEN)) => ErrorKind::Unavailable,
                Some((_, TOO_BIG)) => ErrorKind::Invalid,
                Some((_, CONSTRAINT)) if refusal.is_unique_violation() => ErrorKind::Conflict,
                Some((_, CONSTRAINT)) => ErrorKind::Invalid,
                _ => ErrorKind::Internal,
            }
        }
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
    async fn the_linked_sqlite_is_free_of_the_wal_reset_bug() {
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
