//! Carga's intake: turns the bytes of a file into rows, batches and durable messages.
//!
//! Read it in the order in which a file passes through. `pieces` reads the body on its own task,
//! `source` counts and hashes the bytes as they were sent, and `decompress` decompresses gzip and
//! zstd. Both keep to the [`size_limit`] of the sender. `not_csv` recognises files of other formats
//! by their first bytes. [`csv`] parses the bytes into rows, and `rows` puts the rows into batches.
//! `publication` hands the batches to `publish`, which waits until the queue has confirmed each of
//! them, and the records that are not rows to `rejects`, which stores them. `ending` seals the
//! upload or fails it, and `removals` removes the rows of a failed one. [`intake`] runs these steps
//! in order, and `heartbeat` renews the upload's lease meanwhile. [`incoming`] is what is known of
//! an upload before them, and [`quota`] what the tenant may still send. `metrics` counts what
//! passes through.
//!
//! If the upload has a dataset, `file_rows` prepares the conversion: [`matching`] finds the
//! dataset's columns in the header, and [`typed`] converts the cells of each row to their types.
//!
//! [`options`] is the one table of what a client may say about its file. [`preview`] shows how
//! a file would be read, with [`suggestions`] of options that would read it better, and [`suggest`]
//! proposes a dataset for a file. [`validation`] makes every check of an upload and stores nothing:
//! it keeps the batches in a `spool` until the store tries them. `idempotency` makes a repeated
//! request take effect once. A [`refusal`] says why a file is refused. This crate knows no HTTP: a
//! refusal has a kind, and `carga-api` turns the kind into a status.

pub mod crowding;
pub mod csv;
mod decompress;
mod ending;
mod file_rows;
mod heartbeat;
mod idempotency;
pub mod incoming;
pub mod intake;
pub mod local;
pub mod matching;
mod metrics;
mod not_csv;
pub mod open;
pub mod options;
pub mod pieces;
mod policy;
pub mod preview;
mod publication;
mod publish;
pub mod quota;
pub mod refusal;
mod rejects;
mod removals;
mod rows;
pub mod size_limit;
mod source;
mod spool;
pub mod suggest;
pub mod suggestions;
pub mod typed;
pub mod validation;
