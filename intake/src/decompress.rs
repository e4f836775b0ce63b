//! Decompresses gzip and zstd, and limits the size of the result while it grows.

use std::io::{self, ErrorKind};

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::{Bytes, BytesMut};
use carga_common::settings::FileLimits;
use futures::{Stream, StreamExt};
use tokio::io::AsyncReadExt;
use tokio_util::io::StreamReader;

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

/// The first bytes of other formats that are often sent by mistake.
const NOT_CSV: [(&[u8], &str); 6] = [
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"%PDF-", "a PDF document"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ\0", "compressed with xz"),
    (b"PAR1", "a Parquet file"),
];
const LONGEST_MAGIC: usize = 6;

type Reader<S> = StreamReader<FileSource<S>, Bytes>;

/// A file that may be compressed. Yields its decompressed bytes.
#[derive(Debug)]
pub(crate) struct Decompressor<S> {
    format: Format<S>,
    limits: FileLimits,
    decompressed: u64,
}

#[derive(Debug)]
enum Format<S> {
    Plain(FileSource<S>),
    Gzip(Box<GzipDecoder<Reader<S>>>),
    Zstd(Box<ZstdDecoder<Reader<S>>>),
}

impl<S: Stream<Item = Result<Bytes, Refusal>> + Unpin + Send> Decompressor<S> {
    /// Detects the compression from the first bytes, and refuses formats that are not CSV.
    pub(crate) async fn open(
        mut source: FileSource<S>,
        limits: FileLimits,
    ) -> Result<Self, Refusal> {
        let beginning = source.peek(LONGEST_MAGIC).await?;
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
            beginning => {
                refuse_other_formats(beginning)?;
                Format::Plain(source)
            }
        };
        Ok(Self {
            format,
            limits,
            decompressed: 0,
        })
    }

    /// The number of decompressed bytes so far; 0 for a file that is not compressed.
    pub(crate) fn decompressed(&self) -> u64 {
        self.decompressed
    }

    /// The file as it was sent.
    pub(crate) fn source(&mut self) -> &mut FileSource<S> {
        match &mut self.format {
            Format::Plain(source) => source,
            Format::Gzip(decoder) => decoder.get_mut().get_mut(),
            Format::Zstd(decoder) => decoder.get_mut().get_mut(),
        }
    }

    fn check(&mut self) -> Result<(), Refusal> {
        let FileLimits {
            decompressed_bytes,
            expansion,
            ..
        } = self.limits;
        let (actual, received) = (self.decompressed, self.source().bytes_received());
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
}

fn refuse_other_formats(beginning: &[u8]) -> Result<(), Refusal> {
    let found = NOT_CSV
        .iter()
        .find(|(magic, _)| beginning.starts_with(magic));
    match found {
        None => Ok(()),
        Some((_, what)) => {
            let message = format!(
                "the file is {what}, not CSV; export it as CSV, optionally compressed with gzip or zstd"
            );
            Err(Refusal::new(RefusalKind::Unsupported, "not_csv", message))
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
