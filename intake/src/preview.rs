//! Previews the beginning of a file with the code that an import runs, and stores nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use carga_common::rejects::RejectedRow;
use carga_common::settings::IntakeSettings;
use carga_common::upload::{Dialect, Failure};
use futures::{Stream, StreamExt, TryStreamExt};
use serde::Serialize;

use crate::csv::{Charset, CsvReader, CutQuote, Next, Rejection, Warning, decoded};
use crate::decompress::Decompressor;
use crate::open::{FileBytes, Unopened, csv_limits, open};
use crate::options::Options;
use crate::refusal::{Refusal, RefusalKind};
use crate::size_limit::SizeLimit;
use crate::source::FileSource;
use crate::suggestions::{SAMPLE_BYTES, Sample, Suggestion, Trial, suggestions};

/// The largest part of a file that is read.
const MAX_BYTES: usize = 1 << 20;

/// The largest number of rows that are shown, of rejected rows and of warnings.
const MAX_ROWS: usize = 20;

/// How many lines of the file are shown as text, and how much of each.
const MAX_LINES: usize = 10;
const MAX_LINE_CHARS: usize = 500;

/// The beginning of a file as an import would read it.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Preview {
    /// How the file would be read, and why. `None` if the file is refused before that is decided.
    pub dialect: Option<Dialect>,
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The first rows as they would be stored. A missing cell is `None`.
    pub rows: Vec<Vec<Option<String>>>,
    /// The first rows that would be rejected.
    pub rejected: Vec<RejectedRow>,
    /// The first warnings about rows that would be stored.
    pub warnings: Vec<Warning>,
    /// The first lines of the file as text. Bytes that cannot be decoded are written as `\xNN`.
    pub first_lines: Vec<String>,
    /// Why an import would refuse the file.
    pub problem: Option<Failure>,
    /// Options with which more of the file would be stored.
    pub suggestions: Vec<Suggestion>,
    /// How much of the file the preview covers.
    pub looked_at: Coverage,
}

/// How much of a file a preview covers.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    let pieces = bytes.map_err(|error| Refusal::unreadable(&error));
    preview(pieces, &options, settings).await
}

/// Previews the first bytes of a stream.
pub async fn preview(
    pieces: impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send,
    options: &Options,
    settings: &IntakeSettings,
) -> Result<Preview, Refusal> {
    check_options(options)?;
    let mut file = Beginning::open(pieces, settings).await?;
    let limits = csv_limits(&settings.limits);
    let opened = open(&mut file, options.csv.clone(), limits).await;
    let mut shown = Shown::default();
    let (reader, dialect, problem) = match opened {
        Ok((mut reader, dialect)) => {
            file.has_header = true;
            let read = read_rows(&mut reader, &mut file, &mut shown).await;
            let dialect = reader.changed_dialect().unwrap_or(dialect);
            (Some(reader), Some(dialect), read.err())
        }
        Err(Unopened { refusal, dialect }) => {
            file.fill_sample().await;
            (None, dialect.map(|it| *it), Some(refusal))
        }
    };
    let rows = reader.as_ref().map_or(0, CsvReader::rows_read);
    let problem = match file.has_ended {
        true => problem.or_else(|| options.policy.check_share(shown.rejected_count, rows).err()),
        false => problem,
    };
    // A preview reports only faults of the file.
    if let Some(refusal) = problem.as_ref().filter(|refusal| !is_about_file(refusal)) {
        return Err(refusal.clone());
    }
    let trial = Trial {
        stored: rows - shown.rejected_count,
        rejected: shown.rejected_count,
        columns: reader.as_ref().map_or(0, |reader| reader.columns().len()),
        is_refused: problem.is_some(),
    };
    let skip = reader.as_ref().and_then(CsvReader::proposed_skip);
    let suggestions = suggestions(file.sample(), options, limits, trial, skip);
    Ok(Preview {
        first_lines: first_lines(&file.first, dialect.as_ref()),
        dialect,
        columns: reader.map_or_else(Vec::new, |reader| reader.columns().to_vec()),
        rows: shown.rows,
        rejected: shown.rejected,
        warnings: shown.warnings,
        problem: problem.map(|refusal| refusal.failure),
        suggestions,
        looked_at: Coverage {
            bytes: file.file.source().bytes_received(),
            rows,
            rejected: shown.rejected_count,
            whole: file.has_ended,
        },
    })
}

/// Refuses the option `dataset`. A preview without a conversion would show rows that an import with
/// the option rejects.
fn check_options(options: &Options) -> Result<(), Refusal> {
    if options.dataset.is_none() {
        return Ok(());
    }
    let message = "a preview does not convert cells, so it has no option `dataset`; preview the file without it";
    Err(Refusal::malformed("malformed_option", message))
}

/// Whether the refusal is about the content of the file, and not about the way it was sent.
fn is_about_file(refusal: &Refusal) -> bool {
    const SENDING: [&str; 3] = ["incomplete_body", "body_timeout", "unreadable_file"];
    let is_file = matches!(
        refusal.kind,
        RefusalKind::Unprocessable | RefusalKind::Unsupported
    );
    is_file && !SENDING.contains(&refusal.failure.code.as_str())
}

/// The first lines of the file for people. Of a long line, only the beginning is shown.
fn first_lines(bytes: &[u8], dialect: Option<&Dialect>) -> Vec<String> {
    let charset = dialect.and_then(|dialect| Charset::for_label(&dialect.encoding));
    let text = decoded(bytes, charset.unwrap_or(Charset::UTF_8));
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines = text.split('\n').take(MAX_LINES);
    let lines = lines.map(|line| line.chars().take(MAX_LINE_CHARS).collect());
    let mut lines: Vec<String> = lines.collect();
    if lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// Reads the rows up to the end of the file or the cut.
async fn read_rows(
    reader: &mut CsvReader,
    file: &mut Beginning<impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send>,
    shown: &mut Shown,
) -> Result<(), Refusal> {
    let mut is_cut = false;
    loop {
        match reader.next()? {
            Next::End => return Ok(()),
            // The file was cut, so the remaining bytes are only part of a row.
            Next::More if is_cut => {
                shown.add_cut(reader);
                return Ok(());
            }
            Next::More => match file.next().await? {
                Some(bytes) => reader.push(&bytes),
                None if file.is_cut => {
                    reader.cut();
                    is_cut = true;
                }
                None => reader.end(),
            },
            Next::Row => shown.add_row(reader),
            Next::Rejected(row) => shown.add_rejected(*row),
        }
    }
}

/// What the preview shows of the rows.
#[derive(Debug, Default)]
struct Shown {
    rows: Vec<Vec<Option<String>>>,
    rejected: Vec<RejectedRow>,
    rejected_count: u64,
    warnings: Vec<Warning>,
}

impl Shown {
    /// Adds the current row.
    fn add_row(&mut self, reader: &CsvReader) {
        if self.rows.len() < MAX_ROWS {
            let missing = std::iter::repeat_n(None, reader.missing_cells());
            let cells = reader.cells().map(|cell| Some(cell.to_owned()));
            self.rows.push(cells.chain(missing).collect());
        }
        if let Some(warning) = reader.warning() {
            self.add_warning(warning);
        }
    }

    fn add_rejected(&mut self, rejection: Rejection) {
        self.rejected_count += 1;
        if self.rejected.len() < MAX_ROWS {
            self.rejected.push(rejection.row);
        }
    }

    fn add_warning(&mut self, warning: Warning) {
        if self.warnings.len() < MAX_ROWS {
            self.warnings.push(warning);
        }
    }

    /// Adds the quote that is open where the file was cut. The lines after it may be rows, and
    /// without this report their absence would not show.
    fn add_cut(&mut self, reader: &mut CsvReader) {
        match reader.cut_quote() {
            Some(CutQuote::Rejected(rejection)) => self.add_rejected(*rejection),
            Some(CutQuote::Warning(warning)) => self.add_warning(warning),
            None => {}
        }
    }
}

/// A file that is cut after `MAX_BYTES`.
struct Beginning<S> {
    file: Decompressor<FirstBytes<S>>,
    /// Whether the file was cut.
    is_cut: bool,
    /// Whether the file was read to its end.
    has_ended: bool,
    /// Whether the header has been read. A file that is cut in the header has no preview, because a
    /// part of the header would show wrong columns.
    has_header: bool,
    /// The first decompressed bytes.
    first: Vec<u8>,
}

impl<S: Stream<Item = Result<Bytes, Refusal>> + Unpin + Send> Beginning<S> {
    async fn open(pieces: S, settings: &IntakeSettings) -> Result<Self, Refusal> {
        let pieces = FirstBytes {
            pieces,
            remaining: MAX_BYTES,
            is_cut: false,
        };
        let source = FileSource::new(pieces, SizeLimit::of(settings));
        Ok(Self {
            file: Decompressor::open(source, settings.limits).await?,
            is_cut: false,
            has_ended: false,
            has_header: false,
            first: Vec::new(),
        })
    }

    /// The bytes on which proposals are tried.
    fn sample(&mut self) -> Sample<'_> {
        if self.first.is_empty() {
            self.first.extend_from_slice(self.file.refused());
        }
        Sample {
            bytes: &self.first,
            is_whole: self.has_ended && self.first.len() < SAMPLE_BYTES,
        }
    }

    /// Reads on until the sample is complete, so that the proposals do not depend on how the bytes
    /// arrive. The file has been refused already, so a further fault changes nothing.
    async fn fill_sample(&mut self) {
        while self.first.len() < SAMPLE_BYTES
            && self.file.refused().is_empty()
            && let Ok(Some(_)) = self.next().await
        {}
    }
}

impl<S: Stream<Item = Result<Bytes, Refusal>> + Unpin + Send> FileBytes for Beginning<S> {
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        // The limit applies to the decompressed bytes, too. Only one more read shows whether
        // the file ends at the limit.
        let is_full = self.file.decompressed() >= MAX_BYTES as u64;
        let next = self.file.next().await;
        self.is_cut |= self.file.source().pieces().is_cut;
        let next = match next {
            Ok(None) => None,
            // The preview ignores everything after the limit, even a fault.
            _ if is_full => {
                self.is_cut = true;
                None
            }
            // A compressed file that was cut looks damaged at the cut.
            Err(refusal) if self.is_cut && refusal.failure.code == "damaged_compression" => None,
            next => next?,
        };
        if next.is_none() && self.is_cut && !self.has_header {
            let message = format!(
                "the first {MAX_BYTES} bytes, which are all that a preview reads, have no complete header; remove blank lines at the beginning of the file"
            );
            return Err(Refusal::unprocessable("header_not_found", message));
        }
        self.has_ended |= next.is_none() && !self.is_cut;
        if let Some(bytes) = &next {
            let room = SAMPLE_BYTES - self.first.len();
            self.first
                .extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        Ok(next)
    }

    fn compression(&self) -> Option<&'static str> {
        self.file.compression()
    }
}

/// The first bytes of a stream. The stream is polled once more after them, to find out whether
/// it has ended.
struct FirstBytes<S> {
    pieces: S,
    /// How many more bytes may be yielded.
    remaining: usize,
    /// Whether the stream has more bytes.
    is_cut: bool,
}

impl<S: Stream<Item = Result<Bytes, Refusal>> + Unpin> Stream for FirstBytes<S> {
    type Item = Result<Bytes, Refusal>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        while !this.is_cut {
            let mut piece = match ready!(this.pieces.poll_next_unpin(cx)) {
                Some(Ok(piece)) => piece,
                // A fault after the last byte that is wanted does not concern the preview.
                Some(Err(_)) if this.remaining == 0 => {
                    this.is_cut = true;
                    break;
                }
                ended => return Poll::Ready(ended),
            };
            this.is_cut = piece.len() > this.remaining;
            piece.truncate(this.remaining);
            this.remaining -= piece.len();
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(piece)));
            }
        }
        Poll::Ready(None)
    }
}
