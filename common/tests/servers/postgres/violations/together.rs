//! Many violating rows are found together, and the other rows are stored in one statement.

use anyhow::{Context, Result, ensure};
use carga_common::archive::ArchiveCompression;
use carga_common::dataset::Definition;
use carga_common::store::{
    ArchivedBatch, BatchStore, DatasetStore, NewUpload, StoreOutcome, UploadStore,
};
use carga_common::upload::{RejectLimit, UploadDataset};
use carga_testkit::Scope;

use super::kinds::CASES;
use super::{ROWS, batch, check, declare};
use crate::postgres::{connect, dataset_key, new_upload};

/// A dataset with a column of each type.
const EVERY_TYPE: &[u8] = br#"{ "columns": [
    { "name": "a_text", "type": "text" },
    { "name": "an_integer", "type": "integer" },
    { "name": "a_numeric", "type": "numeric" },
    { "name": "a_float", "type": "float" },
    { "name": "a_boolean", "type": "boolean" },
    { "name": "a_date", "type": "date" },
    { "name": "a_timestamp", "type": "timestamp" },
    { "name": "a_uuid", "type": "uuid" },
    { "name": "a_json", "type": "json" }
] }"#;

/// A row of such a dataset.
const ROW: [&str; 9] = [
    "a",
    "1",
    "1.5",
    "1.5",
    "true",
    "2024-02-29",
    "2024-02-29T10:00:00.000000Z",
    "0190b3a4-7c1e-7000-8000-000000000001",
    "{}",
];

/// In how many parts the rows of a table were stored. Each savepoint has its own transaction id. If
/// the store divides the rows into ranges, no part has rows from both sides of a violating row.
async fn parts(scope: &Scope, table: &str) -> Result<i64> {
    let parts = format!("SELECT count(DISTINCT xmin::text) FROM {table}");
    Ok(sqlx::query_scalar(&parts).fetch_one(&scope.pool()).await?)
}

#[tokio::test]
async fn rows_that_violate_the_same_constraint_are_found_together() -> Result<()> {
    let many: Vec<usize> = (2..=ROWS).filter(|number| number % 3 == 0).collect();
    let names = ["not null", "check", "unique", "foreign key"];
    for case in CASES.iter().filter(|case| names.contains(&case.name)) {
        let scope = Scope::new().await?;
        let prices = declare(&scope, case.sql).await?;
        // The second batch is not sent directly at first.
        for _ in 0..2 {
            let checked = check(&scope, &prices, case, &many).await;
            checked.context(case.name)?;
            let parts = parts(&scope, "datasets.prices").await?;
            ensure!(parts == 1, "{}: {parts} parts", case.name);
        }
        scope.close().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_table_with_columns_of_every_type_is_no_exception() -> Result<()> {
    const SQL: &str = "ALTER TABLE datasets.every_type ALTER COLUMN a_text SET NOT NULL";
    let scope = Scope::new().await?;
    let store = connect(scope.database_url()).await?;
    let definition = Definition::from_json(EVERY_TYPE)?;
    store
        .put_dataset(&dataset_key("every_type")?, &definition)
        .await?;
    sqlx::raw_sql(SQL).execute(&scope.pool()).await?;
    let columns = definition.typed_columns();
    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    let dataset = UploadDataset {
        name: "every_type".parse()?,
        tenant: Default::default(),
        sources: (0..).map(Some).take(columns.len()).collect(),
        columns,
        missing: Vec::new(),
        ignored: Vec::new(),
        reject_limit: RejectLimit::default(),
        merge: None,
        table: None,
    };
    let upload = NewUpload {
        columns: names.clone(),
        dataset: Some(dataset),
        ..new_upload()
    };
    let id = store.create(&upload).await?.id;
    let mut rows = vec![ROW.map(|text| Some(text.to_owned())); 100];
    for row in rows.iter_mut().step_by(2) {
        row[0] = None;
    }
    let archived = ArchivedBatch {
        batch: batch(id, &names, &rows)?,
        archive_compression: ArchiveCompression::None,
        archive_bytes: 1,
        archive_crc32: 1,
        object_bytes: 1,
    };
    let outcome = store.store(&[archived]).await?;
    ensure!(outcome == [StoreOutcome::Stored { rejected: 50 }]);
    let parts = parts(&scope, "datasets.every_type").await?;
    ensure!(parts == 1, "{parts} parts");
    scope.close().await
}
