//! The beginning of a file as an import would see it. The same code decides; nothing is stored.

use std::io;
use std::task::{Poll, ready};

use axum::body::Bytes;
use carga_common::rejects::RejectedRow;
use carga_common::settings::IntakeSettings;
use carga_common::upload::Dialect;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::expand::Expanded;
use super::file::unreadable;
use super::options::Options;
use super::source::FileSource;
use crate::csv::{CsvOpening, Next};
use crate::problem::Refusal;

/// No more of a file is read.
const MOST_BYTES: usize = 1 << 20;

/// No more rows are shown, nor problems.
const SHOWN: usize = 20;

/// What an import of the file would begin with.
#[derive(Debug, Serialize)]
pub struct Preview {
    /// How the file would be read, and why.
    pub dialect: Dialect,
    /// Its columns.
    pub columns: Vec<String>,
    /// Its first rows as they would be stored.
    pub rows: Vec<Vec<String>>,
    /// The first that would be rejected.
    pub rejected: Vec<RejectedRow>,
    /// What was looked at.
    pub looked_at: LookedAt,
}

/// How much of a file a preview is about.
#[derive(Debug, Serialize)]
pub struct LookedAt {
    /// Bytes as they were sent.
    pub bytes: u64,
    /// Rows, those that would be rejected included.
    pub rows: u64,
    /// Of them, those that would be rejected.
    pub rejected: u64,
    /// It is all of the file.
    pub whole: bool,
}

/// Looks at a file of this machine.
pub async fn preview_file(
    options: &[(String, String)],
    settings: &IntakeSettings,
    pieces: impl Stream<Item = io::Result<Bytes>> + Unpin + Send,
) -> Result<Preview, Refusal> {
    let options = Options::from_query(options)?;
    look(
        pieces.map_err(|error| unreadable(&error)),
        &options,
        settings,
    )
    .await
}

/// Looks at the first bytes of a stream.
pub(crate) async fn look(
    pieces: impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send,
    options: &Options,
    settings: &IntakeSettings,
) -> Result<Preview, Refusal> {
    let limits = settings.limits;
    let source = FileSource::new(beginning(pieces), settings.max_upload_bytes);
    let mut file = Expanded::open(source, limits).await?;
    let mut is_cut = false;
    let mut opening = CsvOpening::new(options.csv, limits);
    let mut reader = loop {
        if let Some(reader) = opening.open()? {
            break reader;
        }
        match next(&mut file, &mut is_cut).await? {
            Some(bytes) => opening.push(&bytes),
            None => opening.end(),
        }
    };
    let (mut rows, mut rejected, mut rejected_count) = (Vec::new(), Vec::new(), 0);
    loop {
        match reader.next()? {
            Next::End => break,
            Next::More => match next(&mut file, &mut is_cut).await? {
                Some(bytes) => reader.push(&bytes),
                // What is left is the beginning of a row.
                None if is_cut => break,
                None => reader.end(),
            },
            Next::Row if rows.len() < SHOWN => {
                rows.push(reader.cells().map(str::to_owned).collect());
            }
            Next::Row => {}
            Next::Rejected(row) => {
                rejected_count += 1;
                if rejected.len() < SHOWN {
                    rejected.push(row.row);
                }
            }
        }
    }
    Ok(Preview {
        dialect: Dialect {
            compression: file.compression().map(str::to_owned),
            ..reader.dialect().clone()
        },
        columns: reader.columns().to_vec(),
        rows,
        rejected,
        looked_at: LookedAt {
            bytes: file.source().bytes_received(),
            rows: reader.rows_read(),
            rejected: rejected_count,
            whole: !is_cut,
        },
    })
}

/// The next bytes of what is in the file, as far as it is looked at.
async fn next<S>(file: &mut Expanded<S>, is_cut: &mut bool) -> Result<Option<Bytes>, Refusal>
where
    S: Stream<Item = Result<Bytes, Refusal>> + Unpin + Send,
{
    // As much of what is in it, if it is compressed.
    if file.expanded() >= MOST_BYTES as u64 {
        *is_cut = true;
        return Ok(None);
    }
    let next = file.next().await;
    *is_cut = file.source().bytes_received() >= MOST_BYTES as u64;
    match next {
        // A compressed file that was cut looks damaged at the cut.
        Err(refusal) if *is_cut && refusal.failure.code == "damaged_compression" => Ok(None),
        next => next,
    }
}

/// The first pieces of a stream, cut to the byte, and not asked for more than that.
fn beginning(
    mut pieces: impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send,
) -> impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send {
    let mut left = MOST_BYTES;
    stream::poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        let piece = ready!(pieces.poll_next_unpin(cx));
        Poll::Ready(piece.map(|piece| {
            let mut piece = piece?;
            piece.truncate(left);
            left -= piece.len();
            Ok(piece)
        }))
    })
}
