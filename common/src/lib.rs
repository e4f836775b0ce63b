//! The code that Carga's API and worker share.
//!
//! Read it in this order. [`upload`] and [`batch`] are the data. A [`dataset`] declares
//! columns and types, and [`typed`] turns cells of these types into values of the databases.
//! Uploads and datasets belong to a [`tenant`]. The four ports move and keep the data: [`queue`],
//! [`archive`], [`store`], [`progress`]. Each port is a folder: its `mod.rs` is the contract with
//! its promises, and each adapter is a file or folder named after its technology.
//!
//! Two use cases build on the ports: [`lifecycle`] ends uploads, and [`live_progress`] counts their
//! rows and batches. [`access`] says what the holder of a key may do, and a [`tenant`] owns keys.
//! [`idempotency`] names requests that take effect once, and [`audit`] says who changes something.
//! [`events`] say what happened to uploads.
//! [`limiter`] is a small port of the API alone: it counts requests. [`retry`] waits for servers.
//! [`settings`] and [`telemetry`] serve the programs, [`local_server`] sends requests to a running
//! one, [`tls`] encrypts its port, and [`backends`] connects the ports. `traced` puts spans around
//! their calls, and [`metrics`] measures all of this.

pub mod access;
pub mod archive;
pub mod audit;
pub mod backends;
pub mod batch;
pub mod dataset;
mod dialect;
pub mod error;
pub mod events;
mod failure;
pub mod healthcheck;
pub mod idempotency;
pub mod lifecycle;
pub mod limiter;
pub mod live_progress;
pub mod local_server;
pub mod metrics;
#[cfg(feature = "openapi")]
mod openapi;
pub mod progress;
pub mod queue;
pub mod rejects;
pub mod replay;
pub mod retry;
pub mod settings;
pub mod sha256;
pub mod shutdown;
#[cfg(feature = "sqlite")]
mod sqlite;
pub mod store;
pub mod sync;
pub mod telemetry;
pub mod tenant;
pub mod tls;
mod traced;
pub mod typed;
pub mod upload;
