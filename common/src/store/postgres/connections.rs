//! Connections to Postgres: how they open, how long a call may take, and when they are closed.
//!
//! A server can vanish without closing its connections: its host loses power, or a failover moves
//! its address. The kernel then notices after a quarter of an hour. Every call therefore has a time
//! limit. A connection whose call did not end in order is closed, and an idle connection is tested
//! before its next call. Settings of the session make the server detect vanished clients.

use std::io;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, Postgres};
use sqlx::{Connection, Executor};

use super::{PostgresSettings, has_code, port_error};
use crate::error::PortResult;
use crate::metrics::calls;
use crate::store::{ConnectionUse, sql};

/// The time limit of a call that reads a few records or writes one. Such a call takes milliseconds.
pub(super) const SHORT: Duration = Duration::from_secs(10);

/// The time limit of every other call. It is a little longer than the server's `statement_timeout`,
/// so that the server reports a timeout first.
pub(super) const LONG: Duration = Duration::from_secs(75);

/// The time limit of a call that merges the rows of an upload into the table of its dataset, or
/// takes a merge back. It is a little longer than [`MERGE_STATEMENT`].
pub(super) const MERGE: Duration = Duration::from_secs(15 * 60);

/// Lets each statement of such a call take longer than the setting of the session.
pub(super) const MERGE_STATEMENT: &str = "SELECT set_config('statement_timeout', '14min', true)";

/// The time limit in [`MERGE_STATEMENT`].
pub(super) const MERGE_STATEMENT_LIMIT: Duration = Duration::from_secs(14 * 60);

/// How long a call waits for a connection.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a renewal of leases, or the search for a key, waits for its connection. sqlx pauses for
/// up to a fifth of this time between two attempts to connect, and leases must be renewed soon
/// after an outage.
const QUICK_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that was idle for longer is tested before its next call. A test costs a round
/// trip, so busy connections are not tested.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(1);

/// The time limit of such a test.
const TEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Settings of every session.
///
/// The keepalives make the server detect a vanished client within 40 seconds. Without them, a
/// worker that vanishes during a COPY would hold its locks for two hours: neither
/// `statement_timeout` nor `idle_in_transaction_session_timeout` ends a COPY that waits for data.
///
/// `carga.tenants` tells the triggers of migration 0012 that this version knows tenants.
/// [`OPENING`] sets it too.
const SESSION: [(&str, &str); 8] = [
    ("statement_timeout", "60s"),
    ("lock_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("tcp_keepalives_idle", "20"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "4"),
    ("tcp_user_timeout", "30000"),
    ("carga.tenants", "on"),
];

/// The first statements of every session.
///
/// A pooler between Carga and Postgres may drop the options in [`SESSION`]. Without the setting
/// `carga.tenants`, no batch for the table of another tenant than `default` could be stored.
///
/// Commits are durable, whatever the default of the database or the role is. Stronger settings than
/// `on`, such as `remote_apply`, stay as they are.
///
/// After taking a lock, Carga reads in a second statement what earlier holders of the lock have
/// committed. Only the isolation `read committed` lets this statement see it.
const OPENING: &str = "SET carga.tenants = 'on';
    SET default_transaction_isolation = 'read committed';
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') IN ('off', 'local')";

/// A pool of connections with the same settings.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    pool: PgPool,
}

impl Connections {
    /// Opens the first connection.
    pub(super) async fn open(settings: &PostgresSettings) -> sqlx::Result<Self> {
        let options: PgConnectOptions = settings.url.expose().parse()?;
        let options = options.application_name(&settings.program).options(SESSION);
        let pool = pool_options(settings.connections);
        let pool = pool.connect_with(options).await?;
        Ok(Self { pool })
    }

    /// One connection to the same server, apart from these. It opens at first use.
    pub(super) fn one_more(&self) -> Self {
        let options = (*self.pool.connect_options()).clone();
        let pool = pool_options(1).acquire_timeout(QUICK_ACQUIRE_TIMEOUT);
        let pool = pool.connect_lazy_with(options);
        Self { pool }
    }

    /// Runs one call of the port: limits its time, maps its error and measures it.
    pub(super) async fn call<T>(
        &self,
        operation: &'static str,
        limit: Duration,
        work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> PortResult<T> {
        let running = calls::begin(operation);
        let outcome = self.run(limit, work).await;
        running.end(outcome.map_err(|error| port_error(operation, error)))
    }

    /// Runs the work of one call on a connection. The connection is closed, and not used again, if
    /// the connection fails, or if the work exceeds its time limit or is cancelled.
    async fn run<T>(
        &self,
        limit: Duration,
        work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        let mut checked = Checked {
            connection: self.pool.acquire().await?,
            is_in_order: false,
        };
        let outcome = tokio::time::timeout(limit, work(&mut checked.connection)).await;
        let outcome = outcome.map_err(|_| silent(limit))?;
        checked.is_in_order = match &outcome {
            Ok(_) => true,
            Err(error) => is_refusal(error),
        };
        outcome
    }

    /// Brings the schema up to date. sqlx holds an advisory lock meanwhile, so replicas that start
    /// together take turns.
    pub(super) async fn migrate(
        &self,
        migrations: sql::EmbeddedMigrations,
    ) -> Result<(), MigrateError> {
        let mut connection = self.pool.acquire().await?;
        connection.close_on_drop();
        // A migration of a large table, or the wait for another replica's, may take long.
        connection
            .execute("SET statement_timeout = 0; SET lock_timeout = 0")
            .await?;
        let migrator = sql::migrator(migrations).await?;
        migrator.run(&mut *connection).await
    }

    pub(super) fn in_use(&self) -> ConnectionUse {
        let max = self.pool.options().get_max_connections();
        ConnectionUse::of_pool(self.pool.size(), self.pool.num_idle(), max)
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

fn pool_options(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .after_connect(|connection, _| {
            Box::pin(async {
                connection.execute(OPENING).await?;
                Ok(())
            })
        })
        .before_acquire(|connection, usage| {
            Box::pin(async move {
                if usage.idle_for > TEST_AFTER_IDLE {
                    let tested = tokio::time::timeout(TEST_TIMEOUT, connection.ping()).await;
                    tested.map_err(|_| silent(TEST_TIMEOUT))??;
                }
                Ok(true)
            })
        })
}

/// Whether the server has refused a statement and goes on with the session. The session ends after
/// a connection exception, an invalid transaction state or the intervention of an operator. It must
/// end after `0A` too: a prepared statement whose result a migration has changed fails each time.
pub(super) fn is_refusal(error: &sqlx::Error) -> bool {
    const ENDING: [&str; 4] = ["08", "0A", "25", "57"];
    error.as_database_error().is_some() && !has_code(error, &ENDING)
}

/// The error of a server that does not answer.
pub(super) fn silent(limit: Duration) -> sqlx::Error {
    let reason = format!("Postgres did not answer within {} s", limit.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, reason).into()
}

/// A connection that is closed unless its work has ended in order. sqlx would return it to the
/// pool, and test it there without a time limit.
struct Checked {
    connection: PoolConnection<Postgres>,
    is_in_order: bool,
}

impl Drop for Checked {
    fn drop(&mut self) {
        if !self.is_in_order {
            self.connection.close_on_drop();
        }
    }
}
