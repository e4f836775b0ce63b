//! What Carga's API and worker share.
//!
//! Read it in this order: [`upload`] and [`batch`] say what is moved; the four ports say what it is moved through:
//! [`queue`], [`archive`], [`store`], [`progress`]. Each port is a folder: its `mod.rs` is the contract with its promises, beside
//! it stands one file or folder per technology. [`completion`] ends uploads, [`patience`] waits for servers. [`settings`] and [`telemetry`] are for the
//! programs, [`backends`] connects the ports.

pub mod archive;
pub mod backends;
pub mod batch;
pub mod completion;
pub mod error;
pub mod healthcheck;
pub mod patience;
pub mod progress;
pub mod queue;
pub mod rejects;
pub mod settings;
pub mod sha256;
pub mod shutdown;
#[cfg(feature = "sqlite")]
mod sqlite;
pub mod store;
pub mod sync;
pub mod telemetry;
pub mod upload;
