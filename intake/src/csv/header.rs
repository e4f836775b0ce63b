//! The header: the names of the columns, or their number if the file has no header.

use std::collections::HashSet;

use super::corrections::ReportColumns;
use super::detect;
use super::fault::{Exceeded, FileFault};
use super::limits::{CsvLimits, Limit};
use super::syntax::Syntax;

/// Whether rows have a trailing delimiter: one after the last field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trailing {
    No,
    Yes,
    /// Yes if the header has one.
    LikeHeader,
}

/// The prefix of the columns that the reject report adds. They are not stored, so a corrected
/// report can be sent as it is.
const REPORT_PREFIX: &str = "_carga_";

/// More columns than the report of any version adds.
pub(super) const MAX_REPORT_COLUMNS: usize = 16;

/// The columns that every row must fit.
#[derive(Debug)]
pub(super) struct Header {
    /// The names of the stored columns.
    pub(super) columns: Vec<String>,
    /// The number of fields in a row, including those that are not stored.
    pub(super) width: usize,
    /// Which fields are stored; `None` if all are.
    pub(super) stored: Option<Vec<bool>>,
    pub(super) trailing_delimiter: bool,
    /// The columns of a reject report that is sent again.
    pub(super) report: ReportColumns,
}

impl Header {
    /// A placeholder until the header is read.
    pub(super) fn unread() -> Self {
        Self {
            columns: Vec::new(),
            width: 0,
            stored: None,
            trailing_delimiter: false,
            report: ReportColumns::default(),
        }
    }

    /// The header of a file without one: the columns get numbered names.
    pub(super) fn numbered(count: usize, limit: Limit) -> Result<Self, FileFault> {
        check_count(count, limit)?;
        Ok(Self {
            columns: (1..=count)
                .map(|number| format!("column_{number}"))
                .collect(),
            width: count,
            stored: None,
            trailing_delimiter: false,
            report: ReportColumns::default(),
        })
    }

    /// A header with these names. If rows may have a trailing delimiter, an empty last name is
    /// not a column.
    pub(super) fn named(
        mut names: Vec<Result<String, String>>,
        trailing: Trailing,
        limits: &CsvLimits,
    ) -> Result<Self, FileFault> {
        let has_empty_last =
            names.len() > 1 && names.last().is_some_and(|name| name.as_deref() == Ok(""));
        if trailing != Trailing::No && has_empty_last {
            names.pop();
        }
        let trailing_delimiter = match trailing {
            Trailing::No => false,
            Trailing::Yes => true,
            Trailing::LikeHeader => has_empty_last,
        };
        let is_report_column = |name: &Result<String, String>| {
            let name = name.as_ref();
            name.is_ok_and(|name| name.starts_with(REPORT_PREFIX))
        };
        check_count(
            names.iter().filter(|name| !is_report_column(name)).count(),
            limits.columns,
        )?;
        let width = names.len();
        let (mut columns, mut stored) = (Vec::with_capacity(width), Vec::with_capacity(width));
        let mut report = ReportColumns::default();
        let mut seen = HashSet::with_capacity(width);
        for (index, name) in names.into_iter().enumerate() {
            let name = check_name(index + 1, name, limits.column_name_bytes)?;
            stored.push(!name.starts_with(REPORT_PREFIX));
            if name.starts_with(REPORT_PREFIX) {
                report.add(&name, index);
                continue;
            }
            if !seen.insert(name.clone()) {
                let number = index + 1;
                let message = format!(
                    "column {number} repeats the name `{name}`; column names must be unique"
                );
                let fault = FileFault::new("duplicate_column_name", message);
                return Err(fault.in_column(&name));
            }
            columns.push(name);
        }
        if columns.is_empty() {
            let message = format!(
                "all column names begin with `{REPORT_PREFIX}`; columns with this prefix are not stored"
            );
            return Err(FileFault::new("no_columns", message));
        }
        Ok(Self {
            stored: (columns.len() < width).then_some(stored),
            columns,
            width,
            trailing_delimiter,
            report,
        })
    }

    /// Whether a field of a row is stored.
    pub(super) fn stores(&self, field: usize) -> bool {
        let stored = self.stored.as_ref();
        stored.is_none_or(|stored| stored.get(field).copied().unwrap_or(false))
    }

    /// The name of the column that a field belongs to; `None` if the field is not stored.
    pub(super) fn column_of(&self, field: usize) -> Option<&str> {
        let index = match &self.stored {
            None => field,
            Some(stored) if stored.get(field).copied().unwrap_or(false) => {
                stored[..field].iter().filter(|stored| **stored).count()
            }
            Some(_) => return None,
        };
        self.columns.get(index).map(String::as_str)
    }
}

fn check_count(found: usize, limit: Limit) -> Result<(), FileFault> {
    match found <= limit.value {
        true => Ok(()),
        false => Err(too_many_columns(found, limit)),
    }
}

/// The fault of a file with more columns than the limit.
pub(super) fn too_many_columns(found: usize, limit: Limit) -> FileFault {
    let Limit { value, setting } = limit;
    let message = format!("the file has {found} columns; the limit is {value} ({setting})");
    let fault = FileFault::new("too_many_columns", message);
    fault.exceeding(Exceeded::new(limit, found as u64))
}

/// Checks a column's name. A name that is not UTF-8 arrives as `Err` with its escaped text.
fn check_name(
    number: usize,
    name: Result<String, String>,
    limit: Limit,
) -> Result<String, FileFault> {
    // The name itself is not in the message: an answer and a log line must stay short.
    let bytes = name.as_ref().map_or_else(String::len, String::len);
    if bytes > limit.value {
        let Limit { value, setting } = limit;
        let message = format!(
            "the name of column {number} has {bytes} bytes; the limit is {value} ({setting}); a quote that is not closed may have joined several names"
        );
        let fault = FileFault::new("column_name_too_long", message);
        return Err(fault.exceeding(Exceeded::new(limit, bytes as u64)));
    }
    let name = name.map_err(|escaped| {
        let message = format!("the name of column {number} cannot be decoded: {escaped}");
        FileFault::new("undecodable", message)
    })?;
    if name.trim().is_empty() {
        return Err(FileFault::new(
            "empty_column_name",
            format!("column {number} has no name"),
        ));
    }
    if name.contains('\0') {
        let message = format!("the name of column {number} contains a NUL character");
        return Err(FileFault::new("nul_character", message));
    }
    Ok(name)
}

/// Detects whether the rows of a sample have a trailing delimiter. Either the header's last
/// name is empty, or rows have one field more than the header. In addition, nine rows in ten
/// must have nothing in that field. The other rows are then rejected.
pub(super) fn trailing_delimiter(text: &[u8], syntax: Syntax, whole: bool) -> Trailing {
    const MIN_TENTHS: usize = 9;
    let mut header = None;
    let (mut rows, mut trailing_rows) = (0_usize, 0);
    detect::for_each_record(text, syntax, whole, |_, fields| {
        let is_empty = fields.last().is_some_and(|field| field.start == field.end);
        match header {
            None => header = Some((fields.len(), is_empty && fields.len() > 1)),
            Some((width, header_has_trailing)) => {
                // The width with the field after the trailing delimiter.
                let width = width + usize::from(!header_has_trailing);
                rows += 1;
                let is_there = fields.len() == width;
                // If the header has the trailing delimiter, a row may lack it.
                trailing_rows +=
                    usize::from(is_there && is_empty || header_has_trailing && !is_there);
            }
        }
    });
    let header_has_trailing = header.is_some_and(|(_, has_empty_last)| has_empty_last);
    match 10 * trailing_rows >= MIN_TENTHS * rows && (header_has_trailing || rows > 0) {
        true => Trailing::Yes,
        false => Trailing::No,
    }
}
