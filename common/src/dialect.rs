//! The dialect of a CSV file.

use serde::{Deserialize, Serialize};

/// How Carga detected the parts of a dialect that the client did not give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DialectEvidence {
    /// The reason for the detected encoding.
    pub encoding: String,
    /// The reason for the detected delimiter.
    pub delimiter: String,
    /// The reason why the first record is a header or a row.
    #[serde(default)]
    pub header: String,
    /// The reason why lines above the header are skipped or not.
    #[serde(default)]
    pub skip: String,
}

/// A column whose name in the file was replaced, or that is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Renamed {
    /// The number of the field in the file, from 1.
    pub column: usize,
    /// The name in the file.
    pub from: String,
    /// The new name; `None` if the column is left out.
    pub to: Option<String>,
}

/// The dialect with which a file was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Dialect {
    /// `gzip` or `zstd`, or `None` for a plain file.
    pub compression: Option<String>,
    /// The WHATWG label in lower case, or the name of a DOS code page.
    pub encoding: String,
    /// Whether the file begins with a byte order mark, which is not part of the first column's
    /// name.
    pub bom: bool,
    /// One character.
    pub delimiter: String,
    /// One character, or empty if the file has no quoting.
    pub quote: String,
    /// The character that hides a quote inside quoted fields, besides a doubled quote.
    #[serde(default)]
    pub escape: Option<String>,
    /// Whether the first record names the columns.
    pub header: bool,
    /// The physical lines above the header that are not read.
    #[serde(default)]
    pub skipped_lines: u64,
    /// Whether rows may end with delimiters after the last column.
    #[serde(default)]
    pub trailing_delimiter: bool,
    /// The columns whose names were replaced.
    #[serde(default)]
    pub renamed: Vec<Renamed>,
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
            escape: None,
            header: true,
            skipped_lines: 0,
            renamed: Vec::new(),
            trailing_delimiter: false,
            evidence: None,
        }
    }
}
