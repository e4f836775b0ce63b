//! The compression of archived batches.
//!
//! The same build always compresses an object into the same bytes, because a repeated `put` must
//! change nothing. Another version of a compressor may make other bytes of the same object.

use std::borrow::Cow;
use std::fmt;
use std::io;
#[cfg(feature = "compression")]
use std::io::Read;
use std::str::FromStr;

#[cfg(feature = "compression")]
use flate2::read::GzDecoder;
#[cfg(feature = "compression")]
use flate2::write::GzEncoder;
#[cfg(feature = "compression")]
use flate2::{Compression, GzBuilder};
#[cfg(feature = "compression")]
use zstd::stream::read::Decoder as ZstdDecoder;
#[cfg(feature = "compression")]
use zstd::stream::write::Encoder as ZstdEncoder;

/// Every row repeats the names of all columns, so the fastest level already removes most of an
/// object. A higher level removes little more, and takes several times the processor time, which
/// the worker needs for storing rows.
#[cfg(feature = "compression")]
const GZIP_LEVEL: Compression = Compression::fast();

/// The lowest regular level, for the same reason as [`GZIP_LEVEL`]. It also needs less memory than
/// the default level: about 1.5 MiB instead of 4 for each object that is being compressed.
#[cfg(feature = "compression")]
const ZSTD_LEVEL: i32 = 1;

/// How the objects of batches are compressed. Manifests are never compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ArchiveCompression {
    /// Plain JSON.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// Larger than the object of any batch.
#[cfg(feature = "compression")]
const LARGEST_OBJECT_BYTES: u64 = 64 << 20;

impl ArchiveCompression {
    /// All compressions.
    pub(crate) const ALL: [Self; 3] = [Self::None, Self::Gzip, Self::Zstd];

    /// The name in settings and in the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The end of an object's key.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }

    /// Decompresses an object. Fails if it is damaged, or larger than any object that Carga writes.
    #[cfg(feature = "compression")]
    pub(crate) fn decompress(self, object: &[u8]) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Self::None => Ok(Cow::Borrowed(object)),
            Self::Gzip => read_all(GzDecoder::new(object)),
            Self::Zstd => read_all(ZstdDecoder::new(object)?),
        }
    }

    /// Returns an object that is not compressed. A build without compression reads no other one.
    #[cfg(not(feature = "compression"))]
    pub(crate) fn decompress(self, object: &[u8]) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Self::None => Ok(Cow::Borrowed(object)),
            Self::Gzip | Self::Zstd => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The media type of an object.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/json",
            Self::Gzip => "application/gzip",
            Self::Zstd => "application/zstd",
        }
    }
}

impl fmt::Display for ArchiveCompression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ArchiveCompression {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            _ => Err("use `none`, `gzip` or `zstd`"),
        }
    }
}

#[cfg(feature = "compression")]
fn read_all<'a>(reader: impl Read) -> io::Result<Cow<'a, [u8]>> {
    let mut object = Vec::new();
    let mut limited = reader.take(LARGEST_OBJECT_BYTES + 1);
    limited.read_to_end(&mut object)?;
    match object.len() as u64 > LARGEST_OBJECT_BYTES {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(Cow::Owned(object)),
    }
}

/// Compresses with gzip. The header has neither a time nor a name nor a system, because these would
/// make other bytes of the same object.
#[cfg(feature = "compression")]
pub(super) fn gzip_encoder(output: Vec<u8>) -> GzEncoder<Vec<u8>> {
    const UNKNOWN_SYSTEM: u8 = 255;
    GzBuilder::new()
        .mtime(0)
        .operating_system(UNKNOWN_SYSTEM)
        .write(output, GZIP_LEVEL)
}

/// Compresses with Zstandard. The frame has a checksum, as gzip has one, so every reader finds a
/// damaged object without the manifest.
#[cfg(feature = "compression")]
pub(super) fn zstd_encoder(output: Vec<u8>) -> io::Result<ZstdEncoder<'static, Vec<u8>>> {
    let mut encoder = ZstdEncoder::new(output, ZSTD_LEVEL)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compression_is_read_back_from_its_name() {
        for compression in ArchiveCompression::ALL {
            assert_eq!(compression.name().parse(), Ok(compression));
            assert_eq!(compression.to_string(), compression.name());
        }
        let unknown = "brotli".parse::<ArchiveCompression>();
        assert_eq!(unknown, Err("use `none`, `gzip` or `zstd`"));
    }

    #[test]
    fn each_compression_has_a_suffix_and_a_media_type_of_its_own() {
        let found = ArchiveCompression::ALL
            .map(|compression| (compression.suffix(), compression.media_type()));
        let expected = [
            ("", "application/json"),
            (".gz", "application/gzip"),
            (".zst", "application/zstd"),
        ];
        assert_eq!(found, expected);
    }
}
