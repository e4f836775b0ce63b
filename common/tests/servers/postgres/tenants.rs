//! Tenants on Postgres: the schemas of their tables, and previous versions beside this one.

mod schemas;

use anyhow::{Context, Result, ensure};
use carga_common::dataset::{DatasetKey, Definition};
use carga_common::error::ErrorKind;
use carga_common::store::{DatasetStore, NewUpload, PostgresStore, PutOutcome, UploadStore};
use carga_common::upload::{RejectLimit, UploadDataset, UploadId};
use carga_testkit::Scope;
use sqlx::postgres::PgDatabaseError;

use super::{connect, new_upload};

const OWN: &[u8] = br#"{ "columns": [{ "name": "sku", "type": "text" }] }"#;

/// A dataset of the tenant `acme`.
fn acme(name: &str) -> Result<DatasetKey> {
    Ok(DatasetKey::new("acme".parse()?, name.parse()?))
}

/// Declares a dataset with a table of its own.
async fn declare(store: &PostgresStore, key: &DatasetKey) -> Result<()> {
    let put = store.put_dataset(key, &Definition::from_json(OWN)?).await?;
    ensure!(put == PutOutcome::Created, "{key}: {put:?}");
    Ok(())
}

async fn execute(scope: &Scope, sql: &str) -> Result<()> {
    sqlx::raw_sql(sql).execute(&scope.pool()).await?;
    Ok(())
}

/// The message of the error with which a statement is refused. Its hint must say how a person can
/// run the statement.
async fn refusal(scope: &Scope, sql: &str) -> Result<String> {
    let refused = sqlx::raw_sql(sql).execute(&scope.pool()).await;
    let error = refused.err().context(sql.to_owned())?;
    let database_error = error.as_database_error();
    let database_error = database_error.and_then(|it| it.try_downcast_ref::<PgDatabaseError>());
    let hint = database_error.and_then(PgDatabaseError::hint);
    let hint = hint.unwrap_or_default();
    ensure!(
        hint.ends_with("In psql, run SET carga.tenants = 'on' first."),
        "{hint}"
    );
    Ok(error.to_string())
}

/// Creates an upload into a dataset of this key. Its rows are merged if `is_merged` is set.
async fn upload(store: &PostgresStore, key: &DatasetKey, is_merged: bool) -> Result<UploadId> {
    let merge = r#"{ "mode": "append", "key": [] }"#;
    let dataset = UploadDataset {
        name: key.name.clone(),
        tenant: key.tenant.clone(),
        columns: Definition::from_json(OWN)?.typed_columns(),
        missing: Vec::new(),
        ignored: Vec::new(),
        sources: vec![Some(0)],
        reject_limit: RejectLimit::default(),
        merge: match is_merged {
            true => Some(serde_json::from_str(merge)?),
            false => None,
        },
        table: None,
    };
    let new = NewUpload {
        tenant: key.tenant.clone(),
        dataset: Some(dataset),
        ..new_upload()
    };
    Ok(store.create(&new).await?.id)
}

/// A statement that enters a batch whose rows are in the table of a dataset.
fn enter(id: UploadId) -> String {
    format!(
        "INSERT INTO batches (upload_id, epoch, seq, first_row, rows, archive_bytes, archive_crc32, dataset)
         VALUES ('{id}', 1, 1, 1, 1, 1, 1, true)"
    )
}

#[tokio::test]
async fn a_previous_version_neither_stores_nor_forgets_rows_of_another_tenant() -> Result<()> {
    const KNOWS_TENANTS: &str = "SET carga.tenants = 'on';";
    let scope = Scope::new().await?;
    let store = connect(scope.database_url()).await?;
    let default = super::dataset_key("sales")?;
    for key in [&default, &acme("sales")?] {
        declare(&store, key).await?;
        let id = upload(&store, key, false).await?;
        let forget = format!("UPDATE batches SET dataset = false WHERE upload_id = '{id}'");
        if key.tenant.is_default() {
            execute(&scope, &enter(id)).await?;
            execute(&scope, &forget).await?;
            continue;
        }
        let refused = refusal(&scope, &enter(id)).await?;
        ensure!(refused.contains("does not know"), "{refused}");
        execute(
            &scope,
            &format!("{KNOWS_TENANTS} {}; RESET carga.tenants", enter(id)),
        )
        .await?;
        let refused = refusal(&scope, &forget).await?;
        ensure!(refused.contains("does not know"), "{refused}");
    }
    scope.close().await
}

#[tokio::test]
async fn a_previous_version_neither_merges_nor_undoes_uploads_of_another_tenant() -> Result<()> {
    let scope = Scope::new().await?;
    let store = connect(scope.database_url()).await?;
    let key = acme("sales")?;
    declare(&store, &key).await?;
    let id = upload(&store, &key, true).await?;
    let set = |assignments: &str| format!("UPDATE uploads SET {assignments} WHERE id = '{id}'");
    for assignments in [
        "status = 'completed', rows_duplicate = 0",
        "status = 'partial', rows_duplicate = 0",
        "status = 'undone'",
        r#"status = 'failed', failure = '{"code": "merge_failed", "message": "no table"}'"#,
    ] {
        let refused = refusal(&scope, &set(assignments)).await?;
        ensure!(refused.contains("is of tenant acme"), "{refused}");
    }
    // It may go on with what it does in the same way as this version.
    execute(&scope, &set("status = 'processing'")).await?;
    execute(&scope, &set("status = 'cancelled'")).await?;
    scope.close().await
}

#[tokio::test]
async fn a_previous_version_deletes_no_dataset_of_another_tenant() -> Result<()> {
    const DELETE: &str = "DELETE FROM datasets WHERE name = 'sales'";
    let scope = Scope::new().await?;
    let store = connect(scope.database_url()).await?;
    let default = super::dataset_key("sales")?;
    declare(&store, &default).await?;
    execute(&scope, DELETE).await?;
    declare(&store, &acme("sales")?).await?;
    let refused = refusal(&scope, DELETE).await?;
    ensure!(refused.contains("is of tenant acme"), "{refused}");
    ensure!(store.dataset(&acme("sales")?).await?.is_some());
    scope.close().await
}

/// A dataset of the same name with a table of the user does not matter to another tenant.
#[tokio::test]
async fn a_table_of_the_user_of_one_tenant_does_not_keep_another_tenant_from_uploading()
-> Result<()> {
    const OF_USER: &[u8] =
        br#"{ "columns": [{ "name": "sku", "type": "text" }], "table": "shop.sales" }"#;
    let scope = Scope::new().await?;
    let store = connect(scope.database_url()).await?;
    let sql = "CREATE SCHEMA shop; CREATE TABLE shop.sales (sku text PRIMARY KEY)";
    execute(&scope, sql).await?;
    let key = acme("sales")?;
    let definition = Definition::from_json(OF_USER)?;
    let put = store.put_dataset(&key, &definition).await?;
    ensure!(put == PutOutcome::Created, "{put:?}");
    let default = super::dataset_key("sales")?;
    declare(&store, &default).await?;
    upload(&store, &default, false).await?;
    // The record of this upload does not name the table that the dataset has.
    let created = upload(&store, &key, false).await;
    let error = created.err().context("the upload was created")?;
    let error: carga_common::error::PortError = error.downcast()?;
    ensure!(error.kind() == ErrorKind::NotFound, "{}", error.chain());
    scope.close().await
}

#[tokio::test]
async fn the_view_of_all_rows_says_the_tenant_of_each_row() -> Result<()> {
    let scope = Scope::new().await?;
    let store = connect(scope.database_url()).await?;
    for tenant in ["default", "acme"] {
        let new = NewUpload {
            tenant: tenant.parse()?,
            ..new_upload()
        };
        store.create(&new).await?;
    }
    let sql = "INSERT INTO landing (upload, row_number, fields)
               SELECT number, 1, ARRAY['row of ' || tenant] FROM uploads;
               UPDATE uploads SET status = 'completed'";
    execute(&scope, sql).await?;
    let rows = "SELECT data ->> 'a', tenant FROM upload_rows ORDER BY 1";
    let rows: Vec<(String, String)> = sqlx::query_as(rows).fetch_all(&scope.pool()).await?;
    let expected = [("row of acme", "acme"), ("row of default", "default")];
    let expected = expected.map(|(row, tenant)| (row.to_owned(), tenant.to_owned()));
    ensure!(rows == expected, "{rows:?}");
    scope.close().await
}
