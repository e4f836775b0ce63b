//! The store on Postgres 14 and later.
//!
//! Every transaction that writes rows holds a *shared advisory* lock on its upload, and every
//! change of status holds the exclusive one. The status is read in a separate statement after the
//! lock, since READ COMMITTED takes a new snapshot per statement. Row locks would protect the same,
//! but under load a change of status waits many seconds for them. With advisory locks it waits only
//! for the transactions that have already started.

mod batches;
mod completion;
pub mod copy;
mod dead_letters;
mod maintenance;
mod rejects;
mod rows;
mod uploads;

use std::time::Duration;

use async_trait::async_trait;
use sqlx::PgConnection;
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use uuid::Uuid;

use super::{StoreConnection, sql};
use crate::error::{ErrorKind, PortError, PortResult};
use crate::upload::{UploadId, UploadKey};

static MIGRATIONS: sql::EmbeddedMigrations =
    include!(concat!(env!("OUT_DIR"), "/postgres_migrations.rs"));

/// A little longer than the server's `statement_timeout`, so that the server reports a timeout
/// first.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(75);

/// How to reach Postgres and how to use it.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// `postgres://…`
    pub url: String,
    /// The name of this program in `pg_stat_activity`.
    pub program: String,
    /// The maximum number of connections.
    pub connections: u32,
    /// Whether to bring the schema up to date.
    pub migrate: bool,
}

/// [`Store`](super::Store) on Postgres.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: PgPool,
}

impl PostgresStore {
    /// Connects and brings the schema up to date. Fails if the schema is newer than this build.
    pub async fn connect(settings: PostgresSettings) -> PortResult<Self> {
        const OPERATION: &str = "store.connect";
        let options: PgConnectOptions = settings
            .url
            .parse()
            .map_err(|error: sqlx::Error| PortError::new(ErrorKind::Invalid, OPERATION, error))?;
        let options = options.application_name(&settings.program).options([
            ("statement_timeout", "60s"),
            ("lock_timeout", "30s"),
            ("idle_in_transaction_session_timeout", "60s"),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(settings.connections)
            .acquire_timeout(Duration::from_secs(10))
            // The test costs a round trip before every use. Without it, the first query on a broken
            // connection fails, and callers retry.
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(|error| port_error(OPERATION, error))?;
        if settings.migrate {
            // sqlx holds an advisory lock during the migration, so replicas that start together
            // take turns.
            sql::migrated(migrate(&pool).await, port_error)?;
        }
        Ok(Self { pool })
    }
}

async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    sql::migrator(MIGRATIONS).await?.run(pool).await
}

#[async_trait]
impl StoreConnection for PostgresStore {
    async fn ping(&self) -> PortResult<()> {
        call("store.ping", async {
            sqlx::query("SELECT 1").execute(&self.pool).await?;
            Ok(())
        })
        .await
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

/// Runs one call of the port: limits its time and maps its error. Without the limit, a call to a
/// server that vanished without closing its connections would wait many minutes, until the kernel
/// closes them.
async fn call<T>(
    operation: &'static str,
    work: impl Future<Output = sqlx::Result<T>>,
) -> PortResult<T> {
    match tokio::time::timeout(CLIENT_TIMEOUT, work).await {
        Ok(outcome) => outcome.map_err(|error| port_error(operation, error)),
        Err(_) => {
            let seconds = CLIENT_TIMEOUT.as_secs();
            let reason = format!("Postgres did not answer within {seconds} s");
            Err(PortError::unavailable(operation, reason))
        }
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

/// Maps an error by its SQLSTATE. Errors that the data causes are *invalid*. Errors that may pass
/// with time, a restart or more resources are *unavailable*. So is contention, since the same
/// transaction can be run again. Errors that an operator can correct are *misconfigured*.
fn port_error(operation: &'static str, error: sqlx::Error) -> PortError {
    let kind = match &error {
        sqlx::Error::Database(cause) => match cause.code().as_deref() {
            Some("23505") => ErrorKind::Conflict,
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
        _ => ErrorKind::Internal,
    };
    match error {
        sqlx::Error::Encode(reason) => PortError::invalid(operation, reason),
        sqlx::Error::Decode(reason) => PortError::new(kind, operation, reason),
        error => PortError::new(kind, operation, error),
    }
}
