//! The dialect of a CSV file.

use serde::{Deserialize, Serialize};

/// How the parts of a dialect were found that the client did not give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialectEvidence {
    /// Why this encoding.
    pub encoding: String,
    /// Why this delimiter.
    pub delimiter: String,
}

/// How the file was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialect {
    /// `gzip`, `zstd`, or none.
    pub compression: Option<String>,
    /// The WHATWG label, lower case.
    pub encoding: String,
    /// Whether a byte order mark was there. It is not part of the first column's name.
    pub bom: bool,
    /// One character.
    pub delimiter: String,
    /// One character, or empty where no character quotes.
    pub quote: String,
    /// Whether the first record names the columns.
    pub header: bool,
    /// Whether every row ends with a superfluous delimiter.
    #[serde(default)]
    pub trailing_delimiter: bool,
    /// How the dialect was found, where the client did not give it.
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
