//! Examines the server at start, before the first migration.
//!
//! A replica refuses every write, and its rows may be older than those of the primary. A server
//! that only speaks the protocol of PostgreSQL may commit, lock or recover in another way, and then
//! Carga's promises do not hold on it.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Executor, Row};
use tokio::time::{Instant, sleep, timeout};

use super::connections::{ACQUIRE_TIMEOUT, SHORT, silent};
use super::{PostgresSettings, has_code, port_error};
use crate::error::{ErrorKind, PortError, PortResult};

/// The oldest major version that has everything that Carga uses.
const OLDEST: u32 = 14;

/// The pause before a read-only server is examined again.
const PAUSE: Duration = Duration::from_millis(500);

/// Every PostgreSQL since 9.6 has this function, and no server with another storage needs it. A
/// managed service may forbid calling it, so only the catalog is asked.
const CONTROL_DATA: &str = "SELECT to_regproc('pg_catalog.pg_control_system') IS NOT NULL";

/// Refuses a server on which Carga cannot keep its promises, and logs a warning about settings that
/// endanger stored rows.
pub(super) async fn examine(settings: &PostgresSettings) -> PortResult<()> {
    const OPERATION: &str = "store.connect";
    let server = wait_until_writable(settings).await;
    let server = server.map_err(|error| port_error(OPERATION, error))?;
    if let Some(fault) = server.fault(settings.allow_unknown) {
        let reason = format!("DATABASE_URL={}: {fault}", settings.url);
        return Err(PortError::new(ErrorKind::Misconfigured, OPERATION, reason));
    }
    if server.major_version().is_none() {
        tracing::warn!(
            version = server.version(),
            "the server of DATABASE_URL does not seem to be PostgreSQL itself; it is used because \
             of CARGA_ALLOW_UNKNOWN_POSTGRES=on, and Carga's promises were not tested on it"
        );
    }
    for setting in server.risks() {
        tracing::warn!(
            "the server of DATABASE_URL has {setting}=off: a crash of its machine may lose or \
             damage rows that Carga called stored; set {setting}=on, unless a managed service has \
             another protection against such a crash"
        );
    }
    Ok(())
}

/// Describes the server. During a failover, the server may be a replica that is about to be
/// promoted, so a read-only server gets as much time as one that does not accept connections yet.
async fn wait_until_writable(settings: &PostgresSettings) -> sqlx::Result<Server> {
    // Another server may refuse the options and the first statements of Carga's sessions, and its
    // error would not say why. So these connections have neither.
    let options: PgConnectOptions = settings.url.expose().parse()?;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options.application_name(&settings.program));
    let end = Instant::now() + ACQUIRE_TIMEOUT;
    loop {
        let server = describe(&pool).await?;
        if server.is_writable() || Instant::now() >= end {
            return Ok(server);
        }
        sleep(PAUSE).await;
    }
}

/// Describes the server through a new connection, because the address may lead to another server
/// meanwhile.
async fn describe(pool: &PgPool) -> sqlx::Result<Server> {
    let mut connection = pool.acquire().await?;
    connection.close_on_drop();
    let described = timeout(SHORT, Server::ask(&mut connection)).await;
    let server = described.map_err(|_| silent(SHORT))??;
    // The answers are known, so an error of the closing does not matter.
    let _ = timeout(SHORT, connection.close()).await;
    Ok(server)
}

/// The answers of a server. `None` if the server refuses the question.
#[derive(Debug, Default)]
struct Server {
    version: Option<String>,
    has_control_data: Option<String>,
    is_in_recovery: Option<String>,
    is_read_only: Option<String>,
    fsync: Option<String>,
    full_page_writes: Option<String>,
}

impl Server {
    async fn ask(connection: &mut PgConnection) -> sqlx::Result<Self> {
        Ok(Self {
            version: answer(connection, "SELECT version()").await?,
            has_control_data: answer(connection, CONTROL_DATA).await?,
            is_in_recovery: answer(connection, "SELECT pg_is_in_recovery()").await?,
            is_read_only: answer(connection, "SHOW transaction_read_only").await?,
            fsync: answer(connection, "SHOW fsync").await?,
            full_page_writes: answer(connection, "SHOW full_page_writes").await?,
        })
    }

    fn version(&self) -> &str {
        self.version.as_deref().unwrap_or("unknown")
    }

    /// The major version of PostgreSQL. `None` if the server is not PostgreSQL.
    fn major_version(&self) -> Option<u32> {
        let major = major_version(self.version())?;
        is_on(&self.has_control_data).then_some(major)
    }

    fn is_writable(&self) -> bool {
        !is_on(&self.is_in_recovery) && !is_on(&self.is_read_only)
    }

    /// Why Carga cannot use this server, and the remedy.
    fn fault(&self, allow_unknown: bool) -> Option<String> {
        match self.major_version() {
            None if !allow_unknown => Some(format!(
                "the server does not seem to be PostgreSQL itself: {}; use PostgreSQL {OLDEST} or \
                 later, or set CARGA_ALLOW_UNKNOWN_POSTGRES=on to use this server, on which \
                 Carga's promises were not tested",
                self.evidence()
            )),
            Some(major) if major < OLDEST => Some(format!(
                "the server is PostgreSQL {major}, and Carga needs PostgreSQL {OLDEST} or later; \
                 upgrade the server"
            )),
            _ if is_on(&self.is_in_recovery) => Some(
                "the server is in recovery (pg_is_in_recovery() is true), so it is a replica or is \
                 being restored, and it refuses every write; name the primary, or promote the \
                 server"
                    .to_owned(),
            ),
            _ if is_on(&self.is_read_only) => Some(
                "every transaction is read-only (default_transaction_read_only is on); set it to \
                 off for the role, the database or the server. A managed service may set it \
                 because the disk is full; then make room first"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// Why the server does not seem to be PostgreSQL.
    fn evidence(&self) -> String {
        let version = self.version();
        match is_on(&self.has_control_data) {
            true => format!("its version is {version:?}"),
            false => {
                format!("its version is {version:?}, and it has no function pg_control_system")
            }
        }
    }

    /// The settings without which a crash of the machine can lose committed rows.
    fn risks(&self) -> impl Iterator<Item = &'static str> {
        let settings = [
            ("fsync", &self.fsync),
            ("full_page_writes", &self.full_page_writes),
        ];
        let is_off = |value: &Option<String>| value.as_deref() == Some("off");
        settings
            .into_iter()
            .filter_map(move |(name, value)| is_off(value).then_some(name))
    }
}

/// The first column of the answer as text. `None` if the server refuses the question.
async fn answer(
    connection: &mut PgConnection,
    question: &'static str,
) -> sqlx::Result<Option<String>> {
    /// In order: connection, resources, operator intervention, system error. These say nothing
    /// about the question.
    const PASSING: [&str; 4] = ["08", "53", "57", "58"];
    match connection.fetch_one(question).await {
        // Servers give texts and booleans different types, but without a prepared statement each
        // value is a text.
        Ok(row) => row.try_get_unchecked::<Option<String>, _>(0),
        Err(sqlx::Error::RowNotFound) => Ok(None),
        Err(error) if error.as_database_error().is_some() && !has_code(&error, &PASSING) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn is_on(answer: &Option<String>) -> bool {
    matches!(answer.as_deref(), Some("t" | "true" | "on"))
}

/// The major version of the PostgreSQL that makes this `version()`, such as `PostgreSQL 15.4
/// (Debian 15.4-2) on x86_64-pc-linux-gnu, compiled by gcc 12.2.0, 64-bit`. `None` for the text of
/// another server.
///
/// Other servers leave parts out or append their name. A product that is made from PostgreSQL has
/// its own version in place of the packager's words, which repeat the version of PostgreSQL or have
/// none.
fn major_version(version: &str) -> Option<u32> {
    let (build, compiler) = version
        .strip_prefix("PostgreSQL ")?
        .split_once(", compiled by ")?;
    let (_, bits) = compiler.rsplit_once(", ")?;
    // Before version 17, the text has no platform on Windows.
    let (product, _platform) = build.rsplit_once(" on ").unwrap_or((build, ""));
    let (number, packager) = product.split_once(' ').unwrap_or((product, ""));
    // Such as `15.4` and `18beta1`, but not `15.2-YB-2.25.0.0`.
    let is_plain = number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase() || byte == b'.');
    let is_packaged = packager.contains(number) || !has_version(packager);
    if !(matches!(bits, "64-bit" | "32-bit") && is_plain && is_packaged) {
        return None;
    }
    let major = number.split(|c: char| !c.is_ascii_digit()).next()?;
    major.parse().ok()
}

/// Whether a text has a number with a dot, such as `7.0`.
fn has_version(text: &str) -> bool {
    let is_version = |bytes: &[u8]| match bytes {
        [before, b'.', after] => before.is_ascii_digit() && after.is_ascii_digit(),
        _ => false,
    };
    text.as_bytes().windows(3).any(is_version)
}

#[cfg(test)]
mod tests;
