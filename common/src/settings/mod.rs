//! Settings: read once from the environment. All faults are reported together, each with the name
//! of its variable.
//!
//! `.env.example` is the reference with the reasons; a test proves that it parses.

mod access;
mod intake;
mod jwt;
mod limits;
mod locations;
mod log;
mod metrics;
mod mode;
mod origins;
mod ports;
mod proxies;
mod reader;
mod secret;
mod tls;
mod worker;

use std::net::SocketAddr;
use std::time::Duration;

pub use access::{AccessSettings, AdminKey, Authentication, Undecided};
pub use intake::{FileLimits, IntakeSettings};
pub use jwt::{JwtKeys, JwtSecret, JwtSettings};
pub use limits::{LimitSettings, TenantQuota};
pub use locations::{ArchiveLocation, Locations, ProgressLocation, QueueLocation, StoreLocation};
pub(crate) use log::parse_filter;
pub use log::{InvalidFilter, LogFormat, LogSettings, TraceSettings, telemetry_settings};
pub use mode::Mode;
pub use origins::{AllowedOrigins, NotAnOrigin};
pub use ports::PortSettings;
pub use proxies::{NotARange, TrustedProxies};
pub use reader::{Effective, SettingsError};
pub use secret::SecretUrl;
pub use tls::TlsSettings;
pub use worker::WorkerSettings;

use self::reader::Reader;

/// All settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How the four ports are connected.
    pub ports: PortSettings,
    /// Which events are logged, and in which form.
    pub log: LogSettings,
    /// Where spans are sent.
    pub traces: TraceSettings,
    /// What the API accepts.
    pub intake: IntakeSettings,
    /// Whether requests need a key.
    pub access: AccessSettings,
    /// Limits and intervals of the worker.
    pub worker: WorkerSettings,
    /// The address that serves the metrics alone. Without it, a process with an API serves them
    /// there, and `carga-worker` serves none.
    pub metrics_listen: Option<SocketAddr>,
    /// How much clients and tenants may send.
    pub limits: LimitSettings,
    /// How long a process may take to finish its work after a signal to stop.
    pub grace: Duration,
    /// Every variable that was read, with the value in effect.
    pub effective: Vec<Effective>,
}

impl Settings {
    /// Reads the process's environment.
    pub fn from_env(mode: Mode) -> Result<Self, SettingsError> {
        Self::read(mode, &|name| std::env::var(name).ok())
    }

    /// Reads variables through `lookup`.
    pub fn read(
        mode: Mode,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let mut reader = Reader::new(lookup);
        let ports = PortSettings::read(&mut reader, mode);
        let log = LogSettings::read(&mut reader);
        let traces = TraceSettings::read(&mut reader);
        let intake = IntakeSettings::read(&mut reader, &ports.locations);
        let access = AccessSettings::read(&mut reader, intake.listen);
        let worker = WorkerSettings::read(&mut reader, mode);
        let needs_key = access.auth == Some(true);
        let mut settings = Self {
            limits: LimitSettings::read(&mut reader, needs_key, worker.lease),
            log,
            traces,
            access,
            intake,
            worker,
            metrics_listen: metrics::listen(&mut reader),
            grace: reader.seconds("CARGA_GRACE_SECS", 30, 3600),
            effective: Vec::new(),
            ports,
        };
        if settings.worker.lease < 4 * settings.intake.heartbeat {
            reader.fault(format!(
                "CARGA_LEASE_SECS={}: must be at least four times CARGA_HEARTBEAT_MS ({})",
                settings.worker.lease.as_secs(),
                settings.intake.heartbeat.as_millis()
            ));
        }
        if settings.worker.sweep < settings.intake.heartbeat {
            reader.fault(format!(
                "CARGA_SWEEP_MS={}: must be at least CARGA_HEARTBEAT_MS ({})",
                settings.worker.sweep.as_millis(),
                settings.intake.heartbeat.as_millis()
            ));
        }
        let batch = settings.intake.batch.bytes;
        // A row as large as a whole batch closes the batch before it, so both must fit.
        if settings.intake.publish_budget_bytes < 2 * batch {
            reader.fault(format!(
                "CARGA_PUBLISH_BUDGET_BYTES={}: must be at least twice CARGA_BATCH_BYTES ({batch})",
                settings.intake.publish_budget_bytes
            ));
        }
        settings.effective = reader.finish()?;
        Ok(settings)
    }

    /// Whether requests to the listener of these settings need a key.
    pub fn authentication(&self) -> Result<Authentication, Undecided> {
        self.access.authentication(self.intake.listen)
    }
}

#[cfg(test)]
mod tests;
