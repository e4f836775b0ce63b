//! The handlers, one file per group of routes: parse, call, answer.

mod accepted;
pub(crate) mod audit;
pub(crate) mod batches;
pub(crate) mod datasets;
pub(crate) mod events;
pub(crate) mod exports;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod log_filter;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod preview;
pub(crate) mod read;
mod replay;
pub(crate) mod reverse;
pub(crate) mod send;
pub(crate) mod suggest;
pub(crate) mod tokens;
pub(crate) mod validate;

use crate::paths;

/// Whether every client may request this path, from every web page and with every `Host`. Probes
/// have no key, and the documentation is the same for everybody.
pub(crate) fn is_public(path: &str) -> bool {
    paths::is_health_check(path) || [openapi::DOCUMENT, openapi::PAGE].contains(&path)
}
