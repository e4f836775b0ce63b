//! The dialect of a CSV file.

use serde::{Deserialize, Serialize};

/// How Carga detected the parts of a dialect that the client did not give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialectEvidence {
    /// The reason for the detected encoding.
    pub encoding: String,
    /// The reason for the detected delimiter.
    pub delimiter: String,
}

/// The dialect with which a file was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialect {
    /// `gzip` or `zstd`, or `None` for a plain file.
    pub compression: Option<String>,
    /// The WHATWG label in lower case.
    pub encoding: String,
    /// Whether the file begins with a byte order mark, which is not part of the first column's
    /// name.
    pub bom: bool,
    /// One character.
    pub delimiter: String,
    /// One character, or empty if the file has no quoting.
    pub quote: String,
    /// Whether the first record names the columns.
    pub header: bool,
    /// Whether every row ends with a superfluous delimiter.
    #[serde(default)]
    pub trailing_delimiter: bool,
    /// How the parts that the client did not give were detected.
    #[serde(default)]
    pub evidence: Option<DialectEvidence>,
}

impl Dialect {
    /// RFC 4180 in UTF-8 with a header.
    pub fn rfc4180(bom: bool) -> Self {
        Self {
            compression: None,
            encoding: "utf-8".to_owned(),
            bom,
            delimiter: ",".to_owned(),
            quote: "\"".to_owned(),
            header: true,
            trailing_delimiter: false,
            evidence: None,
        }
    }
}
