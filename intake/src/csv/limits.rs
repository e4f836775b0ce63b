//! The limits of a CSV file.

/// A limit, and the name of the setting that changes it. Messages quote that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The largest value allowed.
    pub value: usize,
    /// The setting's name.
    pub setting: &'static str,
}

/// The limits of one file. A record that exceeds a limit is rejected, and a header that exceeds
/// one fails the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CsvLimits {
    /// Stored columns.
    pub columns: Limit,
    /// Bytes of one column's name, in UTF-8. Every row repeats the name in the archive.
    pub column_name_bytes: Limit,
    /// Bytes of the header, in UTF-8.
    pub header_bytes: Limit,
    /// Bytes of one field, in UTF-8.
    pub field_bytes: Limit,
    /// Bytes of one record with its line end, in UTF-8.
    pub row_bytes: Limit,
}
