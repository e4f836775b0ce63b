//! Previews the beginning of a file with the code that an import runs, and stores nothing.

use std::io;
use std::task::{Poll, ready};

use bytes::Bytes;
use carga_common::rejects::RejectedRow;
use carga_common::settings::IntakeSettings;
use carga_common::upload::Dialect;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::csv::Next;
use crate::decompress::Decompressor;
use crate::local::unreadable;
use crate::open::{FileBytes, csv_limits, open};
use crate::options::Options;
use crate::refusal::Refusal;
use crate::source::FileSource;

/// The largest part of a file that is read.
const MAX_BYTES: usize = 1 << 20;

/// The largest number of rows that are shown, and of rejected rows.
const MAX_ROWS: usize = 20;

/// The beginning of a file as an import would read it.
#[derive(Debug, Serialize)]
pub struct Preview {
    /// How the file would be read, and why.
    pub dialect: Dialect,
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The first rows as they would be stored.
    pub rows: Vec<Vec<String>>,
    /// The first rows that would be rejected.
    pub rejected: Vec<RejectedRow>,
    /// How much of the file the preview covers.
    pub looked_at: Coverage,
}

/// How much of a file a preview covers.
#[derive(Debug, Serialize)]
pub struct Coverage {
    /// Bytes as they were sent.
    pub bytes: u64,
    /// Rows, including those that would be rejected.
    pub rows: u64,
    /// Rows that would be rejected.
    pub rejected: u64,
    /// Whether the preview covers the whole file.
    pub whole: bool,
}

/// Previews a local file.
pub async fn preview_file(
    options: &[(String, String)],
    settings: &IntakeSettings,
    bytes: impl Stream<Item = io::Result<Bytes>> + Unpin + Send,
) -> Result<Preview, Refusal> {
    let options = Options::from_query(options)?;
    let pieces = bytes.map_err(|error| unreadable(&error));
    preview(pieces, &options, settings).await
}

/// Previews the first bytes of a stream.
pub async fn preview(
    pieces: impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send,
    options: &Options,
    settings: &IntakeSettings,
) -> Result<Preview, Refusal> {
    let source = FileSource::new(beginning(pieces), settings.max_upload_bytes);
    let mut file = Beginning {
        file: Decompressor::open(source, settings.limits).await?,
        is_cut: false,
    };
    let limits = csv_limits(&settings.limits);
    let (mut reader, dialect) = open(&mut file, options.csv, limits).await?;
    let (mut rows, mut rejected, mut rejected_count) = (Vec::new(), Vec::new(), 0);
    loop {
        match reader.next()? {
            Next::End => break,
            Next::More => match file.next().await? {
                Some(bytes) => reader.push(&bytes),
                // The file was cut, so the remaining bytes are only part of a row.
                None if file.is_cut => break,
                None => reader.end(),
            },
            Next::Row if rows.len() < MAX_ROWS => {
                rows.push(reader.cells().map(str::to_owned).collect());
            }
            Next::Row => {}
            Next::Rejected(row) => {
                rejected_count += 1;
                if rejected.len() < MAX_ROWS {
                    rejected.push(row.row);
                }
            }
        }
    }
    Ok(Preview {
        dialect,
        columns: reader.columns().to_vec(),
        rows,
        rejected,
        looked_at: Coverage {
            bytes: file.file.source().bytes_received(),
            rows: reader.rows_read(),
            rejected: rejected_count,
            whole: !file.is_cut,
        },
    })
}

/// A file that is cut after `MAX_BYTES`.
struct Beginning<S> {
    file: Decompressor<S>,
    /// Whether the file was cut.
    is_cut: bool,
}

impl<S: Stream<Item = Result<Bytes, Refusal>> + Unpin + Send> FileBytes for Beginning<S> {
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        // The limit applies to the decompressed bytes, too.
        if self.file.decompressed() >= MAX_BYTES as u64 {
            self.is_cut = true;
            return Ok(None);
        }
        let next = self.file.next().await;
        self.is_cut = self.file.source().bytes_received() >= MAX_BYTES as u64;
        match next {
            // A compressed file that was cut looks damaged at the cut.
            Err(refusal) if self.is_cut && refusal.failure.code == "damaged_compression" => {
                Ok(None)
            }
            next => next,
        }
    }

    fn compression(&self) -> Option<&'static str> {
        self.file.compression()
    }
}

/// The first `MAX_BYTES` of a stream, which is not polled beyond them.
fn beginning(
    mut pieces: impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send,
) -> impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send {
    let mut remaining = MAX_BYTES;
    stream::poll_fn(move |cx| {
        if remaining == 0 {
            return Poll::Ready(None);
        }
        let piece = ready!(pieces.poll_next_unpin(cx));
        Poll::Ready(piece.map(|piece| {
            let mut piece = piece?;
            piece.truncate(remaining);
            remaining -= piece.len();
            Ok(piece)
        }))
    })
}
