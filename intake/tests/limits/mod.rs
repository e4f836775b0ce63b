//! Generous limits for tests and benchmarks of the CSV reader.

use carga_intake::csv::{CsvLimits, Limit};

pub(crate) const LIMITS: CsvLimits = CsvLimits {
    columns: limit(1600),
    column_name_bytes: limit(4096),
    header_bytes: limit(1 << 20),
    field_bytes: limit(1 << 20),
    row_bytes: limit(4 << 20),
};

pub(crate) const fn limit(value: usize) -> Limit {
    let setting = "a limit";
    Limit { value, setting }
}
