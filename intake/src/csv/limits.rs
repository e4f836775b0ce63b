//! What a CSV file may not exceed.

/// A limit, and the name of the setting that changes it. Messages quote the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The largest value allowed.
    pub value: usize,
    /// The setting's name.
    pub setting: &'static str,
}

/// The limits of one file. A record that exceeds one is rejected; a header that does fails the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CsvLimits {
    /// Columns, without those that are not stored.
    pub columns: Limit,
    /// Bytes of the header's record, in UTF-8.
    pub header_bytes: Limit,
    /// Bytes of one field, in UTF-8.
    pub field_bytes: Limit,
    /// Bytes of one record, in UTF-8, with its line end.
    pub row_bytes: Limit,
}
