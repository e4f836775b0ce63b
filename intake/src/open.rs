//! Opens a file: decides how to read its bytes, and reads the names of its columns.

use bytes::Bytes;
use carga_common::settings::FileLimits;
use carga_common::upload::Dialect;

use crate::csv::{CsvLimits, CsvOpening, CsvOptions, CsvReader, Limit};
use crate::refusal::Refusal;

/// The decompressed bytes of a file.
pub trait FileBytes {
    /// The next bytes, or `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Refusal>> + Send;

    /// `gzip` or `zstd`, if the file was compressed.
    fn compression(&self) -> Option<&'static str>;
}

/// Why a file cannot be opened, and how it would be read as far as that is known.
#[derive(Debug)]
pub struct Unopened {
    /// The reason.
    pub refusal: Refusal,
    /// The dialect, if it was decided before the refusal.
    pub dialect: Option<Box<Dialect>>,
}

impl From<Unopened> for Refusal {
    fn from(unopened: Unopened) -> Self {
        unopened.refusal
    }
}

/// Reads the beginning of a file, up to its header, and decides how to read the file. Returns a
/// reader for the rest, and the dialect with the compression.
pub async fn open(
    file: &mut impl FileBytes,
    options: CsvOptions,
    limits: CsvLimits,
) -> Result<(CsvReader, Dialect), Unopened> {
    let mut opening = CsvOpening::new(options, limits);
    let opened = opened(file, &mut opening).await;
    let with_compression = |dialect: &Dialect| Dialect {
        compression: file.compression().map(str::to_owned),
        ..dialect.clone()
    };
    match opened {
        Ok(reader) => {
            let dialect = with_compression(reader.dialect());
            Ok((reader, dialect))
        }
        Err(refusal) => Err(Unopened {
            refusal,
            dialect: opening
                .dialect()
                .map(|dialect| Box::new(with_compression(dialect))),
        }),
    }
}

async fn opened(file: &mut impl FileBytes, opening: &mut CsvOpening) -> Result<CsvReader, Refusal> {
    loop {
        if let Some(reader) = opening.open()? {
            return Ok(reader);
        }
        match file.next().await? {
            Some(bytes) => opening.push(&bytes),
            None => opening.end(),
        }
    }
}

/// The limits in the settings, each with the name of its setting.
pub fn csv_limits(limits: &FileLimits) -> CsvLimits {
    let limit = |value, setting| Limit { value, setting };
    CsvLimits {
        columns: limit(limits.columns, "CARGA_MAX_COLUMNS"),
        column_name_bytes: limit(limits.column_name_bytes, "CARGA_MAX_COLUMN_NAME_BYTES"),
        header_bytes: limit(limits.header_bytes, "CARGA_MAX_HEADER_BYTES"),
        field_bytes: limit(limits.field_bytes, "CARGA_MAX_FIELD_BYTES"),
        row_bytes: limit(limits.row_bytes, "CARGA_MAX_ROW_BYTES"),
    }
}
