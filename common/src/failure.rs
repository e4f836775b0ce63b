//! The reason why an upload failed.

use serde::{Deserialize, Serialize};

/// The reason of a failed upload, and its position in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Failure {
    /// The stable code for programs: `too_few_fields`, `interrupted`, ….
    pub code: String,
    /// The explanation for people.
    pub message: String,
    /// The data row, counted from 1 without the header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub row: Option<u64>,
    /// The physical line of the file on which that row starts, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub line: Option<u64>,
    /// The name of the faulty column.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub column: Option<String>,
}

impl Failure {
    /// A failure of the whole upload, without a position.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            row: None,
            line: None,
            column: None,
        }
    }

    /// The same failure, at a row and line.
    pub fn at(mut self, row: u64, line: u64) -> Self {
        self.row = Some(row);
        self.line = Some(line);
        self
    }

    /// The same failure, in a column.
    pub fn in_column(mut self, column: impl Into<String>) -> Self {
        self.column = Some(column.into());
        self
    }
}
