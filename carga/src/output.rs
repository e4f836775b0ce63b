//! Standard output. It may be a pipe whose reader has closed it, and that is not an error.

use std::io::{self, ErrorKind, Write};

use indicatif::HumanCount;

/// Writes all of `text`. A closed pipe counts as success.
pub(crate) fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if !is_closed_pipe(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// A number of rows with its noun: `1 row`, `2,500 rows`.
pub(crate) fn count_rows(rows: u64) -> String {
    let noun = if rows == 1 { "row" } else { "rows" };
    format!("{} {noun}", HumanCount(rows))
}

/// Whether the reader of a pipe has closed it.
pub(crate) fn is_closed_pipe(error: &io::Error) -> bool {
    error.kind() == ErrorKind::BrokenPipe
}
