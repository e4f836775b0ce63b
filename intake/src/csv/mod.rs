//! The CSV reader: bytes in, rows and rejected rows out.
//!
//! This module computes over bytes that are pushed in and does no I/O. So the server, the
//! command line, the preview, the tests and the fuzzer all decide alike. The rows depend on the
//! bytes alone, never on how the bytes arrived.
//!
//! `opening` decides how to read a file. It follows the options that the client has `stated`.
//! `charset` detects the encoding of the first bytes, `decoding` decodes them, `sampling` chooses a
//! part of their text, and `detect` finds the syntax of that part. `header_reading` reads the
//! `header`, whose `names` may need a repair.
//!
//! `transcode` turns all bytes into UTF-8, `source_length` measures what they took before, and
//! `syntax` finds the fields of one record. `records` iterates over records and skips broken ones.
//! `reading` holds the file that is being read, `row` validates each of its records, `rejecting`
//! reports the records that are not rows, and `reader` yields both. `corrections` recognises rows
//! of a reject report that were not corrected. `suspicion` recognises quoted fields that may
//! contain rows by mistake. `fault` describes the faults of records and files, and `broken` the
//! records that cannot be read. [`export`] writes rows as CSV or NDJSON, and also the rejected rows
//! in the form of [`rejected_rows`].

mod broken;
mod charset;
mod corrections;
mod decoding;
mod detect;
pub mod export;
mod fault;
mod header;
mod header_reading;
mod limits;
mod names;
mod opening;
mod reader;
mod reading;
mod records;
pub mod rejected_rows;
mod rejecting;
mod row;
mod sampling;
mod source_length;
mod stated;
mod suspicion;
mod syntax;
mod transcode;

pub use broken::Position;
pub use charset::Charset;
pub(crate) use charset::{is_control, looks_binary};
pub use fault::{Exceeded, FileFault, Rejection, Warning};
pub use limits::{CsvLimits, Limit};
pub use names::{Names, column_names};
pub use opening::CsvOpening;
pub use reader::{CsvReader, CutQuote, Next};
pub use stated::CsvOptions;
pub use transcode::decoded;
