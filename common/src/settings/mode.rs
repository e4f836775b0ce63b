//! The two ways to run.

/// What a program does if the URL of a port is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It reports a fault: `carga-api` and `carga-worker` need all four servers.
    Distributed,
    /// It uses the embedded adapter: `carga` needs no server.
    Embedded,
}
