//! Carga's intake: the bytes of a file become rows, batches, and durable messages.
//!
//! Read it in the order in which a file passes through: `pieces` reads the body on a task of its
//! own, `source` counts and hashes what was sent, `decompress` undoes gzip and zstd, [`csv`] makes
//! rows of the bytes. `rows` puts them into batches, `publish` has each confirmed by the queue, and
//! `rejects` stores the records that are not rows. `ending` seals the upload or fails it.
//! [`intake`] puts these in a line; `heartbeat` renews the leases of the uploads in it.
//!
//! [`options`] is the one table of what a client may say about its file, [`preview`] shows how a
//! file would be read, and a [`refusal`] says why one is not taken. This crate knows no HTTP: a
//! refusal has a kind, and `carga-api` makes a status of it.

pub mod csv;
mod decompress;
mod ending;
mod heartbeat;
pub mod intake;
pub mod local;
pub mod open;
pub mod options;
pub mod pieces;
mod policy;
pub mod preview;
mod publish;
pub mod refusal;
mod rejects;
mod rows;
mod source;

pub use ending::remove_rows_later;
