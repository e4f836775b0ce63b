//! How the worker works.

use std::path::PathBuf;
use std::time::Duration;

use super::mode::Mode;
use super::reader::{MIB, Reader};
use crate::queue::Prefetch;

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
    /// A file touched every few seconds while the worker lives, for health checks. `carga` needs
    /// none: it answers over HTTP.
    pub heartbeat_file: Option<PathBuf>,
}

impl WorkerSettings {
    pub(super) fn read(reader: &mut Reader<'_>, mode: Mode) -> Self {
        let default_file = (mode == Mode::Distributed).then(|| {
            std::env::temp_dir()
                .join("carga-worker.alive")
                .display()
                .to_string()
        });
        Self {
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
}
