//! The store on Postgres 14 and later.
//!
//! Every transaction that writes rows holds a *shared advisory* lock on its upload, and every change of status holds the
//! exclusive one; the status is read in a statement after the lock, since READ COMMITTED takes a new snapshot per
//! statement. Row locks would do the same and were tried: under load a change of status waited many seconds behind them,
//! with advisory locks it waits for the transactions in flight and no longer.

mod batches;
pub mod copy;
mod maintenance;
mod rejects;
mod uploads;

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use super::{
    ArchivedBatch, Completion, DeadBatch, Heartbeat, LedgerEntry, Leftovers, NewUpload, Parked,
    Removal, Seal, Store, StoreOutcome, StoredRow, UploadQuery, rules, sql,
};
use crate::batch::BatchId;
use crate::error::{ErrorKind, PortError, PortResult};
use crate::progress::Snapshot;
use crate::rejects::RejectedRow;
use crate::upload::{Failure, Upload, UploadId};

static MIGRATIONS: sql::EmbeddedMigrations =
    include!(concat!(env!("OUT_DIR"), "/postgres_migrations.rs"));

/// A little more than the server's own `statement_timeout`, which is to speak first.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(75);

/// How to reach Postgres and how to use it.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// `postgres://…`
    pub url: String,
    /// Which program this is, for `pg_stat_activity`.
    pub program: String,
    /// Connections at most.
    pub connections: u32,
    /// Whether to bring the schema up to date.
    pub migrate: bool,
}

/// [`Store`] on Postgres.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: PgPool,
}

impl PostgresStore {
    /// Connects and brings the schema up to date. A schema newer than this build is refused.
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
            // A round trip before every use; a broken connection shows itself soon enough, and callers try again.
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(|error| port_error(OPERATION, error))?;
        if settings.migrate {
            // sqlx holds an advisory lock meanwhile, so replicas that start together take turns.
            rules::migrated(migrate(&pool).await, port_error)?;
        }
        Ok(Self { pool })
    }
}

async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    sql::migrator(MIGRATIONS).await?.run(pool).await
}

#[async_trait]
impl Store for PostgresStore {
    async fn create(&self, upload: &NewUpload) -> PortResult<Upload> {
        in_time(uploads::create(&self.pool, upload)).await
    }

    async fn heartbeat(&self, beats: &[Heartbeat]) -> PortResult<Vec<UploadId>> {
        in_time(uploads::heartbeat(&self.pool, beats)).await
    }

    async fn seal(&self, id: UploadId, epoch: i32, seal: &Seal) -> PortResult<bool> {
        in_time(uploads::seal(&self.pool, id, epoch, seal)).await
    }

    async fn fail(
        &self,
        id: UploadId,
        epoch: i32,
        failure: &Failure,
        last: Option<Heartbeat>,
    ) -> PortResult<bool> {
        in_time(uploads::end(&self.pool, id, epoch, Some(failure), last)).await
    }

    async fn cancel(&self, id: UploadId, epoch: i32) -> PortResult<bool> {
        in_time(uploads::end(&self.pool, id, epoch, None, None)).await
    }

    async fn undo(&self, id: UploadId, epoch: i32) -> PortResult<bool> {
        in_time(uploads::undo(&self.pool, id, epoch)).await
    }

    async fn reject(&self, id: UploadId, epoch: i32, rows: &[RejectedRow]) -> PortResult<bool> {
        in_time(rejects::reject(&self.pool, id, epoch, rows)).await
    }

    fn rejected(&self, id: UploadId) -> BoxStream<'_, PortResult<RejectedRow>> {
        rejects::rejected(&self.pool, id)
    }

    async fn same_content(&self, sha256: [u8; 32], but: UploadId) -> PortResult<Option<UploadId>> {
        in_time(uploads::same_content(&self.pool, sha256, but)).await
    }

    async fn remove_rows(&self, id: UploadId) -> PortResult<Removal> {
        in_time(maintenance::remove_rows(&self.pool, id)).await
    }

    async fn archive_removed(&self, id: UploadId) -> PortResult<()> {
        in_time(maintenance::archive_removed(&self.pool, id)).await
    }

    async fn upload(&self, id: UploadId) -> PortResult<Option<Upload>> {
        in_time(uploads::find(&self.pool, id)).await
    }

    async fn uploads(&self, query: &UploadQuery) -> PortResult<Vec<Upload>> {
        in_time(uploads::list(&self.pool, query)).await
    }

    fn rows(&self, id: UploadId) -> BoxStream<'_, PortResult<StoredRow>> {
        batches::rows(&self.pool, id)
    }

    async fn progress(&self, id: UploadId, epoch: i32) -> PortResult<Snapshot> {
        in_time(batches::progress(&self.pool, id, epoch)).await
    }

    async fn store(&self, group: &[ArchivedBatch]) -> PortResult<Vec<StoreOutcome>> {
        in_time(batches::store(&self.pool, group)).await
    }

    async fn admits(&self, id: BatchId) -> PortResult<bool> {
        in_time(batches::admits(&self.pool, id)).await
    }

    async fn completion(&self, id: UploadId) -> PortResult<Completion> {
        in_time(batches::completion(&self.pool, id)).await
    }

    async fn ledger(&self, id: UploadId, epoch: i32) -> PortResult<Vec<LedgerEntry>> {
        in_time(batches::ledger(&self.pool, id, epoch)).await
    }

    async fn complete(&self, id: UploadId, epoch: i32) -> PortResult<bool> {
        in_time(uploads::complete(&self.pool, id, epoch)).await
    }

    async fn park(&self, batch: &DeadBatch) -> PortResult<Parked> {
        in_time(batches::park(&self.pool, batch)).await
    }

    async fn leftovers(&self, lease: Duration, archive_grace: Duration) -> PortResult<Leftovers> {
        in_time(maintenance::leftovers(&self.pool, lease, archive_grace)).await
    }

    async fn ping(&self) -> PortResult<()> {
        sqlx::query("SELECT 1")
            .execute(&self.pool)
            .await
            .map_err(|error| port_error("store.ping", error))?;
        Ok(())
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

/// A server that vanished without closing its connections would be waited for until the kernel gives up, many minutes later.
async fn in_time<T>(work: impl Future<Output = PortResult<T>>) -> PortResult<T> {
    tokio::time::timeout(CLIENT_TIMEOUT, work)
        .await
        .unwrap_or_else(|_| {
            let reason = format!(
                "Postgres did not answer within {} s",
                CLIENT_TIMEOUT.as_secs()
            );
            Err(PortError::unavailable("store.call", reason))
        })
}

/// The advisory lock that fences an upload: its id folded to 64 bits. Two uploads that share a lock only wait for each other.
fn fence_key(id: UploadId) -> i64 {
    let (high, low) = id.as_uuid().as_u64_pair();
    (high ^ low).cast_signed()
}

/// Takes the exclusive lock for the rest of the transaction: whoever was storing rows of this upload has finished.
async fn lock_status(connection: &mut sqlx::PgConnection, id: UploadId) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(fence_key(id))
        .execute(connection)
        .await?;
    Ok(())
}

/// Maps an error by its SQLSTATE. What data can cause is *invalid*; what time, a restart or more room can cure is
/// *unavailable*; contention is too, since the same transaction may simply be run again.
fn port_error(operation: &'static str, error: sqlx::Error) -> PortError {
    let kind = match &error {
        sqlx::Error::Database(refusal) => match refusal.code().as_deref() {
            Some("23505") => ErrorKind::Conflict,
            Some("53100") => ErrorKind::Full,
            Some(code) => match &code[..2] {
                "22" | "23" | "54" => ErrorKind::Invalid,
                // Connection, rollback (deadlock, serialisation), resources, lock not available, operator, system.
                "08" | "40" | "53" | "55" | "57" | "58" => ErrorKind::Unavailable,
                // A standby after a failover.
                _ if code == "25006" => ErrorKind::Unavailable,
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
    PortError::new(kind, operation, error)
}
