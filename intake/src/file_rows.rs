//! The rows of a file whose header has been accepted, and their conversion to the types of a
//! dataset.

use carga_common::dataset::{Dataset, DatasetKey};
use carga_common::store::Store;
use carga_common::tenant::Tenant;
use carga_common::upload::{Dialect, Renamed, UploadDataset};

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

/// The dataset of a tenant that the options name, with the definition for the cells of this file.
/// The dataset must exist, have a key if the mode needs one, and take the options for cells.
pub(crate) async fn find_dataset(
    store: &dyn Store,
    tenant: &Tenant,
    options: &Options,
) -> Result<Option<Dataset>, Refusal> {
    let Some(name) = &options.dataset else {
        return Ok(None);
    };
    let key = DatasetKey::new(tenant.clone(), name.clone());
    let found = store.dataset(&key).await?;
    let dataset = found.ok_or_else(|| Refusal::no_such_dataset(name))?;
    options.merge(name, &dataset.definition)?;
    let definition = options.effective_definition(&dataset.definition)?;
    Ok(Some(Dataset {
        definition,
        ..dataset
    }))
}

impl FileRows {
    /// Prepares the rows of a file as `new` does. If the dataset has a table of the user, the table
    /// must take the columns that the file has.
    pub(crate) async fn checked(
        store: &dyn Store,
        reader: CsvReader,
        dialect: &Dialect,
        dataset: Option<&Dataset>,
        options: &Options,
        kept: u64,
    ) -> Result<(Self, Option<UploadDataset>), Refusal> {
        let (rows, of_upload) = Self::new(reader, &dialect.renamed, dataset, options, kept)?;
        let of_user = dataset.filter(|dataset| dataset.definition.table.is_some());
        if let (Some(dataset), Some(of_upload)) = (of_user, &of_upload) {
            let written = of_upload.written_names();
            let checked = store.check_table(&dataset.definition, &written).await?;
            checked.map_err(|fault| Refusal::unfit_table(&dataset.name, &fault))?;
        }
        Ok((rows, of_upload))
    }

    /// Prepares the rows of a file. With a dataset, finds its columns in the header, and also
    /// returns the part of the upload's record that describes the dataset. Its definition must be
    /// that for the cells of this file (see [`Options::effective_definition`]). `kept` is the
    /// largest number of rejected rows that is kept of any upload.
    pub(crate) fn new(
        reader: CsvReader,
        renamed: &[Renamed],
        dataset: Option<&Dataset>,
        options: &Options,
        kept: u64,
    ) -> Result<(Self, Option<UploadDataset>), Refusal> {
        let Some(Dataset {
            tenant,
            name,
            definition,
            ..
        }) = dataset
        else {
            let converter = None;
            return Ok((Self { reader, converter }, None));
        };
        let merge = options.merge(name, definition)?;
        let columns = reader.columns();
        let unknown = options.unknown_columns.unwrap_or_default();
        let matching = match_columns(definition, columns, renamed, unknown)?;
        matching.log();
        let converter = Some(Converter::new(definition, &matching.sources, columns.len()));
        let sources = matching.sources.iter();
        let dataset = UploadDataset {
            name: name.clone(),
            tenant: tenant.clone(),
            columns: definition.typed_columns(),
            missing: matching.missing,
            ignored: matching.ignored,
            // The limit of columns is far below 2^32.
            sources: sources
                .map(|source| source.map(|index| index as u32))
                .collect(),
            reject_limit: options.policy.reject_limit(kept),
            merge,
            table: definition.table.clone(),
        };
        Ok((Self { reader, converter }, Some(dataset)))
    }
}

#[cfg(test)]
mod tests {
    use carga_common::dataset::{Definition, Mode};
    use carga_common::upload::Merge;

    use super::*;
    use crate::csv::{CsvLimits, CsvOpening, CsvOptions, Limit};

    /// A dataset of the tenant `default`.
    fn dataset(definition: &str) -> Dataset {
        Dataset {
            tenant: Tenant::default(),
            name: "prices".parse().unwrap(),
            definition: Definition::from_json(definition.as_bytes()).unwrap(),
            created_at: "2026-11-26T00:00:00Z".parse().unwrap(),
            updated_at: "2026-11-26T00:00:00Z".parse().unwrap(),
        }
    }

    /// The part of an upload's record that describes the dataset, for a file with this text.
    fn of_upload(definition: &str, text: &str) -> UploadDataset {
        of_upload_into(&dataset(definition), text)
    }

    fn of_upload_into(dataset: &Dataset, text: &str) -> UploadDataset {
        let limit = Limit {
            value: 1 << 20,
            setting: "a limit",
        };
        let limits = CsvLimits {
            columns: limit,
            column_name_bytes: limit,
            header_bytes: limit,
            field_bytes: limit,
            row_bytes: limit,
        };
        let mut opening = CsvOpening::new(CsvOptions::default(), limits);
        opening.push(text.as_bytes());
        opening.end();
        let reader = opening.open().unwrap().unwrap();
        let rows = FileRows::new(reader, &[], Some(dataset), &Options::default(), 10);
        rows.unwrap().1.unwrap()
    }

    #[test]
    fn an_upload_for_a_table_of_the_user_names_the_table_and_is_merged() {
        let definition = |table: &str| {
            format!(
                r#"{{ "columns": [{{ "name": "sku", "type": "text" }},
                    {{ "name": "price", "type": "numeric" }},
                    {{ "name": "note", "type": "text" }}], "table": {table} }}"#
            )
        };
        let text = "note,sku\nx,A-17\ny,A-18\n";
        let of_user = of_upload(&definition("\"shop.prices\""), text);
        assert_eq!(of_user.table, Some("shop.prices".parse().unwrap()));
        let merge = Merge {
            mode: Mode::Append,
            key: Vec::new(),
        };
        assert_eq!(of_user.merge, Some(merge));
        assert_eq!(of_user.written_names(), ["sku", "note"]);
        let own = of_upload(&definition("null"), text);
        assert_eq!((own.table, own.merge), (None, None));
    }
    #[test]
    fn the_dataset_of_an_upload_is_that_of_its_tenant() {
        let definition = r#"{ "columns": [{ "name": "sku", "type": "text" }] }"#;
        let dataset = Dataset {
            tenant: "acme".parse().unwrap(),
            ..dataset(definition)
        };
        let found = of_upload_into(&dataset, "sku\nA-17\n");
        assert_eq!(found.key(), dataset.key());
    }
}
