//! Decompresses gzip and zstd, limits the size of the result while it grows, and refuses a file
//! that is not CSV once its first bytes show it.

use std::io::{self, ErrorKind};

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::{Bytes, BytesMut};
use carga_common::settings::FileLimits;
use futures::{Stream, StreamExt};
use tokio::io::AsyncReadExt;
use tokio_util::io::StreamReader;

use crate::not_csv::{self, Verdict};
use crate::open::FileBytes;
use crate::refusal::{Refusal, RefusalKind};
use crate::source::FileSource;

/// How many bytes are decompressed at once.
const CHUNK_BYTES: usize = 64 << 10;

/// The ratio of decompressed to sent bytes is enforced only above this size.
const MIN_RATIO_BYTES: u64 = 16 << 20;

/// The largest zstd window, as a power of two: 8 MiB. Every decoder must support it (RFC 8878,
/// 3.1.1.1.2), and it bounds the memory that one upload can take.
const ZSTD_WINDOW_LOG: u32 = 23;

/// How many bytes show the compression.
const MAGIC_BYTES: usize = 4;

type Reader<S> = StreamReader<FileSource<S>, Bytes>;

/// A file that may be compressed. Yields its decompressed bytes.
#[derive(Debug)]
pub(crate) struct Decompressor<S> {
    format: Format<S>,
    limits: FileLimits,
    decompressed: u64,
    /// Whether the first bytes showed no other format than CSV.
    may_be_csv: bool,
    /// The first bytes of a file that is not CSV.
    refused: Bytes,
}

#[derive(Debug)]
enum Format<S> {
    Plain(FileSource<S>),
    Gzip(Box<GzipDecoder<Reader<S>>>),
    Zstd(Box<ZstdDecoder<Reader<S>>>),
}

impl<S: Stream<Item = Result<Bytes, Refusal>> + Unpin + Send> Decompressor<S> {
    /// Detects the compression from the first bytes.
    pub(crate) async fn open(
        mut source: FileSource<S>,
        limits: FileLimits,
    ) -> Result<Self, Refusal> {
        let beginning = source.peek(MAGIC_BYTES).await?;
        let format = match &beginning[..] {
            [0x1f, 0x8b, ..] => {
                let mut decoder = GzipDecoder::new(StreamReader::new(source));
                decoder.multiple_members(true);
                Format::Gzip(Box::new(decoder))
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let window = [DParameter::window_log_max(ZSTD_WINDOW_LOG)];
                let mut decoder = ZstdDecoder::with_params(StreamReader::new(source), &window);
                decoder.multiple_members(true);
                Format::Zstd(Box::new(decoder))
            }
            _ => Format::Plain(source),
        };
        Ok(Self {
            format,
            limits,
            decompressed: 0,
            may_be_csv: false,
            refused: Bytes::new(),
        })
    }

    /// The number of decompressed bytes so far; 0 for a file that is not compressed.
    pub(crate) fn decompressed(&self) -> u64 {
        self.decompressed
    }

    /// The first bytes of a file that was refused because they are not CSV.
    pub(crate) fn refused(&self) -> &Bytes {
        &self.refused
    }

    /// The file as it was sent.
    pub(crate) fn source(&mut self) -> &mut FileSource<S> {
        match &mut self.format {
            Format::Plain(source) => source,
            Format::Gzip(decoder) => decoder.get_mut().get_mut(),
            Format::Zstd(decoder) => decoder.get_mut().get_mut(),
        }
    }

    /// The first bytes, once they show that the file may be CSV.
    async fn beginning(&mut self) -> Result<Option<Bytes>, Refusal> {
        let mut beginning = Bytes::new();
        let mut verdict = Verdict::NeedsMore;
        while verdict == Verdict::NeedsMore {
            let chunk = self.next_chunk().await?;
            let ended = chunk.is_none();
            let chunk = chunk.unwrap_or_default();
            beginning = match beginning.is_empty() {
                true => chunk,
                false => [&beginning[..], &chunk].concat().into(),
            };
            let checked = not_csv::check(&beginning, ended, self.compression());
            verdict = checked.inspect_err(|_| self.refused = beginning.clone())?;
        }
        self.may_be_csv = true;
        Ok((!beginning.is_empty()).then_some(beginning))
    }

    /// The next bytes, whatever they are.
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, Refusal> {
        let mut chunk = BytesMut::new();
        let read = match &mut self.format {
            Format::Plain(source) => {
                return source
                    .next()
                    .await
                    .transpose()
                    .map_err(|error| refusal(error, ""));
            }
            Format::Gzip(decoder) => {
                chunk.reserve(CHUNK_BYTES);
                decoder.read_buf(&mut chunk).await
            }
            Format::Zstd(decoder) => {
                chunk.reserve(CHUNK_BYTES);
                decoder.read_buf(&mut chunk).await
            }
        };
        let format = self.compression().unwrap_or_default();
        let read = read.map_err(|error| refusal(error, format))?;
        self.decompressed += read as u64;
        self.check()?;
        Ok((read > 0).then(|| chunk.freeze()))
    }

    fn check(&mut self) -> Result<(), Refusal> {
        let FileLimits {
            decompressed_bytes,
            expansion,
            ..
        } = self.limits;
        let actual = self.decompressed;
        self.source().limit().check_decompressed(actual)?;
        let received = self.source().bytes_received();
        let ratio_limit = received.saturating_mul(expansion).max(MIN_RATIO_BYTES);
        let (limit, setting) = if decompressed_bytes <= ratio_limit {
            (decompressed_bytes, "CARGA_MAX_DECOMPRESSED_BYTES")
        } else {
            (ratio_limit, "CARGA_MAX_EXPANSION")
        };
        if actual <= limit {
            return Ok(());
        }
        let message = format!(
            "the first {received} bytes of the file decompress to at least {actual} bytes; the limit is {limit} ({setting})"
        );
        let refusal = Refusal::new(RefusalKind::TooLarge, "expanded_too_large", message);
        Err(refusal.exceeding(limit, actual))
    }
}

impl<S: Stream<Item = Result<Bytes, Refusal>> + Unpin + Send> FileBytes for Decompressor<S> {
    fn compression(&self) -> Option<&'static str> {
        match &self.format {
            Format::Plain(_) => None,
            Format::Gzip(_) => Some("gzip"),
            Format::Zstd(_) => Some("zstd"),
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        match self.may_be_csv {
            true => self.next_chunk().await,
            false => self.beginning().await,
        }
    }
}

/// The refusal that the source returned, or a new one for the decoder's error.
fn refusal(error: io::Error, compression: &str) -> Refusal {
    let kind = error.kind();
    match error.downcast::<Refusal>() {
        Ok(refusal) => refusal,
        Err(error) => {
            let what = match kind {
                ErrorKind::UnexpectedEof => "is incomplete".to_owned(),
                // zstd reports a window beyond the limit as an error about memory.
                _ if error.to_string().contains("memory") => {
                    format!(
                        "needs a window of more than {} MiB to decompress",
                        (1 << ZSTD_WINDOW_LOG) >> 20
                    )
                }
                _ => format!("is damaged: {error}"),
            };
            let message = format!("the {compression} file {what}; none of its rows are kept");
            Refusal::unprocessable("damaged_compression", message)
        }
    }
}
