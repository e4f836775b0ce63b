//! Uploads that are merged into the table of their dataset at the end.

mod leaving;
mod undoing;
mod violations;

use anyhow::{Context, Result, ensure};
use carga_common::dataset::{Definition, Mode};
use carga_common::error::ErrorKind;
use carga_common::store::{Completed, CompletionStore, DatasetStore, PostgresStore, UploadStore};
use carga_common::upload::{Merge, RejectLimit, Upload, UploadDataset, UploadId, UploadKey};
use carga_testkit::Scope;

use super::staging::{self, RowCells};
use super::{connect, dataset_key};

const DEFINITION: &[u8] = br#"{ "key": ["sku"], "columns": [
    { "name": "sku", "type": "text" },
    { "name": "price", "type": "numeric" },
    { "name": "day", "type": "date" },
    { "name": "share", "type": "float" },
    { "name": "note", "type": "json" }
] }"#;

/// The cells of a row, or NULL.
type Cells = [Option<String>; 5];

/// The row with this number.
fn row(number: usize, price: &str) -> Cells {
    let day = format!("{:04}-01-01", 1000 + number);
    let note = format!("{{\"n\": {number}}}");
    [
        format!("a{number}"),
        price.to_owned(),
        day,
        "0.5".to_owned(),
        note,
    ]
    .map(Some)
}

/// Rows with these numbers and the same price.
fn rows(numbers: impl Iterator<Item = usize>, price: &str) -> Vec<Cells> {
    numbers.map(|number| row(number, price)).collect()
}

/// Declares the dataset `prices`, and changes its table by hand.
async fn declare(scope: &Scope, sql: &str) -> Result<PostgresStore> {
    let store = connect(scope.database_url()).await?;
    let definition = Definition::from_json(DEFINITION)?;
    store
        .put_dataset(&dataset_key("prices")?, &definition)
        .await?;
    sqlx::raw_sql(sql).execute(&scope.pool()).await?;
    Ok(store)
}

/// Stages the rows of an upload that is merged in this mode.
async fn stage(store: &PostgresStore, mode: Mode, rows: &[Cells]) -> Result<UploadKey> {
    let key = vec!["sku".to_owned()];
    send(store, Some(Merge { mode, key }), rows).await
}

/// Stages the rows of an upload.
async fn send(store: &PostgresStore, merge: Option<Merge>, rows: &[Cells]) -> Result<UploadKey> {
    let columns = Definition::from_json(DEFINITION)?.typed_columns();
    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    let dataset = UploadDataset {
        name: "prices".parse()?,
        tenant: Default::default(),
        columns,
        missing: Vec::new(),
        ignored: Vec::new(),
        sources: (0..5).map(Some).collect(),
        reject_limit: RejectLimit::default(),
        merge,
        table: None,
    };
    let rows = rows
        .iter()
        .map(|row| row.iter().map(Option::as_deref).collect());
    let rows: Vec<RowCells<'_>> = rows.collect();
    staging::stage(store, names, dataset, &rows).await
}

/// Merges rows in this mode. Returns the upload.
async fn merge(store: &PostgresStore, mode: Mode, rows: &[Cells]) -> Result<Upload> {
    let key = stage(store, mode, rows).await?;
    let completed = store.complete(key, 0).await?;
    ensure!(completed == Completed::Yes, "{completed:?}");
    find(store, key.id).await
}

async fn find(store: &PostgresStore, id: UploadId) -> Result<Upload> {
    let upload = store.upload(id).await?;
    upload.context("the upload does not exist")
}

/// The inserted, updated, duplicate and violating rows of an upload.
fn figures(upload: &Upload) -> [Option<u64>; 4] {
    [
        upload.rows_inserted,
        upload.rows_updated,
        upload.rows_duplicate,
        upload.rows_violating,
    ]
}

/// All rows of the table as texts, with the columns of Carga.
async fn table(scope: &Scope) -> Result<Vec<String>> {
    let pool = scope.pool();
    let mut connection = pool.acquire().await?;
    sqlx::query("SET extra_float_digits = 1")
        .execute(&mut *connection)
        .await?;
    let rows = sqlx::query_scalar("SELECT p::text FROM datasets.prices AS p ORDER BY sku");
    Ok(rows.fetch_all(&mut *connection).await?)
}

/// Merges an upload again until the table is free. Returns the upload.
async fn merge_again(store: &PostgresStore, key: UploadKey) -> Result<Upload> {
    loop {
        match store.complete(key, 0).await {
            Ok(completed) => {
                ensure!(completed == Completed::Yes, "{completed:?}");
                return find(store, key.id).await;
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[tokio::test]
async fn two_merges_into_one_table_take_turns() -> Result<()> {
    let scope = Scope::new().await?;
    let first = declare(&scope, "").await?;
    let second = connect(scope.database_url()).await?;
    let left = stage(&first, Mode::Update, &rows(1..=300, "1.50")).await?;
    let reversed = rows((201..=500).rev(), "2.50");
    let right = stage(&second, Mode::Update, &reversed).await?;
    let (left, right) = tokio::join!(merge_again(&first, left), merge_again(&second, right));
    let (left, right) = (left?, right?);
    let sum = |figure: fn(&Upload) -> Option<u64>| {
        figure(&left).unwrap_or_default() + figure(&right).unwrap_or_default()
    };
    ensure!(sum(|upload| upload.rows_inserted) == 500);
    ensure!(sum(|upload| upload.rows_updated) == 100);
    ensure!(table(&scope).await?.len() == 500);
    scope.close().await
}

#[tokio::test]
async fn two_completions_of_one_upload_merge_it_once() -> Result<()> {
    let scope = Scope::new().await?;
    let first = declare(&scope, "").await?;
    let second = connect(scope.database_url()).await?;
    let key = stage(&first, Mode::Ignore, &rows(1..=300, "1.50")).await?;
    let (left, right) = tokio::join!(first.complete(key, 0), second.complete(key, 0));
    let outcomes = [left?, right?];
    let merges = outcomes.iter().filter(|it| **it == Completed::Yes);
    ensure!(merges.count() == 1, "{outcomes:?}");
    ensure!(table(&scope).await?.len() == 300);
    scope.close().await
}

/// A previous version would complete an upload whose rows are only staged.
#[tokio::test]
async fn a_previous_version_cannot_complete_an_upload_before_its_merge() -> Result<()> {
    let scope = Scope::new().await?;
    let prices = declare(&scope, "").await?;
    let key = stage(&prices, Mode::Update, &rows(1..=3, "1")).await?;
    let complete = "UPDATE uploads SET status = 'completed', rows_inserted = 3 WHERE id = $1";
    let refused = sqlx::query(complete)
        .bind(key.id.as_uuid())
        .execute(&scope.pool())
        .await;
    ensure!(
        refused
            .as_ref()
            .is_err_and(|error| error.to_string().contains("not merged yet")),
        "{refused:?}"
    );
    ensure!(prices.complete(key, 0).await? == Completed::Yes);
    scope.close().await
}

/// It would also store the rows in the table, because it does not know that they must be merged.
#[tokio::test]
async fn a_previous_version_cannot_store_rows_that_must_be_merged() -> Result<()> {
    const STORE: &str = "INSERT INTO batches
            (upload_id, epoch, seq, first_row, rows, archive_bytes, archive_crc32, dataset)
        VALUES ($1, 1, 100, 100, 1, 100, 0, true)";
    let scope = Scope::new().await?;
    let prices = declare(&scope, "").await?;
    let staged = stage(&prices, Mode::Update, &rows(1..=3, "1")).await?;
    let appended = send(&prices, None, &rows(4..=6, "1")).await?;
    let store = async |id: UploadId| {
        let stored = sqlx::query(STORE).bind(id.as_uuid());
        stored.execute(&scope.pool()).await
    };
    let refused = store(staged.id).await;
    ensure!(
        refused
            .as_ref()
            .is_err_and(|error| error.to_string().contains("not merged yet")),
        "{refused:?}"
    );
    store(appended.id).await?;
    ensure!(prices.complete(staged, 0).await? == Completed::Yes);
    scope.close().await
}

/// Nobody sees staged rows.
#[tokio::test]
async fn a_staged_row_is_in_no_view() -> Result<()> {
    let scope = Scope::new().await?;
    let prices = declare(&scope, "").await?;
    let key = stage(&prices, Mode::Update, &rows(1..=3, "1.50")).await?;
    let count =
        "SELECT (SELECT count(*) FROM upload_rows) + (SELECT count(*) FROM datasets.prices_rows)";
    let visible: i64 = sqlx::query_scalar(count).fetch_one(&scope.pool()).await?;
    ensure!(visible == 0, "{visible} rows are visible");
    ensure!(prices.complete(key, 0).await? == Completed::Yes);
    let visible: i64 = sqlx::query_scalar(count).fetch_one(&scope.pool()).await?;
    ensure!(visible == 3, "{visible} rows are visible");
    let staged: i64 = sqlx::query_scalar("SELECT count(*) FROM landing")
        .fetch_one(&scope.pool())
        .await?;
    ensure!(staged == 0, "{staged} rows are still staged");
    scope.close().await
}
