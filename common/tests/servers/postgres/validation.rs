//! Trials of rows, on tables of the user and on tables of Carga.

mod agreeing;
mod leftovers;
mod limits;
mod locking;
mod staging;
mod warnings;

use std::io;
use std::slice;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use carga_common::dataset::{Definition, Mode};
use carga_common::rejects::RejectedRow;
use carga_common::store::{
    BatchStore, Completed, CompletionStore, DatasetStore, Difference, NewUpload, PostgresStore,
    PutOutcome, Trial, TrialBatches, Tried, UploadStore, ValidationStore,
};
use carga_common::upload::{Merge, RejectLimit, Upload, UploadDataset, UploadId};
use carga_testkit::Scope;
use futures::{StreamExt, stream};
use serde_json::json;

use super::staging::{RowCells, batches, encoded, seal};
use super::{connect, dataset_key, new_upload};

const USER_TABLE: &str = "CREATE TABLE shop.prices (
    sku varchar(6) CONSTRAINT prices_key PRIMARY KEY,
    price numeric(8,2) CONSTRAINT positive CHECK (price > 0),
    shop integer CONSTRAINT known_shop REFERENCES shop.shops,
    note text)";

/// What a user may add to a table of Carga by hand.
const OWN_TABLE: &str = "ALTER TABLE datasets.prices
    ADD CONSTRAINT positive CHECK (price > 0),
    ADD CONSTRAINT known_shop FOREIGN KEY (shop) REFERENCES shop.shops";

/// A row with the cells `sku`, `price`, `shop` and `note`, or NULL.
type Cells = [Option<String>; 4];

/// Rows as they are staged.
fn row_cells(rows: &[Cells]) -> Vec<RowCells<'_>> {
    let cells = rows.iter().map(|row| row.iter().map(Option::as_deref));
    cells.map(Iterator::collect).collect()
}

/// A cell `NULL` is NULL.
fn row(cells: [&str; 4]) -> Cells {
    cells.map(|cell| (cell != "NULL").then(|| cell.to_owned()))
}

/// The row with this number, which violates no constraint.
fn good(number: usize) -> Cells {
    row([&format!("a{number}"), "1.50", "1", "new"])
}

/// A database with the dataset `prices`.
struct Prices {
    scope: Scope,
    store: PostgresStore,
    definition: Definition,
}

impl Prices {
    /// A dataset with a table of the user. `sql` is run after the table is made.
    async fn of_user(sql: &str) -> Result<Self> {
        let before = format!("{USER_TABLE}; {sql}");
        Self::open(Some("shop.prices"), &before, "").await
    }

    /// A dataset with a table of Carga.
    async fn own() -> Result<Self> {
        Self::open(None, "", OWN_TABLE).await
    }

    /// Runs this SQL before and after the dataset is declared.
    async fn open(table: Option<&str>, before: &str, after: &str) -> Result<Self> {
        const SHOPS: &str = "CREATE SCHEMA shop; CREATE TABLE shop.shops (shop bigint PRIMARY KEY);
            INSERT INTO shop.shops VALUES (1), (2), (3)";
        let scope = Scope::new().await?;
        let store = connect(scope.database_url()).await?;
        let columns = [
            ("sku", "text"),
            ("price", "numeric"),
            ("shop", "integer"),
            ("note", "text"),
        ];
        let columns = columns.map(|(name, kind)| json!({ "name": name, "type": kind }));
        let mut definition = json!({ "columns": columns, "key": ["sku"] });
        if let Some(table) = table {
            definition["table"] = table.into();
        }
        let prices = Self {
            scope,
            store,
            definition: Definition::from_json(definition.to_string().as_bytes())?,
        };
        prices.execute(&format!("{SHOPS}; {before}")).await?;
        let key = dataset_key("prices")?;
        let put = prices.store.put_dataset(&key, &prices.definition).await?;
        ensure!(put == PutOutcome::Created, "{put:?}");
        prices.execute(after).await?;
        Ok(prices)
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

    fn names(&self) -> Vec<String> {
        let columns = self.definition.typed_columns().into_iter();
        columns.map(|column| column.name).collect()
    }

    /// The dataset of a file.
    fn dataset(&self, merge: Option<Mode>) -> Result<UploadDataset> {
        let merge = merge.map(|mode| Merge {
            mode,
            key: self.definition.key.clone(),
        });
        Ok(UploadDataset {
            name: "prices".parse()?,
            tenant: Default::default(),
            columns: self.definition.typed_columns(),
            missing: Vec::new(),
            ignored: Vec::new(),
            sources: (0..4).map(Some).collect(),
            reject_limit: RejectLimit::default(),
            merge,
            table: self.definition.table.clone(),
        })
    }

    /// A trial of a file with this many rows.
    fn trial(&self, mode: Mode, rows: usize) -> Result<Trial> {
        Ok(Trial {
            dataset: self.dataset(Some(mode))?,
            columns: self.names(),
            rows_read: rows as u64,
            rows_rejected: 0,
            time_limit: Duration::from_secs(60),
        })
    }

    /// The batches of a trial.
    fn batches(&self, rows: &[Cells]) -> Result<TrialBatches<'static>> {
        let batches = encoded(UploadId::generate(), &self.names(), &row_cells(rows))?;
        let messages = batches.into_iter().map(|batch| io::Result::Ok(batch.body));
        Ok(stream::iter(messages).boxed())
    }

    async fn run(&self, trial: &Trial, rows: &[Cells]) -> Result<Tried> {
        Ok(self.store.validate(trial, self.batches(rows)?).await?)
    }

    async fn try_rows(&self, mode: Mode, rows: &[Cells]) -> Result<Difference> {
        match self.run(&self.trial(mode, rows.len())?, rows).await? {
            Tried::Difference(difference) => Ok(difference),
            tried => bail!("{tried:?}"),
        }
    }

    /// Uploads rows, and completes the upload. Without a mode, each batch appends its rows.
    async fn upload(&self, merge: Option<Mode>, rows: &[Cells]) -> Result<Upload> {
        let upload = NewUpload {
            columns: self.names(),
            dataset: Some(self.dataset(merge)?),
            ..new_upload()
        };
        let key = self.store.create(&upload).await?.key();
        let group = batches(key.id, &self.names(), &row_cells(rows))?;
        for batch in &group {
            self.store.store(slice::from_ref(batch)).await?;
        }
        seal(&self.store, key, rows.len(), group.len()).await?;
        let completed = self.store.complete(key, 0).await?;
        ensure!(completed == Completed::Yes, "{completed:?}");
        let upload = self.store.upload(key.id).await?;
        upload.context("the upload does not exist")
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
