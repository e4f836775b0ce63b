//! Limits and intervals of the worker.

use std::path::PathBuf;
use std::time::Duration;

use super::mode::Mode;
use super::reader::{MIB, Reader};
use crate::archive::ArchiveCompression;
use crate::queue::Prefetch;

/// The most days for which rows, previous values, the audit log or events can be kept.
const MOST_DAYS: u64 = 36_500;

/// Limits and intervals of the worker.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// The most deliveries that a worker holds unsettled. They bound the worker's memory.
    pub prefetch: Prefetch,
    /// Concurrent writes to the archive.
    pub archive_concurrency: usize,
    /// The bytes of the objects that are being compressed or written to the archive, without their
    /// compression. A larger object is written alone.
    pub archive_bytes: u32,
    /// How the objects of batches are compressed. It may differ from worker to worker, because the
    /// ledger has the compression of each object.
    pub archive_compression: ArchiveCompression,
    /// The maximum number of batches in one transaction.
    pub group_batches: usize,
    /// Concurrent transactions that store batches.
    pub store_sessions: usize,
    /// The lease of a receiving upload expires after this time without a heartbeat. The upload
    /// fails once every sweep for five seconds has found its lease expired.
    pub lease: Duration,
    /// The pause between two sweeps.
    pub sweep: Duration,
    /// An upload with missing batches fails after this time, if all queues were empty and no worker
    /// held or stored a batch of it.
    pub lost: Duration,
    /// How long the archive of a failed upload is kept.
    pub archive_grace: Duration,
    /// How long rows, ledger and archive of an upload that ended well are kept; for ever if `None`.
    pub retention: Option<Duration>,
    /// How long the previous values of the rows that a merge has replaced are kept after its
    /// upload has ended. Without them, the upload cannot be undone.
    pub undo: Duration,
    /// How long entries of the audit log are kept.
    pub audit: Duration,
    /// How long events of uploads are kept, whether they are sent or not.
    pub events: Duration,
    /// A file that a running worker touches every few seconds, for health checks. `carga` needs no
    /// such file, since it answers health checks over HTTP.
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
                batches: reader.number("CARGA_PREFETCH", 80, 1..=2000),
                bytes: reader.number("CARGA_PREFETCH_BYTES", 16 * MIB, MIB..=1 << 40),
            },
            archive_concurrency: reader.number("CARGA_ARCHIVE_CONCURRENCY", 64, 1..=1000),
            archive_bytes: reader.number("CARGA_ARCHIVE_BYTES", 12 << 20, 1 << 20..=u32::MAX),
            archive_compression: reader
                .parsed("CARGA_ARCHIVE_COMPRESSION", ArchiveCompression::None),
            group_batches: reader.number("CARGA_GROUP_BATCHES", 16, 1..=256),
            store_sessions: reader.number("CARGA_STORE_SESSIONS", 2, 1..=64),
            lease: reader.seconds("CARGA_LEASE_SECS", 60, 3600),
            sweep: reader.milliseconds("CARGA_SWEEP_MS", 10_000, 3_600_000),
            lost: reader.seconds("CARGA_LOST_SECS", 3600, 366 * 24 * 3600),
            archive_grace: reader.seconds("CARGA_ARCHIVE_GRACE_SECS", 24 * 3600, 366 * 24 * 3600),
            retention: retention(reader),
            undo: days(reader.number("CARGA_UNDO_DAYS", 30, 1..=MOST_DAYS)),
            audit: days(reader.number("CARGA_AUDIT_DAYS", 365, 1..=MOST_DAYS)),
            events: days(reader.number("CARGA_EVENTS_DAYS", 90, 1..=MOST_DAYS)),
            heartbeat_file: reader
                .optional("CARGA_HEARTBEAT_FILE", default_file.as_deref())
                .or(default_file)
                .map(PathBuf::from),
        }
    }
}

/// A number of whole days, or `None` if rows are kept for ever, which is the default.
fn retention(reader: &mut Reader<'_>) -> Option<Duration> {
    const NAME: &str = "CARGA_RETENTION_DAYS";
    let text = reader.optional(NAME, None::<&str>)?;
    match text.parse::<u64>() {
        Ok(number @ 1..=MOST_DAYS) => Some(days(number)),
        _ => {
            reader.fault(format!(
                "{NAME}={text}: must be a whole number of days between 1 and {MOST_DAYS}; leave it empty to keep all rows"
            ));
            None
        }
    }
}

fn days(number: u64) -> Duration {
    Duration::from_secs(number * 24 * 3600)
}
