//! CSV as people have it: bytes in, rows and rejected rows out.
//!
//! Everything here is plain computation over bytes that are pushed in, so that the server, the command line, the preview, the
//! tests and the fuzzer all decide alike; and which rows come out depends on the bytes alone, never on how they arrived.
//!
//! `opening` decides by the first bytes how to read a file (`detect`) and reads its `header`; `text` makes UTF-8 of all bytes, `syntax`
//! finds the fields of one record, `records` goes from record to record and over what is none, `row` judges each, and `reader`
//! hands them out.

mod detect;
mod header;
mod opening;
mod reader;
mod records;
mod row;
mod syntax;
mod text;

pub use encoding_rs::Encoding;
pub use opening::{CsvOpening, CsvOptions};
pub use reader::{CsvReader, Next, Rejection};
