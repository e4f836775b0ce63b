//! Opening a file: how its bytes are read, and what its columns are.

use bytes::Bytes;
use carga_common::settings::FileLimits;
use carga_common::upload::Dialect;

use crate::csv::{CsvLimits, CsvOpening, CsvOptions, CsvReader, Limit};
use crate::refusal::Refusal;

/// The bytes of a file, decompressed.
pub trait FileBytes {
    /// The next bytes, or none at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Refusal>> + Send;

    /// `gzip` or `zstd`, where the file was compressed.
    fn compression(&self) -> Option<&'static str>;
}

/// Reads as much of a file as it takes to decide how to read it, and its header. The reader that is
/// returned takes the rest. `Dialect` is the reader's, with the compression.
pub async fn open(
    file: &mut impl FileBytes,
    options: CsvOptions,
    limits: CsvLimits,
) -> Result<(CsvReader, Dialect), Refusal> {
    let mut opening = CsvOpening::new(options, limits);
    let reader = loop {
        if let Some(reader) = opening.open()? {
            break reader;
        }
        match file.next().await? {
            Some(bytes) => opening.push(&bytes),
            None => opening.end(),
        }
    };
    let dialect = Dialect {
        compression: file.compression().map(str::to_owned),
        ..reader.dialect().clone()
    };
    Ok((reader, dialect))
}

/// The settings' limits as the reader takes them, each with the name of its setting.
pub fn csv_limits(limits: &FileLimits) -> CsvLimits {
    let limit = |value, setting| Limit { value, setting };
    CsvLimits {
        columns: limit(limits.columns, "CARGA_MAX_COLUMNS"),
        header_bytes: limit(limits.header_bytes, "CARGA_MAX_HEADER_BYTES"),
        field_bytes: limit(limits.field_bytes, "CARGA_MAX_FIELD_BYTES"),
        row_bytes: limit(limits.row_bytes, "CARGA_MAX_ROW_BYTES"),
    }
}
