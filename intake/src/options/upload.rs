//! The options of one upload.

use carga_common::dataset::{DatasetName, Definition, FileReading, Mode};
use carga_common::sha256::Sha256;
use carga_common::upload::Merge;

use super::values::clean_filename;
use crate::csv::{Charset, CsvOptions};
use crate::matching::UnknownColumns;
use crate::policy::{OnDuplicate, Policy};
use crate::refusal::Refusal;

/// The options of one upload.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The options that were given, with their values.
    pub(super) given: Vec<(&'static str, String)>,
    /// The name that is recorded for the file.
    pub(crate) filename: Option<String>,
    /// The SHA-256 that the file must have.
    pub sha256: Option<Sha256>,
    /// The dataset that the rows go into.
    pub dataset: Option<DatasetName>,
    /// What happens to columns of the file that the dataset does not have.
    pub(crate) unknown_columns: Option<UnknownColumns>,
    /// What happens to a row whose key is in the table of the dataset.
    pub(crate) mode: Option<Mode>,
    /// Whether all rows get into the table of the dataset at once.
    pub(crate) atomic: Option<bool>,
    /// How the cells are read, where this differs from the definition of the dataset.
    pub(crate) reading: FileReading,
    /// How to read the file.
    pub(crate) csv: CsvOptions,
    /// When rejected rows fail the upload.
    pub(crate) policy: Policy,
    /// What happens to a file that was imported before.
    pub(crate) on_duplicate: OnDuplicate,
}

impl Options {
    /// The options that were given, as names and values.
    pub(crate) fn given(&self) -> &[(&'static str, String)] {
        &self.given
    }

    /// Whether the option was given.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == name)
    }

    /// How the rows are merged into the table of a dataset; `None` if each batch appends its rows
    /// to the table. Refused if the mode needs a key that the dataset does not have.
    ///
    /// Rows for a table of the user are always merged. Such a table does not say which upload wrote
    /// a row, so the rows of an upload that fails could not be removed from it.
    pub fn merge(
        &self,
        name: &DatasetName,
        definition: &Definition,
    ) -> Result<Option<Merge>, Refusal> {
        let mode = self.mode.unwrap_or(definition.mode);
        if mode != Mode::Append && definition.key.is_empty() {
            let message = format!(
                "dataset `{name}` has no key; the mode `{mode}` compares rows by their key, so leave out `mode`, or use a dataset with a key"
            );
            return Err(Refusal::unprocessable("no_key", message));
        }
        let is_atomic = self.atomic == Some(true) || definition.table.is_some();
        let is_staged = mode != Mode::Append || is_atomic;
        Ok(is_staged.then(|| Merge {
            mode,
            key: definition.key.clone(),
        }))
    }

    /// The definition for the cells of the file: that of the dataset, changed by the options
    /// `null`, `decimal` and `date_format`. Refused if one of them contradicts a rule of a column.
    pub fn effective_definition(&self, definition: &Definition) -> Result<Definition, Refusal> {
        definition.with_reading(&self.reading).map_err(|fault| {
            let message = format!("option `{}`: {}", fault.field, fault.message);
            Refusal::unprocessable("malformed_option", message)
        })
    }

    /// Uses the part's own file name if no option gives a name.
    pub fn default_filename(&mut self, name: Option<&str>) {
        if self.filename.is_none() {
            self.filename = name.map(clean_filename).filter(|name| !name.is_empty());
        }
    }

    /// Uses the encoding in the headers of the request or the part if no option gives an encoding.
    pub fn default_encoding(&mut self, encoding: Option<Charset>) {
        self.csv.encoding = self.csv.encoding.or(encoding);
    }

    /// Uses what the headers of the request or the part say about a header line if no option does.
    pub fn default_header(&mut self, is_present: Option<bool>) {
        self.csv.header = self.csv.header.or(is_present);
    }

    /// Compares the digest of the file with the one announced.
    pub(crate) fn check_sha256(&self, found: Sha256) -> Result<(), Refusal> {
        match self.sha256 {
            Some(announced) if announced != found => {
                let message = format!("expected SHA-256 {announced}, found {found}");
                Err(Refusal::unprocessable("sha256_mismatch", message))
            }
            _ => Ok(()),
        }
    }
}
