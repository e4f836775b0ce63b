//! The CSV reader: bytes in, rows and rejected rows out.
//!
//! Everything here computes over bytes that are pushed in, without I/O. So the server, the command
//! line, the preview, the tests and the fuzzer all decide alike, and the rows depend on the bytes
//! alone, never on how they arrived.
//!
//! `opening` decides how to read a file from its first bytes (`detect`) and reads its `header`.
//! `transcode` makes UTF-8 of all bytes, `syntax` finds the fields of one record, `records` iterates
//! over records and skips malformed ones, `row` validates each, and `reader` yields them. `fault` says
//! what was wrong. [`export`] writes rows and [`rejected_rows`] back as CSV or NDJSON.

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
mod syntax;
mod transcode;

pub use encoding_rs::Encoding;
pub use fault::{Exceeded, FileFault, Rejection};
pub use limits::{CsvLimits, Limit};
pub use opening::{CsvOpening, CsvOptions};
pub use reader::{CsvReader, Next};
