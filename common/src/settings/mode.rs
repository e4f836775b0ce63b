//! The two ways to run.

/// What an unset URL means to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A fault: `carga-api` and `carga-worker` need all four servers.
    Distributed,
    /// The embedded adapter: `carga` needs none.
    Embedded,
}
