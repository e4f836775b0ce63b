//! Tests of the definitions and the tables of datasets in SQLite.

use std::path::Path;

use sqlx::Row;
use tempfile::TempDir;

use super::*;
use crate::store::SqliteStoreSettings;
use crate::store::sqlite::MIGRATIONS;

/// A dataset of the tenant `default`.
fn key(name: &str) -> DatasetKey {
    key_of("default", name)
}

fn key_of(tenant: &str, name: &str) -> DatasetKey {
    DatasetKey::new(tenant.parse().unwrap(), name.parse().unwrap())
}

/// A definition with columns of type text.
fn definition(columns: &[&str]) -> Definition {
    let columns = columns.iter();
    let columns = columns.map(|name| format!(r#"{{"name":"{name}","type":"text"}}"#));
    let columns: Vec<String> = columns.collect();
    let json = format!(r#"{{"columns":[{}]}}"#, columns.join(","));
    Definition::from_json(json.as_bytes()).unwrap()
}

async fn open(directory: &TempDir) -> SqliteStore {
    let settings = SqliteStoreSettings {
        file: directory.path().join("store.db"),
        migrate: true,
    };
    SqliteStore::open(settings).await.unwrap()
}

async fn put(store: &SqliteStore, dataset: &str, columns: &[&str]) -> PutOutcome {
    put_for(store, &key(dataset), columns).await
}

async fn put_for(store: &SqliteStore, key: &DatasetKey, columns: &[&str]) -> PutOutcome {
    store.put_dataset(key, &definition(columns)).await.unwrap()
}

async fn reason(store: &SqliteStore, dataset: &str, columns: &[&str]) -> String {
    match put(store, dataset, columns).await {
        PutOutcome::Refused(reason) => reason,
        other => panic!("{columns:?}: {other:?}"),
    }
}

async fn execute(store: &SqliteStore, statement: &str) {
    let writer = store.database.writer();
    sqlx::query(statement).execute(writer).await.unwrap();
}

#[tokio::test]
async fn a_name_that_differs_from_another_only_in_case_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory).await;
    assert_eq!(put(&store, "Sales", &["a"]).await, PutOutcome::Created);
    let reason = reason(&store, "sALES", &["a"]).await;
    assert!(reason.contains("`datasets_Sales`"), "{reason}");
    assert_eq!(put(&store, "Sales", &["a"]).await, PutOutcome::Unchanged);
    assert_eq!(
        store
            .datasets(&Tenant::default(), None, 9)
            .await
            .unwrap()
            .len(),
        1
    );
    assert!(store.dataset(&key("sALES")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_dataset_with_a_table_of_the_user_needs_postgres() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory).await;
    let json = br#"{"columns":[{"name":"a","type":"text"}],"table":"shop.prices"}"#;
    let of_user = Definition::from_json(json).unwrap();
    let outcome = store.put_dataset(&key("sales"), &of_user).await.unwrap();
    let PutOutcome::Unfit(fault) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(fault.code, "table_unsupported");
    for part in [
        "shop.prices",
        "needs Postgres (DATABASE_URL)",
        "leave out `table`",
    ] {
        assert!(fault.message.contains(part), "{fault}");
    }
    assert!(store.dataset(&key("sales")).await.unwrap().is_none());
    assert_eq!(
        store.check_table(&of_user, &["a"]).await.unwrap(),
        Err(fault)
    );

    // A dataset that has a table of its own keeps it.
    assert_eq!(put(&store, "sales", &["a"]).await, PutOutcome::Created);
    let outcome = store.put_dataset(&key("sales"), &of_user).await.unwrap();
    assert!(matches!(outcome, PutOutcome::Unfit(_)), "{outcome:?}");
    assert_eq!(put(&store, "sales", &["a"]).await, PutOutcome::Unchanged);
}

#[tokio::test]
async fn a_column_with_a_name_of_the_row_s_id_is_not_added() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory).await;
    assert_eq!(put(&store, "a", &["a", "oid"]).await, PutOutcome::Created);
    assert_eq!(put(&store, "b", &["a"]).await, PutOutcome::Created);
    for column in ["rowid", "OID", "_rowid_"] {
        let reason = reason(&store, "b", &["a", column]).await;
        assert!(reason.contains(&format!("`{column}`")), "{reason}");
    }
}

#[tokio::test]
async fn a_table_that_was_changed_by_hand_is_named_and_keeps_its_view() {
    const COUNT: &str = "SELECT count(*) FROM datasets_sales_rows";
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory).await;
    put(&store, "sales", &["a"]).await;
    execute(&store, "ALTER TABLE datasets_sales ADD COLUMN b text").await;
    let reason = reason(&store, "sales", &["a", "b"]).await;
    assert!(reason.contains("by hand"), "{reason}");
    let known = store.dataset(&key("sales")).await.unwrap().unwrap();
    assert_eq!(known.definition, definition(&["a"]));
    execute(&store, COUNT).await;
    // A view that was dropped is made again.
    execute(&store, "DROP VIEW datasets_sales_rows").await;
    let outcome = put(&store, "sales", &["a", "c"]).await;
    assert_eq!(outcome, PutOutcome::Changed);
    execute(&store, COUNT).await;
}

/// The operations of a statement that changes a table. One of them opens `quick_check` if the
/// statement reads the whole table.
async fn operations(store: &SqliteStore, statement: &str) -> Vec<String> {
    let explain = format!("EXPLAIN {statement}");
    let operations = sqlx::query(&explain).fetch_all(store.database.writer());
    let operations = operations.await.unwrap();
    operations.iter().map(|row| row.get("opcode")).collect()
}

#[tokio::test]
async fn a_column_is_added_without_reading_the_table() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory).await;
    put(&store, "sales", &["a"]).await;
    execute(&store, "CREATE TABLE strict (a text) STRICT").await;
    let check = "VOpen".to_owned();
    let add = "ALTER TABLE strict ADD COLUMN b text";
    assert!(operations(&store, add).await.contains(&check));
    let wide = definition(&["a", "b"]);
    let added = &wide.typed_columns()[1..];
    let statements = typed_tables::add_columns(&key("sales"), added, &wide);
    let add = &statements[1];
    assert!(add.starts_with("ALTER TABLE"), "{add}");
    assert!(!operations(&store, add).await.contains(&check));
}

#[tokio::test]
async fn datasets_of_two_tenants_have_two_tables() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory).await;
    let other = key_of("acme", "sales");
    assert_eq!(put(&store, "sales", &["a"]).await, PutOutcome::Created);
    assert_eq!(put_for(&store, &other, &["b"]).await, PutOutcome::Created);
    execute(&store, "SELECT a FROM datasets_sales_rows").await;
    execute(&store, "SELECT b FROM \"datasets_acme/sales_rows\"").await;
    let mine = store.dataset(&key("sales")).await.unwrap().unwrap();
    assert_eq!(mine.definition, definition(&["a"]));
    let listed = store.datasets(&other.tenant, None, 9).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].definition, definition(&["b"]));

    let deleted = store.delete_dataset(&key("sales")).await.unwrap();
    assert_eq!(deleted, DeleteOutcome::Deleted);
    assert!(store.dataset(&key("sales")).await.unwrap().is_none());
    execute(&store, "SELECT b FROM \"datasets_acme/sales_rows\"").await;
    assert_eq!(put_for(&store, &other, &["b"]).await, PutOutcome::Unchanged);
}

#[tokio::test]
async fn a_dataset_of_another_tenant_is_no_reason_to_refuse_a_name() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory).await;
    for (tenant, name) in [
        ("default", "Sales"),
        ("acme", "sales"),
        ("a", "sales"),
        ("default", "a-sales"),
        ("default", "acme_sales"),
    ] {
        let outcome = put_for(&store, &key_of(tenant, name), &["a"]).await;
        assert_eq!(outcome, PutOutcome::Created, "{tenant}/{name}");
    }
}

/// Makes the file as the version before tenants left it, with the dataset `sales`.
async fn write_file_without_tenants(file: &Path) {
    const DATASET: &str = r#"INSERT INTO datasets VALUES ('sales',
        '{"columns":[{"name":"a","type":"text"}]}', '2026-11-01T00:00:00.000000Z', '2026-11-02T00:00:00.000000Z');
        CREATE TABLE datasets_sales (_carga_id integer PRIMARY KEY, a TEXT, upload_id text NOT NULL);
        CREATE VIEW faulty AS SELECT * FROM a_table_that_is_gone;
        CREATE TABLE former_datasets (name text);"#;
    let before = MIGRATIONS.iter().filter(|(version, ..)| *version < 12);
    let database = Database::open("test", file).await.unwrap();
    let mut connection = database.writer().acquire().await.unwrap();
    let migrator = sql::migrator(&MIGRATIONS[..before.count()]).await.unwrap();
    migrator.run(&mut *connection).await.unwrap();
    let insert = sqlx::raw_sql(DATASET).execute(&mut *connection);
    insert.await.unwrap();
    drop(connection);
    database.close().await;
}

/// Somebody may have made a faulty view, or a table with any name. Neither must keep the file from
/// being migrated.
#[tokio::test]
async fn datasets_of_the_previous_version_belong_to_the_default_tenant() {
    let directory = tempfile::tempdir().unwrap();
    write_file_without_tenants(&directory.path().join("store.db")).await;
    let store = open(&directory).await;
    let listed = store.datasets(&Tenant::default(), None, 9).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].key(), key("sales"));
    assert_eq!(listed[0].updated_at.to_string(), "2026-11-02T00:00:00Z");
    assert_eq!(put(&store, "sales", &["a"]).await, PutOutcome::Unchanged);
    let other = key_of("acme", "sales");
    assert_eq!(put_for(&store, &other, &["b"]).await, PutOutcome::Created);
}
