//! Standard output. It may be a pipe whose reader, such as `head`, exits early; that is not an
//! error.

use std::io::{self, ErrorKind, Write};

/// Writes all of `text`. A closed pipe counts as success.
pub(crate) fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether the write failed because the pipe's reader has closed it.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io_kind = if let Some(error) = error.downcast_ref::<csv::Error>() {
        match error.kind() {
            csv::ErrorKind::Io(error) => Some(error.kind()),
            _ => None,
        }
    } else if let Some(error) = error.downcast_ref::<serde_json::Error>() {
        error.io_error_kind()
    } else {
        error.downcast_ref::<io::Error>().map(io::Error::kind)
    };
    io_kind == Some(ErrorKind::BrokenPipe)
}
