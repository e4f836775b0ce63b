//! The paths that some layers treat differently.

/// The paths of the health checks.
pub(crate) const LIVE: &str = "/livez";
pub(crate) const READY: &str = "/readyz";

/// The path of the metrics.
pub(crate) const METRICS: &str = "/metrics";

pub(crate) fn is_health_check(path: &str) -> bool {
    path == LIVE || path == READY
}
