//! Settings: read once from the environment, every fault told at once with its variable's name.
//!
//! `.env.example` is the reference with the reasons; a test proves that it holds.

mod locations;
mod reader;
mod secret;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use locations::{ArchiveLocation, Locations, ProgressLocation, QueueLocation, StoreLocation};
pub use reader::{Effective, SettingsError};
pub use secret::SecretUrl;
use tracing_subscriber::EnvFilter;

use self::reader::Reader;
use crate::batch::BatchLimits;
use crate::queue::Prefetch;

const MIB: usize = 1 << 20;

/// Postgres remarks on every `IF NOT EXISTS` that finds something; nobody needs to read that.
const DEFAULT_FILTER: &str = "info,sqlx::postgres::notice=warn";

/// What an unset URL means to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A fault: `carga-api` and `carga-worker` need all four servers.
    Distributed,
    /// The embedded adapter: `carga` needs none.
    Embedded,
}

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the servers are.
    pub ports: PortSettings,
    /// What is logged, and how.
    pub log: LogSettings,
    /// What the API accepts.
    pub intake: IntakeSettings,
    /// How the worker works.
    pub worker: WorkerSettings,
    /// How long a process that was told to stop may finish what it is doing.
    pub grace: Duration,
    /// Every variable that was looked at, with the value in effect.
    pub effective: Vec<Effective>,
}

/// The four ports.
#[derive(Debug, Clone)]
pub struct PortSettings {
    /// Where they are.
    pub locations: Locations,
    /// A custom S3 endpoint; none means AWS itself, or what the SDK's own variables say.
    pub s3_endpoint: Option<String>,
    /// What the names of the queues start with.
    pub queue: String,
    /// What the keys in Redis start with.
    pub redis_prefix: String,
    /// How long live counters outlive an upload's end.
    pub progress_ttl: Duration,
    /// Whether to bring the database's schema up to date at start.
    pub migrate: bool,
    /// Connections to the database.
    pub database_connections: u32,
    /// A publish that is not confirmed in this time has failed once.
    pub publish_timeout: Duration,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// A `tracing` filter: `info`, `carga_worker=debug,info`, ….
    pub filter: String,
    /// For people or for machines.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl std::fmt::Display for LogFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl std::str::FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("use `text` or `json`"),
        }
    }
}

/// What the API accepts.
#[derive(Debug, Clone)]
pub struct IntakeSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Uploads at once; one more is answered 429.
    pub max_uploads: usize,
    /// The largest file.
    pub max_upload_bytes: u64,
    /// What may be in it.
    pub limits: FileLimits,
    /// When a batch closes.
    pub batch: BatchLimits,
    /// Unconfirmed batches of one upload.
    pub publish_window: usize,
    /// Bytes of unconfirmed batches of all uploads together.
    pub publish_budget_bytes: usize,
    /// How long a batch is published again before its upload fails.
    pub publish_deadline: Duration,
    /// A client may be silent for this long.
    pub body_idle: Duration,
    /// A client has this long for its request's head.
    pub header_timeout: Duration,
    /// How often figures are put on record and leases renewed.
    pub heartbeat: Duration,
}

/// How much anything in a file may be.
#[derive(Debug, Clone, Copy)]
pub struct FileLimits {
    /// A file after it is expanded, in bytes.
    pub expanded_bytes: u64,
    /// How many bytes each byte of it may expand to, on the whole.
    pub expansion: u64,
    /// Columns.
    pub columns: usize,
    /// The first record, in bytes.
    pub header_bytes: usize,
    /// A cell without its quotes, in bytes.
    pub field_bytes: usize,
    /// A record with its line end, in bytes.
    pub row_bytes: usize,
    /// Rejected rows kept of one upload.
    pub rejects: u64,
}

/// How the worker works.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// What is in hand at most. It bounds the worker's memory.
    pub prefetch: Prefetch,
    /// Archive writes at once.
    pub archive_concurrency: usize,
    /// Batches stored in one transaction at most.
    pub group_batches: usize,
    /// Transactions at once.
    pub store_sessions: usize,
    /// A receiving upload whose API has been silent for this long has failed.
    pub lease: Duration,
    /// How often the sweeper looks for what was left behind.
    pub sweep: Duration,
    /// How long the archive of a failed upload is kept.
    pub archive_grace: Duration,
    /// A file touched every few seconds while the worker lives, for health checks. `carga` needs none: it answers over HTTP.
    pub heartbeat_file: Option<PathBuf>,
}

impl Settings {
    /// Reads the process's environment.
    pub fn from_env(mode: Mode) -> Result<Self, SettingsError> {
        Self::read(mode, &|name| std::env::var(name).ok())
    }

    /// Reads from anything that knows variables.
    pub fn read(
        mode: Mode,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let mut reader = Reader::new(lookup);
        let mut settings = Self {
            ports: ports(&mut reader, mode),
            log: log(&mut reader),
            intake: intake(&mut reader),
            worker: worker(&mut reader, mode),
            grace: reader.seconds("CARGA_GRACE_SECS", 30, 3600),
            effective: Vec::new(),
        };
        if settings.worker.lease < 4 * settings.intake.heartbeat {
            reader.fault(format!(
                "CARGA_LEASE_SECS={}: must be at least four times CARGA_HEARTBEAT_MS ({})",
                settings.worker.lease.as_secs(),
                settings.intake.heartbeat.as_millis()
            ));
        }
        let batch = settings.intake.batch.bytes;
        // A batch may close just before a row as large as a whole batch.
        if settings.intake.publish_budget_bytes < 2 * batch {
            reader.fault(format!(
                "CARGA_PUBLISH_BUDGET_BYTES={}: must be at least twice CARGA_BATCH_BYTES ({batch})",
                settings.intake.publish_budget_bytes
            ));
        }
        settings.effective = reader.finish()?;
        Ok(settings)
    }
}

/// Only the settings for logs, to be able to log what is wrong with the rest.
pub fn log_settings() -> LogSettings {
    let lookup = |name: &str| std::env::var(name).ok();
    log(&mut Reader::new(&lookup))
}

fn ports(reader: &mut Reader<'_>, mode: Mode) -> PortSettings {
    PortSettings {
        locations: Locations::read(reader, mode),
        // AWS_ENDPOINT is what some other tools call it.
        s3_endpoint: ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
            .into_iter()
            .map(|name| reader.optional(name, None))
            .fold(None, Option::or),
        queue: reader.text("CARGA_QUEUE", "carga"),
        redis_prefix: reader.text("CARGA_REDIS_PREFIX", "carga"),
        progress_ttl: reader.seconds("CARGA_PROGRESS_TTL_SECS", 24 * 3600, 366 * 24 * 3600),
        migrate: reader.parsed("CARGA_MIGRATE", Switch(true)).0,
        database_connections: reader.number("CARGA_DATABASE_CONNECTIONS", 10, 2..=1000),
        publish_timeout: reader.seconds("CARGA_PUBLISH_TIMEOUT_SECS", 10, 600),
    }
}

fn log(reader: &mut Reader<'_>) -> LogSettings {
    let filter = reader.text("CARGA_LOG", DEFAULT_FILTER);
    if let Err(error) = EnvFilter::try_new(&filter) {
        reader.fault(format!("CARGA_LOG={filter}: {error}"));
    }
    LogSettings {
        filter,
        format: reader.parsed("CARGA_LOG_FORMAT", LogFormat::Text),
    }
}

fn intake(reader: &mut Reader<'_>) -> IntakeSettings {
    IntakeSettings {
        listen: reader.parsed("CARGA_LISTEN", SocketAddr::from(([127, 0, 0, 1], 8080))),
        max_uploads: reader.number("CARGA_MAX_UPLOADS", 64, 1..=100_000),
        max_upload_bytes: reader.number("CARGA_MAX_UPLOAD_BYTES", 10 << 30, 1..=1 << 50),
        limits: FileLimits {
            expanded_bytes: reader.number("CARGA_MAX_EXPANDED_BYTES", 100 << 30, 1..=1 << 50),
            expansion: reader.number("CARGA_MAX_EXPANSION", 200, 1..=100_000),
            columns: reader.number("CARGA_MAX_COLUMNS", 1600, 1..=100_000),
            header_bytes: reader.number("CARGA_MAX_HEADER_BYTES", MIB, 1..=16 * MIB),
            field_bytes: reader.number("CARGA_MAX_FIELD_BYTES", MIB, 1..=16 * MIB),
            row_bytes: reader.number("CARGA_MAX_ROW_BYTES", 4 * MIB, 1..=16 * MIB),
            rejects: reader.number("CARGA_MAX_REJECTS", 1_000_000, 0..=1 << 40),
        },
        batch: BatchLimits {
            rows: reader.number("CARGA_BATCH_ROWS", 1000, 1..=100_000),
            bytes: reader.number("CARGA_BATCH_BYTES", 4 * MIB, 1024..=6 * MIB),
        },
        publish_window: reader.number("CARGA_PUBLISH_WINDOW", 32, 1..=1000),
        publish_budget_bytes: reader.number("CARGA_PUBLISH_BUDGET_BYTES", 64 * MIB, 2048..=1 << 31),
        publish_deadline: reader.seconds("CARGA_PUBLISH_DEADLINE_SECS", 60, 3600),
        body_idle: reader.seconds("CARGA_BODY_IDLE_SECS", 60, 3600),
        header_timeout: reader.seconds("CARGA_HEADER_TIMEOUT_SECS", 15, 600),
        heartbeat: reader.milliseconds("CARGA_HEARTBEAT_MS", 250, 10_000),
    }
}

fn worker(reader: &mut Reader<'_>, mode: Mode) -> WorkerSettings {
    let default_file = (mode == Mode::Distributed).then(|| {
        std::env::temp_dir()
            .join("carga-worker.alive")
            .display()
            .to_string()
    });
    WorkerSettings {
        prefetch: Prefetch {
            batches: reader.number("CARGA_PREFETCH", 96, 1..=2000),
            bytes: reader.number("CARGA_PREFETCH_BYTES", 24 * MIB, MIB..=1 << 40),
        },
        archive_concurrency: reader.number("CARGA_ARCHIVE_CONCURRENCY", 64, 1..=1000),
        group_batches: reader.number("CARGA_GROUP_BATCHES", 16, 1..=256),
        store_sessions: reader.number("CARGA_STORE_SESSIONS", 2, 1..=64),
        lease: reader.seconds("CARGA_LEASE_SECS", 60, 3600),
        sweep: reader.milliseconds("CARGA_SWEEP_MS", 10_000, 3_600_000),
        archive_grace: reader.seconds("CARGA_ARCHIVE_GRACE_SECS", 24 * 3600, 366 * 24 * 3600),
        heartbeat_file: reader
            .optional("CARGA_HEARTBEAT_FILE", default_file.as_deref())
            .or(default_file)
            .map(PathBuf::from),
    }
}

/// `on` or `off`.
struct Switch(bool);

impl std::fmt::Display for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0 { "on" } else { "off" })
    }
}

impl std::str::FromStr for Switch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "on" => Ok(Self(true)),
            "off" => Ok(Self(false)),
            _ => Err("use `on` or `off`"),
        }
    }
}

#[cfg(test)]
mod tests;
