//! Carga's worker: batches out of the queue, into the archive and the store.
//!
//! - [`runner`] starts the parts, passes deliveries on and stops the worker.
//! - `subscription` consumes a queue and reconnects.
//! - `prepare` archives one batch; `admission_cache` avoids asking the store before every batch.
//! - `group` stores several batches in one transaction, counts them and acknowledges them; `ready`
//!   is a batch that waits for this; `locked` brings back batches of locked uploads.
//! - `room` bounds the batches in hand; `store_contact` makes the worker release them while it
//!   cannot record that it holds them.
//! - `outcome` decides between a retry, a postponement and a dead letter.
//! - `suspects` handles one by one the batches that may have ended earlier workers.
//! - `foreign` warns of messages of another installation.
//! - `completion_checks` ends an upload after its last batch.
//! - `dead_letters` moves dead letters into the store.
//! - `sweep` ends what a crash left open; `expiry` decides which uploads it may end as interrupted.
//! - `lost` ends uploads whose batches are neither stored nor in a queue.
//! - `upkeep` creates and drops partitions of the landing table, and lets rows, the audit log
//!   and events expire.
//! - `relay` sends the events of uploads to the broker.
//! - `progress_watch` records which batches move; [`watchdog`] reports or ends a stuck worker.
//! - [`heartbeat`] writes and checks the heartbeat file.
//! - `metrics` has the handles of what the worker counts.
//! - `context` holds what the parts share; `panics` lets a panic end one step of a loop only.

mod admission_cache;
mod completion_checks;
mod context;
mod dead_letters;
mod expiry;
mod foreign;
mod group;
pub mod heartbeat;
mod locked;
mod lost;
mod metrics;
mod outcome;
mod panics;
mod prepare;
mod progress_watch;
mod ready;
mod relay;
mod room;
pub mod runner;
mod store_contact;
mod subscription;
mod suspects;
mod sweep;
mod upkeep;
pub mod watchdog;
