//! The store on Postgres 14 and later.
//!
//! Every transaction that writes rows holds a *shared advisory* lock on its upload, and every
//! change of status holds the exclusive one. The status is read in a separate statement after the
//! lock, since READ COMMITTED takes a new snapshot per statement. Row locks would protect the same,
//! but under load a change of status waits many seconds for them. With advisory locks it waits only
//! for the transactions that have already started.

mod audit;
mod batches;
mod completion;
mod connections;
pub mod copy;
mod creation;
mod datasets;
mod dead_letters;
mod events;
mod holds;
mod idempotency;
mod keys;
mod landing;
mod maintenance;
mod merging;
mod observation;
mod previous_rows;
mod quotas;
mod rejects;
mod removal;
mod rows;
mod savepoint;
mod server;
mod table_rows;
mod tokens;
mod undoing;
mod upload_record;
mod uploads;
mod validation;
mod written_rows;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::PgConnection;
use tokio::sync::Semaphore;
use uuid::Uuid;

use self::connections::{Connections, SHORT};
use self::table_rows::DirtyTables;
use super::{StoreConnection, sql};
use crate::error::{ErrorKind, PortError, PortResult};
use crate::settings::SecretUrl;
use crate::upload::{UploadId, UploadKey};

static MIGRATIONS: sql::EmbeddedMigrations =
    include!(concat!(env!("OUT_DIR"), "/postgres_migrations.rs"));

/// How to reach Postgres and how to use it.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// `postgres://…`
    pub url: SecretUrl,
    /// The name of this program in `pg_stat_activity`.
    pub program: String,
    /// The maximum number of connections. Renewing leases and finding keys take one more each.
    pub connections: u32,
    /// Whether to bring the schema up to date.
    pub migrate: bool,
    /// Whether to use a server that only speaks the protocol of PostgreSQL.
    pub allow_unknown: bool,
}

/// [`Store`](super::Store) on Postgres.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    connections: Connections,
    /// Leases are renewed on a connection of their own, so that no amount of other work can delay a
    /// renewal. It opens at the first renewal.
    renewing: Connections,
    /// Every request with a key looks the key up first. Keys are found on a connection of their
    /// own, so that requests are not refused while the others are busy. It opens at the first
    /// lookup.
    finding_keys: Connections,
    /// Where a COPY of all rows would probably be in vain.
    dirty_tables: DirtyTables,
    /// One permit for each merge that may run. A merge keeps its connection for minutes.
    merges: Arc<Semaphore>,
}

/// How many uploads of one process are merged at the same time.
const MERGES_AT_ONCE: usize = 2;

impl PostgresStore {
    /// Connects and brings the schema up to date. Fails if the schema is newer than this build, and
    /// with *misconfigured* if the server is not a primary of PostgreSQL 14 or later.
    pub async fn connect(settings: PostgresSettings) -> PortResult<Self> {
        const OPERATION: &str = "store.connect";
        server::examine(&settings).await?;
        let connections = Connections::open(&settings).await;
        let connections = connections.map_err(|error| port_error(OPERATION, error))?;
        if settings.migrate {
            let migrated = connections.migrate(MIGRATIONS).await;
            sql::migrated(migrated, port_error)?;
        }
        Ok(Self {
            renewing: connections.one_more(),
            finding_keys: connections.one_more(),
            connections,
            dirty_tables: DirtyTables::default(),
            merges: Arc::new(Semaphore::new(MERGES_AT_ONCE)),
        })
    }

    /// [`Connections::call`], for every call but the renewal of leases and the search for
    /// a key.
    async fn call<T>(
        &self,
        operation: &'static str,
        limit: Duration,
        work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> PortResult<T> {
        self.connections.call(operation, limit, work).await
    }
}

#[async_trait]
impl StoreConnection for PostgresStore {
    async fn ping(&self) -> PortResult<()> {
        self.call("store.ping", SHORT, async |connection| {
            sqlx::query("SELECT 1").execute(connection).await?;
            Ok(())
        })
        .await
    }

    async fn installation(&self) -> PortResult<Uuid> {
        self.call("store.installation", SHORT, async |connection| {
            let id = sqlx::query_scalar("SELECT id FROM installation");
            id.fetch_one(connection).await
        })
        .await
    }

    async fn close(&self) {
        tokio::join!(
            self.connections.close(),
            self.renewing.close(),
            self.finding_keys.close()
        );
    }
}

/// The key of an upload, from its columns.
fn key(id: Uuid, epoch: i32) -> UploadKey {
    UploadKey {
        id: id.into(),
        epoch: epoch.into(),
    }
}

/// The key of the advisory lock that fences an upload: its id folded to 64 bits. Two uploads with
/// the same key wait for each other, which is safe.
fn fence_key(id: UploadId) -> i64 {
    let (high, low) = id.as_uuid().as_u64_pair();
    (high ^ low).cast_signed()
}

/// Takes the shared lock for the rest of the transaction; until then the status cannot change.
async fn share_status(connection: &mut PgConnection, key: i64) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_advisory_xact_lock_shared($1)")
        .bind(key)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes the exclusive lock for the rest of the transaction. The lock is granted after every
/// transaction that stores rows of this upload has ended.
async fn lock_status(connection: &mut PgConnection, id: UploadId) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(fence_key(id))
        .execute(connection)
        .await?;
    Ok(())
}

/// Tries to take the lock under which one process at a time merges the rows of an upload, takes
/// them back or removes them. The lock ends with the transaction.
async fn try_lock_rows(connection: &mut PgConnection, id: UploadId) -> sqlx::Result<bool> {
    let (high, low) = row_lock_key(id);
    sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1, $2)")
        .bind(high)
        .bind(low)
        .fetch_one(connection)
        .await
}

/// Takes the lock of [`try_lock_rows`], and waits for it.
async fn lock_rows(connection: &mut PgConnection, id: UploadId) -> sqlx::Result<()> {
    let (high, low) = row_lock_key(id);
    sqlx::query("SELECT pg_advisory_xact_lock($1, $2)")
        .bind(high)
        .bind(low)
        .execute(connection)
        .await?;
    Ok(())
}

/// Locks with two keys never collide with locks with one key, such as the fence.
fn row_lock_key(id: UploadId) -> (i32, i32) {
    let key = fence_key(id);
    ((key >> 32) as i32, key as i32)
}

/// Whether the error has one of these SQLSTATEs, or one of these classes.
fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| codes.iter().any(|known| code.starts_with(known)))
}

/// Maps an error by its SQLSTATE. Errors that the data causes are *invalid*. Errors that may pass
/// with time, a restart or more resources are *unavailable*. So is contention, since the same
/// transaction can be run again. Errors that an operator can correct are *misconfigured*.
fn port_error(operation: &'static str, error: sqlx::Error) -> PortError {
    let kind = match &error {
        sqlx::Error::Database(cause) => match cause.code().as_deref() {
            // In order: an existing key, other objects that need the table or view to be dropped.
            Some("23505" | "2BP01") => ErrorKind::Conflict,
            Some("53100") => ErrorKind::Full,
            Some(code) => match &code[..2] {
                "22" | "23" | "54" => ErrorKind::Invalid,
                // In order: connection, rollback (deadlock, serialisation), resources, lock not
                // available, operator intervention, system error.
                "08" | "40" | "53" | "55" | "57" | "58" => ErrorKind::Unavailable,
                // After a failover the server may be a read-only standby.
                _ if code == "25006" => ErrorKind::Unavailable,
                // A transaction that was idle for too long, because this process was suspended.
                _ if code == "25P03" => ErrorKind::Unavailable,
                // A migration has changed the result of a prepared statement. The next connection
                // prepares the statement again.
                _ if code == "0A000" => ErrorKind::Unavailable,
                // In order: login, unknown database, unknown schema.
                "28" | "3D" | "3F" => ErrorKind::Misconfigured,
                // In order: missing permission, missing table, missing column.
                _ if matches!(code, "42501" | "42P01" | "42703") => ErrorKind::Misconfigured,
                _ => ErrorKind::Internal,
            },
            None => ErrorKind::Internal,
        },
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => ErrorKind::Unavailable,
        // The URL cannot be parsed.
        sqlx::Error::Configuration(_) => ErrorKind::Invalid,
        _ => ErrorKind::Internal,
    };
    match error {
        sqlx::Error::Encode(reason) => PortError::invalid(operation, reason),
        sqlx::Error::Decode(reason) => PortError::new(kind, operation, reason),
        error => PortError::new(kind, operation, error),
    }
}
