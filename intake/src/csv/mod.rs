//! The CSV reader: bytes in, rows and rejected rows out.
//!
//! This module computes over bytes that are pushed in and does no I/O. So the server, the
//! command line, the preview, the tests and the fuzzer all decide alike. The rows depend on the
//! bytes alone, never on how the bytes arrived.
//!
//! `opening` decides how to read a file from its first bytes (`detect`) and reads its `header`.
//! `transcode` turns all bytes into UTF-8, and `syntax` finds the fields of one record. `records`
//! iterates over records and skips broken ones, `row` validates each record, and `reader` yields
//! the rows. `corrections` recognises rows of a reject report that were not corrected. `suspicion`
//! recognises quoted fields that may contain rows by mistake. `fault` describes the faults of
//! records and files. [`export`] writes rows as CSV or NDJSON, and also the rejected rows in the
//! form of [`rejected_rows`].

mod corrections;
mod detect;
pub mod export;
mod fault;
mod header;
mod limits;
mod opening;
mod reader;
mod records;
pub mod rejected_rows;
mod row;
mod suspicion;
mod syntax;
mod transcode;

pub use encoding_rs::Encoding;
pub use fault::{Exceeded, FileFault, Rejection, Warning};
pub use limits::{CsvLimits, Limit};
pub use opening::{CsvOpening, CsvOptions};
pub use reader::{CsvReader, CutQuote, Next};
