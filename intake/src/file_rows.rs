//! The rows of a file whose header has been accepted, and their conversion to the types of a
//! dataset.

use carga_common::dataset::Dataset;
use carga_common::upload::{Renamed, UploadDataset};

use crate::csv::CsvReader;
use crate::matching::match_columns;
use crate::options::Options;
use crate::refusal::Refusal;
use crate::typed::Converter;

/// The rows of a file whose header has been accepted.
pub(crate) struct FileRows {
    pub(crate) reader: CsvReader,
    /// Converts the rows; `None` if the upload has no dataset.
    pub(crate) converter: Option<Converter>,
}

impl FileRows {
    /// Prepares the rows of a file. With a dataset, finds its columns in the header, and also
    /// returns the part of the upload's record that describes the dataset. Its definition must be
    /// that for the cells of this file (see [`Options::effective_definition`]). `kept` is the
    /// largest number of rejected rows that is kept of any upload.
    pub(crate) fn new(
        reader: CsvReader,
        renamed: &[Renamed],
        dataset: Option<Dataset>,
        options: &Options,
        kept: u64,
    ) -> Result<(Self, Option<UploadDataset>), Refusal> {
        let Some(Dataset {
            name, definition, ..
        }) = dataset
        else {
            let converter = None;
            return Ok((Self { reader, converter }, None));
        };
        let merge = options.merge(&name, &definition)?;
        let columns = reader.columns();
        let unknown = options.unknown_columns.unwrap_or_default();
        let matching = match_columns(&definition, columns, renamed, unknown)?;
        matching.log();
        let converter = Some(Converter::new(
            &definition,
            &matching.sources,
            columns.len(),
        ));
        let sources = matching.sources.iter();
        let dataset = UploadDataset {
            name,
            columns: definition.typed_columns(),
            missing: matching.missing,
            ignored: matching.ignored,
            // The limit of columns is far below 2^32.
            sources: sources
                .map(|source| source.map(|index| index as u32))
                .collect(),
            reject_limit: options.policy.reject_limit(kept),
            merge,
        };
        Ok((Self { reader, converter }, Some(dataset)))
    }
}
