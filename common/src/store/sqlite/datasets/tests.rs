//! Tests of the definitions and the tables of datasets in SQLite.

use sqlx::Row;
use tempfile::TempDir;

use super::*;
use crate::store::SqliteStoreSettings;

fn name(text: &str) -> DatasetName {
    text.parse().unwrap()
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
    let (name, definition) = (name(dataset), definition(columns));
    store.put_dataset(&name, &definition).await.unwrap()
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
    assert_eq!(store.datasets(None, 9).await.unwrap().len(), 1);
    assert!(store.dataset(&name("sALES")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_dataset_with_a_table_of_the_user_needs_postgres() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory).await;
    let json = br#"{"columns":[{"name":"a","type":"text"}],"table":"shop.prices"}"#;
    let of_user = Definition::from_json(json).unwrap();
    let outcome = store.put_dataset(&name("sales"), &of_user).await.unwrap();
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
    assert!(store.dataset(&name("sales")).await.unwrap().is_none());
    assert_eq!(
        store.check_table(&of_user, &["a"]).await.unwrap(),
        Err(fault)
    );

    // A dataset that has a table of its own keeps it.
    assert_eq!(put(&store, "sales", &["a"]).await, PutOutcome::Created);
    let outcome = store.put_dataset(&name("sales"), &of_user).await.unwrap();
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
    let known = store.dataset(&name("sales")).await.unwrap().unwrap();
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
    let statements = typed_tables::add_columns(&name("sales"), added, &wide);
    let add = &statements[1];
    assert!(add.starts_with("ALTER TABLE"), "{add}");
    assert!(!operations(&store, add).await.contains(&check));
}
