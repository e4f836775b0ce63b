//! Carga's worker: batches out of the queue, into the archive and the store.
//!
//! - [`runner`] starts the parts, passes deliveries on and stops the worker.
//! - `subscription` consumes a queue and reconnects.
//! - `prepare` archives one batch; `admission_cache` avoids asking the store before every batch.
//! - `group` stores several batches in one transaction, counts them and acknowledges them.
//! - `outcome` decides between a retry and a dead letter.
//! - `completion_checks` ends an upload after its last batch.
//! - `dead_letters` moves dead letters into the store.
//! - `sweep` ends what a crash left open; `expiry` decides which uploads it may end as interrupted.
//! - [`heartbeat`] writes and checks the heartbeat file.
//! - `context` holds what the parts share; `panics` turns a caught panic into text.

mod admission_cache;
mod completion_checks;
mod context;
mod dead_letters;
mod expiry;
mod group;
pub mod heartbeat;
mod outcome;
mod panics;
mod prepare;
pub mod runner;
mod subscription;
mod sweep;
