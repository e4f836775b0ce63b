//! How the four ports are connected.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::locations::Locations;
use super::mode::Mode;
use super::reader::Reader;
use super::secret::SecretUrl;

/// How the four ports are connected.
#[derive(Debug, Clone)]
pub struct PortSettings {
    /// Where the data of each port is.
    pub locations: Locations,
    /// A custom S3 endpoint; `None` leaves the choice to the AWS SDK.
    pub s3_endpoint: Option<SecretUrl>,
    /// The prefix of the queues' names.
    pub queue: String,
    /// The prefix of the keys in Redis.
    pub redis_prefix: String,
    /// How long live counters are kept after their last change.
    pub progress_ttl: Duration,
    /// Whether to bring the database's schema up to date at start.
    pub migrate: bool,
    /// Whether to use a database server that only speaks the protocol of PostgreSQL.
    pub allow_unknown_postgres: bool,
    /// The maximum number of connections to the database.
    pub database_connections: u32,
    /// How long one attempt to publish a batch waits for its confirm.
    pub publish_timeout: Duration,
}

impl PortSettings {
    pub(super) fn read(reader: &mut Reader<'_>, mode: Mode) -> Self {
        Self {
            locations: Locations::read(reader, mode),
            // Some other tools read the endpoint from AWS_ENDPOINT.
            s3_endpoint: ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
                .into_iter()
                .map(|name| reader.optional_secret(name))
                .fold(None, Option::or),
            queue: reader.text("CARGA_QUEUE", "carga"),
            redis_prefix: reader.text("CARGA_REDIS_PREFIX", "carga"),
            progress_ttl: reader.seconds("CARGA_PROGRESS_TTL_SECS", 24 * 3600, 366 * 24 * 3600),
            migrate: reader.parsed("CARGA_MIGRATE", Switch(true)).0,
            allow_unknown_postgres: reader
                .parsed("CARGA_ALLOW_UNKNOWN_POSTGRES", Switch(false))
                .0,
            database_connections: reader.number("CARGA_DATABASE_CONNECTIONS", 10, 2..=1000),
            publish_timeout: reader.seconds("CARGA_PUBLISH_TIMEOUT_SECS", 10, 600),
        }
    }
}

/// `on` or `off`.
pub(super) struct Switch(pub(super) bool);

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "on" } else { "off" })
    }
}

impl FromStr for Switch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "on" => Ok(Self(true)),
            "off" => Ok(Self(false)),
            _ => Err("use `on` or `off`"),
        }
    }
}
