//! Carga's worker: batches out of the queue, into the archive and the store.
//!
//! [`runner`] takes deliveries from a `subscription` and stops; `prepare` brings one batch into the archive, and `admission_cache` spares it asking for each whether
//! that is still worth it; `group` stores several in one
//! transaction, counts and acknowledges them; `outcome` says what an error means for a delivery; `completion_checks` ends uploads
//! whose last batch is in; `dead_letters` moves dead letters into the store; `sweep` picks up what a crash left behind.

mod admission_cache;
mod completion_checks;
mod context;
mod dead_letters;
mod group;
pub mod heartbeat;
mod outcome;
mod panics;
mod prepare;
pub mod runner;
mod subscription;
mod sweep;
