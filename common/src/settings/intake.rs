//! What the API accepts.

use std::net::SocketAddr;
use std::time::Duration;

use super::reader::{MIB, Reader};
use crate::batch::BatchLimits;

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
    /// A decompressed file, in bytes.
    pub decompressed_bytes: u64,
    /// How many times larger a decompressed file may be than the file that was sent.
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

impl IntakeSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            listen: reader.parsed("CARGA_LISTEN", SocketAddr::from(([127, 0, 0, 1], 8080))),
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
                64 * MIB,
                2048..=1 << 31,
            ),
            publish_deadline: reader.seconds("CARGA_PUBLISH_DEADLINE_SECS", 60, 3600),
            body_idle: reader.seconds("CARGA_BODY_IDLE_SECS", 60, 3600),
            header_timeout: reader.seconds("CARGA_HEADER_TIMEOUT_SECS", 15, 600),
            heartbeat: reader.milliseconds("CARGA_HEARTBEAT_MS", 250, 10_000),
        }
    }
}
