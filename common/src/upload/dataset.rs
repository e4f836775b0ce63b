//! The dataset of an upload.

use serde::{Deserialize, Serialize};

use crate::dataset::{DatasetKey, DatasetName, Mode, TableName, TypedColumn};
use crate::tenant::Tenant;

/// The dataset of an upload, as it was when the upload was created.
///
/// The columns are those of the definition at that time, so nothing that stores rows depends on a
/// later definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UploadDataset {
    /// The dataset's name.
    pub name: DatasetName,
    /// The tenant of the dataset, which is that of the upload.
    #[serde(default, skip_serializing_if = "Tenant::is_default")]
    pub tenant: Tenant,
    /// The dataset's columns, in the order of the definition.
    pub columns: Vec<TypedColumn>,
    /// The columns of the dataset that the file lacks. Their cells are NULL.
    pub missing: Vec<String>,
    /// The columns of the file that are not stored.
    pub ignored: Vec<String>,
    /// The index of the file's column for each column of the dataset; `None` if the file lacks it.
    pub sources: Vec<Option<u32>>,
    /// How many rows may be rejected before the upload fails.
    pub reject_limit: RejectLimit,
    /// How the rows are merged into the table when all of them are there. `None` if each batch
    /// appends its rows to the table.
    pub merge: Option<Merge>,
    /// The table of the user that gets the rows; `None` if it is a table of Carga. Rows for a table
    /// of the user are always merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableName>,
}

impl UploadDataset {
    /// The dataset's tenant and name.
    pub fn key(&self) -> DatasetKey {
        DatasetKey::new(self.tenant.clone(), self.name.clone())
    }

    /// The table in Postgres that gets the rows.
    pub fn postgres_table(&self) -> TableName {
        let of_user = self.table.clone();
        of_user.unwrap_or_else(|| self.key().postgres_table())
    }

    /// Whether the rows are staged until the end, and then merged into the table in one
    /// transaction.
    pub fn is_staged(&self) -> bool {
        self.merge.is_some()
    }

    /// The columns that the file has, with their indexes in the dataset. A merge writes only these,
    /// so the other columns keep their values in the table.
    pub fn written_columns(&self) -> Vec<(usize, &TypedColumn)> {
        let columns = self.columns.iter().enumerate();
        let written = columns.filter(|(_, column)| !self.missing.contains(&column.name));
        written.collect()
    }

    /// The names of the columns that the file has.
    pub fn written_names(&self) -> Vec<&str> {
        let written = self.written_columns().into_iter();
        written.map(|(_, column)| column.name.as_str()).collect()
    }
}

/// How staged rows are merged into the table of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    /// What happens to a row whose key is in the table already.
    pub mode: Mode,
    /// The key of the dataset; empty if it has none.
    pub key: Vec<String>,
}

/// How many rows of an upload may be rejected before it fails. Rows that violate a constraint of
/// the table are found after the file was read, so the limit is on record.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RejectLimit {
    /// Whether the first rejected row fails the upload (`on_error=abort`).
    pub abort: bool,
    /// The most rejected rows (`max_rejects` as a number).
    pub rows: Option<u64>,
    /// The largest percentage of all rows (`max_rejects` as a percentage), which is checked when
    /// every row has been stored or rejected.
    pub percent: Option<f64>,
    /// The most rejected rows that are kept of any upload (`CARGA_MAX_REJECTS`).
    pub kept: u64,
}

/// Allows any number.
impl Default for RejectLimit {
    fn default() -> Self {
        Self {
            abort: false,
            rows: None,
            percent: None,
            kept: u64::MAX,
        }
    }
}

impl RejectLimit {
    /// Whether this number of rejected rows fails an upload whose other rows are not all stored
    /// yet.
    pub fn is_exceeded(&self, rejected: u64) -> bool {
        let rows = self.rows.unwrap_or(u64::MAX);
        rejected > rows.min(self.kept) || self.abort && rejected > 0
    }

    /// Whether this number of rejected rows fails an upload that has this number of rows.
    pub fn is_exceeded_at_end(&self, rejected: u64, read: u64) -> bool {
        let share = |percent| rejected as f64 * 100.0 > percent * read as f64;
        self.is_exceeded(rejected) || self.percent.is_some_and(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dataset_of_an_upload_is_read_back_from_json() {
        let json = serde_json::json!({
            "name": "Sales", "columns": [{ "name": "day", "type": "date" }],
            "missing": ["day"], "ignored": ["note"], "sources": [null],
            "reject_limit": { "abort": false, "rows": 3, "percent": null, "kept": 9 },
            "merge": { "mode": "update", "key": ["day"] },
        });
        let dataset: UploadDataset = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(dataset.columns[0].kind, crate::dataset::ColumnType::Date);
        assert!(dataset.tenant.is_default());
        assert_eq!(serde_json::to_value(&dataset).unwrap(), json);
    }

    #[test]
    fn the_dataset_of_an_upload_keeps_its_tenant() {
        let mut json = serde_json::json!({
            "name": "Sales", "columns": [], "missing": [], "ignored": [], "sources": [],
            "reject_limit": { "abort": false, "rows": null, "percent": null, "kept": 9 },
            "merge": null, "tenant": "acme",
        });
        let dataset: UploadDataset = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(dataset.key().to_string(), "acme/Sales");
        assert_eq!(dataset.postgres_table().schema(), "datasets_acme");
        assert_eq!(serde_json::to_value(&dataset).unwrap(), json);
        json["tenant"] = "A/b".into();
        assert!(serde_json::from_value::<UploadDataset>(json).is_err());
    }
}
