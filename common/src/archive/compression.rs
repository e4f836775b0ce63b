//! The compression of archived batches.
//!
//! The same build always compresses an object into the same bytes, because a repeated `put` must
//! change nothing. Another version of a compressor may make other bytes of the same object.

use std::fmt;
#[cfg(feature = "compression")]
use std::io;
use std::str::FromStr;

#[cfg(feature = "compression")]
use flate2::write::GzEncoder;
#[cfg(feature = "compression")]
use flate2::{Compression, GzBuilder};
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

impl ArchiveCompression {
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

    const ALL: [ArchiveCompression; 3] = [
        ArchiveCompression::None,
        ArchiveCompression::Gzip,
        ArchiveCompression::Zstd,
    ];

    #[test]
    fn a_compression_is_read_back_from_its_name() {
        for compression in ALL {
            assert_eq!(compression.name().parse(), Ok(compression));
            assert_eq!(compression.to_string(), compression.name());
        }
        let unknown = "brotli".parse::<ArchiveCompression>();
        assert_eq!(unknown, Err("use `none`, `gzip` or `zstd`"));
    }

    #[test]
    fn each_compression_has_a_suffix_and_a_media_type_of_its_own() {
        let found = ALL.map(|compression| (compression.suffix(), compression.media_type()));
        let expected = [
            ("", "application/json"),
            (".gz", "application/gzip"),
            (".zst", "application/zstd"),
        ];
        assert_eq!(found, expected);
    }
}
