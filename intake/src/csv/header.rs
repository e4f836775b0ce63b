//! The header: the names of the columns, and the fields that every row must have.

use carga_common::upload::Renamed;

use super::corrections::ReportColumns;
use super::detect::Layout;
use super::fault::{Exceeded, FileFault};
use super::limits::{CsvLimits, Limit};
use super::names::{self, HeaderCell, Names};

/// The prefix of the columns that the reject report adds. They are not stored, so a corrected
/// report can be sent as it is.
pub(super) const REPORT_PREFIX: &str = "_carga_";

/// More columns than the report of any version adds.
pub(super) const MAX_REPORT_COLUMNS: usize = 16;

/// The columns that every row must fit.
#[derive(Debug, Default)]
pub(super) struct Header {
    /// The names of the stored columns.
    pub(super) columns: Vec<String>,
    /// The number of fields in a row, including those that are not stored.
    pub(super) width: usize,
    /// How many more fields a row may have if they are empty: a trailing delimiter, or columns with
    /// neither a name nor a value.
    pub(super) unnamed: usize,
    /// Which fields are stored; `None` if all are.
    stored: Option<Vec<bool>>,
    /// The columns of a reject report that is sent again.
    pub(super) report: ReportColumns,
    /// The columns whose names in the file were replaced.
    pub(super) renamed: Vec<Renamed>,
}

impl Header {
    /// The header of a file without one: the columns get numbered names.
    pub(super) fn numbered(count: usize, limit: Limit) -> Result<Self, FileFault> {
        check_count(count, limit)?;
        Ok(Self {
            columns: (1..=count).map(names::numbered).collect(),
            width: count,
            ..Self::default()
        })
    }

    /// The header with these names, which replace those in the file.
    pub(super) fn given(
        columns: Vec<String>,
        layout: &Layout,
        limits: &CsvLimits,
    ) -> Result<Self, FileFault> {
        let cells = columns.into_iter().map(HeaderCell::given).collect();
        Self::named(cells, Names::Strict, layout, limits)
    }

    /// The header with the names in the file.
    pub(super) fn named(
        cells: Vec<HeaderCell>,
        names: Names,
        layout: &Layout,
        limits: &CsvLimits,
    ) -> Result<Self, FileFault> {
        let is_report_column = |cell: &HeaderCell| {
            let name = cell.name.as_ref();
            name.is_ok_and(|name| name.starts_with(REPORT_PREFIX))
        };
        let stored = cells.iter().filter(|cell| !is_report_column(cell));
        check_count(stored.count(), limits.columns)?;
        for (index, cell) in cells.iter().enumerate() {
            check_name(index + 1, &cell.name, limits.column_name_bytes)?;
        }
        let named = names::columns(cells, names, layout)?;
        // A repaired name may be longer than that in the file.
        for (index, name) in named.columns.iter().enumerate() {
            check_name_length(index + 1, name, limits.column_name_bytes)?;
        }
        let is_stored = |name: &&String| !name.starts_with(REPORT_PREFIX);
        check_count(
            named.columns.iter().filter(is_stored).count(),
            limits.columns,
        )?;
        let width = named.columns.len();
        let mut header = Self {
            width,
            unnamed: named.unnamed,
            renamed: named.renamed,
            ..Self::default()
        };
        let mut stored = Vec::with_capacity(width);
        for (index, name) in named.columns.into_iter().enumerate() {
            let is_stored = !name.starts_with(REPORT_PREFIX);
            stored.push(is_stored);
            match is_stored {
                true => header.columns.push(name),
                false => header.report.add(&name, index),
            }
        }
        if header.columns.is_empty() {
            let message = format!(
                "all column names begin with `{REPORT_PREFIX}`; columns with this prefix are not stored"
            );
            return Err(FileFault::new("no_columns", message));
        }
        header.stored = (header.columns.len() < width).then_some(stored);
        Ok(header)
    }

    /// Whether a field of a row is stored.
    pub(super) fn stores(&self, field: usize) -> bool {
        let stored = self.stored.as_ref();
        stored.is_none_or(|stored| stored.get(field).copied().unwrap_or(false))
    }

    /// The number of stored columns among the fields from this index on.
    pub(super) fn stored_from(&self, field: usize) -> usize {
        (field..self.width)
            .filter(|field| self.stores(*field))
            .count()
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

/// Checks that a name can be stored. A name that is not UTF-8 arrives as `Err` with its escaped
/// text.
fn check_name_length(number: usize, name: &str, limit: Limit) -> Result<(), FileFault> {
    if name.len() <= limit.value {
        return Ok(());
    }
    let (bytes, Limit { value, setting }) = (name.len(), limit);
    // The name itself is not in the message: an answer and a log line must stay short.
    let message = format!(
        "the name of column {number} has {bytes} bytes; the limit is {value} ({setting}); a quote that is not closed may have joined several names"
    );
    let fault = FileFault::new("column_name_too_long", message);
    Err(fault.exceeding(Exceeded::new(limit, bytes as u64)))
}

fn check_name(number: usize, name: &Result<String, String>, limit: Limit) -> Result<(), FileFault> {
    check_name_length(
        number,
        name.as_ref().unwrap_or_else(|escaped| escaped),
        limit,
    )?;
    let name = name.as_ref().map_err(|escaped| {
        let message = format!("the name of column {number} cannot be decoded: {escaped}");
        FileFault::new("undecodable", message)
    })?;
    if name.contains('\0') {
        let message = format!("the name of column {number} contains a NUL character");
        return Err(FileFault::new("nul_character", message));
    }
    Ok(())
}
