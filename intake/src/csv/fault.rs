//! Why a record is not a row, and why a file cannot be read.

use carga_common::rejects::RejectedRow;
use serde::Serialize;

use super::broken::{Broken, BrokenKind};
use super::limits::Limit;

/// A limit, and the value that exceeded it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// The limit.
    pub limit: u64,
    /// The value found.
    pub actual: u64,
}

impl Exceeded {
    pub(super) fn new(limit: Limit, actual: u64) -> Self {
        Self {
            limit: limit.value as u64,
            actual,
        }
    }
}

/// A fault that ends the reading of the whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFault {
    /// The stable code, for programs.
    pub code: &'static str,
    /// The explanation, for people.
    pub message: String,
    /// The number of the record, from 1. The header does not count.
    pub row: Option<u64>,
    /// The physical line, from 1.
    pub line: Option<u64>,
    /// The column's name.
    pub column: Option<String>,
    /// The limit, if one was exceeded.
    pub exceeded: Option<Exceeded>,
}

impl FileFault {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            row: None,
            line: None,
            column: None,
            exceeded: None,
        }
    }

    pub(super) fn on_line(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }

    pub(super) fn in_column(mut self, column: &str) -> Self {
        self.column = Some(column.to_owned());
        self
    }

    pub(super) fn exceeding(mut self, exceeded: Exceeded) -> Self {
        self.exceeded = Some(exceeded);
        self
    }

    /// A header that cannot be read.
    pub(super) fn broken_header(broken: &Broken, limit: Limit) -> Self {
        Self::broken(broken, "header", limit)
    }

    /// A row that can be neither read nor skipped.
    pub(super) fn broken_row(row: u64, broken: &Broken, limit: Limit) -> Self {
        let mut fault = Self::broken(broken, "row", limit);
        fault.row = Some(row);
        fault
    }

    fn broken(broken: &Broken, record: &'static str, limit: Limit) -> Self {
        let (code, message) = describe_broken(broken.kind, record, limit);
        let fault = Self::new(code, message).on_line(broken.position.line);
        match broken.kind.actual_bytes() {
            Some(actual) => fault.exceeding(Exceeded::new(limit, actual)),
            None => fault,
        }
    }
}

/// A rejected row, and the limit that it exceeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The record as it is reported.
    pub row: RejectedRow,
    /// The limit, if one was exceeded.
    pub exceeded: Option<Exceeded>,
}

/// A possible mistake in a row that is valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Warning {
    /// The number of the record, from 1. The header does not count.
    pub row: u64,
    /// The physical line on which the record begins, from 1.
    pub line: u64,
    /// The stable code, for programs.
    pub code: &'static str,
    /// The explanation, for people.
    pub message: String,
}

/// Why a record is not a row.
#[derive(Debug)]
pub(super) struct RowFault {
    pub(super) code: &'static str,
    pub(super) message: String,
    /// The index of the faulty field in the record, from 0.
    pub(super) field: Option<usize>,
    /// Whether the record has exactly one field per column.
    pub(super) fits: bool,
    pub(super) exceeded: Option<Exceeded>,
    /// The text to report instead of the record, if that is not the record itself.
    pub(super) original: Option<String>,
}

impl RowFault {
    /// A fault of a record that has exactly one field per column.
    pub(super) fn of_field(
        code: &'static str,
        message: impl Into<String>,
        field: Option<usize>,
    ) -> Self {
        Self {
            code,
            message: message.into(),
            field,
            fits: true,
            exceeded: None,
            original: None,
        }
    }

    /// A fault of a record whose fields do not match the columns.
    pub(super) fn of_record(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            fits: false,
            ..Self::of_field(code, message, None)
        }
    }
}

/// The code and the message for a broken record. `record` is `header` or `row`.
pub(super) fn describe_broken(
    kind: BrokenKind,
    record: &'static str,
    limit: Limit,
) -> (&'static str, String) {
    let Limit { value, setting } = limit;
    match kind {
        BrokenKind::UnclosedQuote => {
            let message = format!(
                "a quote opened on this line is not closed within {value} bytes ({setting}) or before the end of the file"
            );
            ("unclosed_quote", message)
        }
        BrokenKind::StrayQuote { .. } => {
            let message = "a quote opened on this line is closed on a later line, with text after it; double the quotes inside a quoted field";
            ("bad_quote", message.to_owned())
        }
        BrokenKind::TooLong { actual } | BrokenKind::Endless { actual } => {
            let code = match record {
                "row" => "row_too_large",
                _ => "header_too_large",
            };
            let message = format!(
                "the {record} has at least {actual} bytes; the limit is {value} ({setting})"
            );
            (code, message)
        }
    }
}
