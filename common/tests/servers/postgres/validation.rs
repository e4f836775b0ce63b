//! Trials of rows, on tables of the user and on tables of Carga.

mod agreeing;
mod leftovers;
mod limits;
mod locking;
mod staging;
mod warnings;

use std::io;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use carga_common::archive::ArchiveCompression;
use carga_common::batch::{Batch, BatchEncoder, BatchLimits, RowOrigin};
use carga_common::dataset::{DatasetName, Definition, Mode};
use carga_common::rejects::RejectedRow;
use carga_common::sha256::Sha256;
use carga_common::store::{
    ArchivedBatch, BatchStore, Completed, CompletionStore, DatasetStore, Difference, NewUpload,
    PostgresStore, PutOutcome, RejectStore, Seal, Trial, TrialBatches, Tried, UploadStore,
    ValidationStore,
};
use carga_common::upload::{Merge, RejectLimit, Upload, UploadDataset, UploadId, UploadKey};
use carga_testkit::Scope;
use futures::{StreamExt, stream};
use serde_json::json;

use super::{connect, new_upload};

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
        let name: DatasetName = "prices".parse()?;
        let put = prices.store.put_dataset(&name, &prices.definition).await?;
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
            columns: self.definition.typed_columns(),
            missing: Vec::new(),
            ignored: Vec::new(),
            sources: (0..4).map(Some).collect(),
            reject_limit: RejectLimit::default(),
            merge,
            table: self.definition.table.clone(),
        })
    }

    /// The messages of an upload of these rows, each with 70 rows.
    fn messages(&self, id: UploadId, rows: &[Cells]) -> Result<Vec<Bytes>> {
        let limits = BatchLimits {
            rows: 70,
            bytes: 4 << 20,
        };
        let names = self.names();
        let mut encoder = BatchEncoder::typed(UploadKey::first(id), &names, "00-trace", limits);
        let mut encoded = Vec::new();
        for (number, cells) in (1..).zip(rows) {
            let origin = RowOrigin {
                line: number + 1,
                offset: number * 100,
                changed: std::iter::empty(),
            };
            encoded.extend(encoder.push_typed(
                number,
                cells.iter().map(Option::as_deref),
                origin,
            )?);
        }
        encoded.extend(encoder.finish().0);
        Ok(encoded.into_iter().map(|message| message.body).collect())
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
        let messages = self.messages(UploadId::generate(), rows)?;
        let messages = messages.into_iter().map(io::Result::Ok);
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
        let mut batches = 0;
        for body in self.messages(key.id, rows)? {
            let archived = ArchivedBatch {
                batch: Batch::decode(body)?,
                archive_bytes: 1,
                archive_crc32: 1,
                archive_compression: ArchiveCompression::None,
                object_bytes: 1,
            };
            self.store.store(&[archived]).await?;
            batches += 1;
        }
        let seal = Seal {
            rows: rows.len() as u64,
            rejected: 0,
            blank_lines: 0,
            batches,
            bytes: 1,
            sha256: Sha256::from([7; 32]),
            duplicate_of: None,
            dialect: None,
        };
        ensure!(self.store.seal(key, &seal).await?, "it is not sealed");
        let completed = self.store.complete(key).await?;
        ensure!(completed == Completed::Yes, "{completed:?}");
        let upload = self.store.upload(key.id).await?;
        upload.context("the upload does not exist")
    }

    /// All rejected rows of an upload.
    async fn rejected(&self, id: UploadId) -> Result<Vec<RejectedRow>> {
        let mut rejected: Vec<RejectedRow> = Vec::new();
        loop {
            let after = rejected.last().map_or(0, |row| row.row);
            let page = self.store.rejected_page(id, after).await?;
            if page.is_empty() {
                return Ok(rejected);
            }
            rejected.extend(page);
        }
    }

    async fn close(self) -> Result<()> {
        drop(self.store);
        self.scope.close().await
    }
}
