//! What the API accepts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::locations::Locations;
use super::origins::AllowedOrigins;
use super::reader::{MIB, Reader};
use super::tls::TlsSettings;
use crate::batch::BatchLimits;

const YEAR_SECS: u32 = 365 * 24 * 3600;

/// What the API accepts.
#[derive(Debug, Clone)]
pub struct IntakeSettings {
    /// The address that the API listens on.
    pub listen: SocketAddr,
    /// The certificate of this port; `None` stands for HTTP without TLS.
    pub tls: Option<TlsSettings>,
    /// For how many seconds a browser uses the host only with TLS, if this port has TLS. With 0, it
    /// gets no such header.
    pub hsts_secs: u32,
    /// Other origins whose pages may use the API.
    pub allowed_origins: AllowedOrigins,
    /// Concurrent uploads; a further one is answered with 429.
    pub max_uploads: usize,
    /// The size of the largest file that a client may send.
    pub max_upload_bytes: u64,
    /// Limits on the contents of a file.
    pub limits: FileLimits,
    /// When a batch closes.
    pub batch: BatchLimits,
    /// How many batches of one upload may be unconfirmed.
    pub publish_window: usize,
    /// How many bytes the unconfirmed batches of all uploads may have together.
    pub publish_budget_bytes: usize,
    /// How long publishing a batch is retried before its upload fails.
    pub publish_deadline: Duration,
    /// How long a client may send nothing before its upload fails.
    pub body_idle: Duration,
    /// The bytes per second that a client must send on average; 0 for no minimum.
    pub body_min_rate: u64,
    /// How long a client may take to send the head of a request; before that, as long for the
    /// handshake of TLS.
    pub header_timeout: Duration,
    /// How often leases are renewed and the figures of receiving uploads are recorded.
    pub heartbeat: Duration,
    /// How long the rows of a validation may be tried in the table of their dataset: at most as
    /// long as a merge may take.
    pub validate: Duration,
    /// The directory of temporary files: the data directory, which only its owner can open; `None`
    /// stands for that of the system.
    pub temporary_directory: Option<PathBuf>,
}

/// Limits on one file.
#[derive(Debug, Clone, Copy)]
pub struct FileLimits {
    /// The size of a decompressed file, in bytes.
    pub decompressed_bytes: u64,
    /// How many times larger a decompressed file may be than the file that was sent.
    pub expansion: u64,
    /// The number of columns.
    pub columns: usize,
    /// The length of a column's name, in bytes.
    pub column_name_bytes: usize,
    /// The length of the first record, in bytes.
    pub header_bytes: usize,
    /// The length of a cell without its quotes, in bytes.
    pub field_bytes: usize,
    /// The length of a record with its line end, in bytes.
    pub row_bytes: usize,
    /// How many rejected rows are kept per upload.
    pub rejects: u64,
}

impl IntakeSettings {
    pub(super) fn read(reader: &mut Reader<'_>, locations: &Locations) -> Self {
        Self {
            listen: reader.parsed("CARGA_LISTEN", SocketAddr::from(([127, 0, 0, 1], 8080))),
            tls: TlsSettings::read(reader),
            hsts_secs: reader.number("CARGA_HSTS_SECS", YEAR_SECS, 0..=10 * YEAR_SECS),
            allowed_origins: AllowedOrigins::read(reader),
            max_uploads: reader.number("CARGA_MAX_UPLOADS", 64, 1..=100_000),
            max_upload_bytes: reader.number("CARGA_MAX_UPLOAD_BYTES", 10 << 30, 1..=1 << 50),
            limits: FileLimits {
                decompressed_bytes: reader.number(
                    "CARGA_MAX_DECOMPRESSED_BYTES",
                    100 << 30,
                    1..=1 << 50,
                ),
                expansion: reader.number("CARGA_MAX_EXPANSION", 200, 1..=100_000),
                columns: reader.number("CARGA_MAX_COLUMNS", 1600, 1..=100_000),
                column_name_bytes: reader.number("CARGA_MAX_COLUMN_NAME_BYTES", 4096, 1..=MIB),
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
            publish_budget_bytes: reader.number(
                "CARGA_PUBLISH_BUDGET_BYTES",
                32 * MIB,
                2048..=1 << 31,
            ),
            publish_deadline: reader.seconds("CARGA_PUBLISH_DEADLINE_SECS", 60, 3600),
            body_idle: reader.seconds("CARGA_BODY_IDLE_SECS", 60, 3600),
            body_min_rate: reader.number("CARGA_BODY_MIN_RATE", 1024, 0..=1 << 30),
            header_timeout: reader.seconds("CARGA_HEADER_TIMEOUT_SECS", 15, 600),
            heartbeat: reader.milliseconds("CARGA_HEARTBEAT_MS", 250, 10_000),
            validate: reader.seconds("CARGA_VALIDATE_SECS", 60, 840),
            temporary_directory: locations.data_dir.clone(),
        }
    }
}
