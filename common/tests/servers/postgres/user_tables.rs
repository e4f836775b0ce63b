//! Datasets that name a table of the user: its description in the catalog, and merges into it.

mod catalog;
mod constraints;
mod declaring;
mod errors;
mod fitting;
mod keys;
mod locking;
mod modes;
mod permissions;
mod values;

use anyhow::{Context, Result, ensure};
use carga_common::dataset::{Definition, Mode, TableFault};
use carga_common::rejects::RejectedRow;
use carga_common::store::{
    Completed, CompletionStore, DatasetStore, PostgresStore, PutOutcome, UploadStore,
};
use carga_common::upload::{Merge, RejectLimit, Upload, UploadDataset, UploadId, UploadKey};
use carga_testkit::Scope;
use serde_json::{Value, json};

use super::staging::{self, RowCells};
use super::{connect, dataset_key};

/// The cells of a row, or NULL.
type Cells = Vec<Option<String>>;

/// What the catalog says about `shop.prices`.
const SHAPE: &str = "
    SELECT format('%s %s %s %s %s', attname, format_type(atttypid, atttypmod), attnotnull,
                  attidentity, attgenerated)
    FROM pg_attribute WHERE attrelid = 'shop.prices'::regclass AND attnum > 0
    UNION ALL
    SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 'shop.prices'::regclass
    UNION ALL
    SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'shop.prices'::regclass
    UNION ALL
    SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'shop.prices'::regclass
    ORDER BY 1";

/// Rows of a file with these columns.
struct File {
    columns: Vec<&'static str>,
    rows: Vec<Cells>,
}

impl File {
    /// A cell `NULL` is NULL.
    fn new<const N: usize>(columns: [&'static str; N], rows: &[[&str; N]]) -> Self {
        let cell = |cell: &&str| (*cell != "NULL").then(|| (*cell).to_owned());
        let rows = rows.iter().map(|row| row.iter().map(cell).collect());
        Self {
            columns: columns.to_vec(),
            rows: rows.collect(),
        }
    }

    /// The dataset of an upload of this file.
    fn dataset(&self, definition: &Definition, mode: Mode) -> Result<UploadDataset> {
        let columns = definition.typed_columns();
        let is_missing = |name: &String| !self.columns.contains(&name.as_str());
        let missing = columns.iter().map(|column| column.name.clone());
        let merge = Merge {
            mode,
            key: definition.key.clone(),
        };
        Ok(UploadDataset {
            name: "prices".parse()?,
            tenant: Default::default(),
            missing: missing.filter(is_missing).collect(),
            ignored: Vec::new(),
            sources: columns
                .iter()
                .map(|column| Some(self.place(&column.name)? as u32))
                .collect(),
            columns,
            reject_limit: RejectLimit::default(),
            merge: Some(merge),
            table: definition.table.clone(),
        })
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| *column == name)
    }

    /// The rows in the order of the dataset's columns.
    fn rows(&self, dataset: &UploadDataset) -> Vec<RowCells<'_>> {
        let places = dataset
            .columns
            .iter()
            .map(|column| self.place(&column.name));
        let places: Vec<Option<usize>> = places.collect();
        let rows = self.rows.iter();
        rows.map(|row| {
            places
                .iter()
                .map(|place| row[(*place)?].as_deref())
                .collect()
        })
        .collect()
    }
}

/// A database with tables of the user in the schema `shop`.
struct Shop {
    scope: Scope,
    store: PostgresStore,
}

impl Shop {
    /// Makes the tables by this SQL.
    async fn open(sql: &str) -> Result<Self> {
        let scope = Scope::new().await?;
        let store = connect(scope.database_url()).await?;
        let shop = Self { scope, store };
        shop.execute(&format!("CREATE SCHEMA shop; {sql}")).await?;
        Ok(shop)
    }

    async fn execute(&self, sql: &str) -> Result<()> {
        sqlx::raw_sql(sql).execute(&self.scope.pool()).await?;
        Ok(())
    }

    /// The texts that a statement selects.
    async fn texts(&self, sql: &str) -> Result<Vec<String>> {
        let texts = sqlx::query_scalar(sql);
        Ok(texts.fetch_all(&self.scope.pool()).await?)
    }

    /// What the catalog says about `shop.prices`.
    async fn shape(&self) -> Result<Vec<String>> {
        self.texts(SHAPE).await
    }

    async fn put(&self, definition: &Definition) -> Result<PutOutcome> {
        let key = dataset_key("prices")?;
        Ok(self.store.put_dataset(&key, definition).await?)
    }

    /// Declares the dataset `prices`.
    async fn declare(&self, definition: &Definition) -> Result<()> {
        let put = self.put(definition).await?;
        ensure!(put == PutOutcome::Created, "{put:?}");
        Ok(())
    }

    /// The fault of the table that a definition names, if all its columns are written.
    async fn fault(&self, definition: &Definition) -> Result<Option<TableFault>> {
        let columns = definition.columns.iter();
        let names: Vec<&str> = columns.map(|column| column.name.as_str()).collect();
        Ok(self.store.check_table(definition, &names).await?.err())
    }

    /// Stages the rows of an upload.
    async fn stage(&self, definition: &Definition, mode: Mode, file: &File) -> Result<UploadKey> {
        let dataset = file.dataset(definition, mode)?;
        let columns = file.columns.iter().map(|name| (*name).to_owned());
        let rows = file.rows(&dataset);
        staging::stage(&self.store, columns.collect(), dataset, &rows).await
    }

    /// Completes an upload. Returns the upload.
    async fn complete(&self, key: UploadKey) -> Result<Upload> {
        let completed = self.store.complete(key, 0).await?;
        ensure!(completed == Completed::Yes, "{completed:?}");
        let upload = self.store.upload(key.id).await?;
        upload.context("the upload does not exist")
    }

    /// Merges a file, and checks how many rows are inserted, updated, duplicate and violating.
    async fn merge(
        &self,
        definition: &Definition,
        mode: Mode,
        file: &File,
        expected: [usize; 4],
    ) -> Result<Upload> {
        let key = self.stage(definition, mode, file).await?;
        let upload = self.complete(key).await?;
        let figures = [
            upload.rows_inserted,
            upload.rows_updated,
            upload.rows_duplicate,
            upload.rows_violating,
        ];
        let expected = expected.map(|count| Some(count as u64));
        ensure!(figures == expected, "{figures:?} instead of {expected:?}");
        Ok(upload)
    }

    /// All rejected rows of an upload.
    async fn rejected(&self, id: UploadId) -> Result<Vec<RejectedRow>> {
        super::rejected(&self.store, id).await
    }

    async fn close(self) -> Result<()> {
        drop(self.store);
        self.scope.close().await
    }
}

/// The definition of a dataset with the table `shop.prices`, and with these columns and key.
fn definition(columns: &[(&str, &str)], key: &[&str]) -> Result<Definition> {
    definition_of("shop.prices", columns, key)
}

fn definition_of(table: &str, columns: &[(&str, &str)], key: &[&str]) -> Result<Definition> {
    let columns: Vec<Value> = columns
        .iter()
        .map(|(name, kind)| json!({ "name": name, "type": kind }))
        .collect();
    let definition = json!({ "columns": columns, "key": key, "table": table });
    Ok(Definition::from_json(definition.to_string().as_bytes())?)
}
