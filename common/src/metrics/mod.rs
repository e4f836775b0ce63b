//! What Carga measures about itself, in Prometheus's text format.
//!
//! [`table`] has every metric as one constant, and `docs/metrics.md` explains them. A test compares
//! the two. A [`Metric`] makes *handles* (`Counter`, `Gauge`, `Histogram`). Making a handle costs
//! an allocation and a lock, so each part of Carga makes its handles once and keeps them in a
//! struct. To count a batch then costs a few atomic additions.
//!
//! [`install`] starts recording, once per process. Until then every handle does nothing, so
//! programs without metrics, such as `carga import`, pay nothing. The [`Exposition`] renders the
//! text. At each rendering it runs the samplers, which set gauges from what the process knows
//! already. `state` asks the servers, at most once in five seconds. [`listener`] answers scrapes on
//! an address of its own.
//!
//! `calls` measures the calls of the ports. The adapters of the store, of the live counters and of
//! the shared rate limiter use it in the one function that all their calls pass through. The
//! adapters of the queue and of the archive have no such function, so `measured_queue` and
//! `measured_archive` wrap them. [`uploads`] counts uploads when they end.
//!
//! The values of a label are a fixed list: names in the code, routes, status codes. No value is an
//! id, a file name, a dataset or a tenant, so the number of series does not grow with the data.

pub(crate) mod calls;
mod exposition;
mod installed;
pub mod listener;
#[doc(hidden)]
pub mod local;
pub(crate) mod measured_archive;
pub(crate) mod measured_queue;
mod metric;
mod process;
mod reject_codes;
mod state;
pub mod table;
pub mod uploads;

pub use ::metrics::{Counter, Gauge, Histogram, SharedString};
pub use exposition::{Exposition, InstallError, MEDIA_TYPE, install};
pub use metric::{Kind, Metric};
pub use reject_codes::RejectCounters;

#[cfg(test)]
mod tests;
