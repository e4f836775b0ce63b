//! Tests of the queries of uploads in SQLite.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use tempfile::TempDir;

use super::*;
use crate::store::SqliteStoreSettings;

async fn open(directory: &TempDir) -> SqliteStore {
    let settings = SqliteStoreSettings {
        file: directory.path().join("store.db"),
        migrate: true,
    };
    SqliteStore::open(settings).await.unwrap()
}

/// The steps of SQLite's plan for a query.
async fn plan(store: &SqliteStore, query: &str) -> Vec<String> {
    let explain = format!("EXPLAIN QUERY PLAN {query}");
    let steps = sqlx::query(&explain).fetch_all(&store.database.readers);
    let steps = steps.await.unwrap();
    let detail = |step: &SqliteRow| step.get("detail");
    steps.iter().map(detail).collect()
}

#[tokio::test]
async fn uploads_of_a_content_are_found_without_reading_all_uploads_of_the_tenant() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory).await;
    for query in [sql::SAME_CONTENT, sql::CONTENT_HOLDER] {
        let steps = plan(&store, query).await;
        let expected = "SEARCH uploads USING INDEX uploads_by_content (sha256=? AND tenant=?)";
        assert_eq!(
            steps.first().map(String::as_str),
            Some(expected),
            "{steps:?}"
        );
    }
}

#[tokio::test]
async fn the_view_of_all_rows_says_the_tenant_of_each_row() {
    const INSERT: &str = r#"
        INSERT INTO uploads (id, number, tenant, status, dialect, columns, created_at, updated_at)
        VALUES ('a', 1, 'default', 'completed', '{}', '["sku"]', '', ''),
               ('b', 2, 'acme', 'completed', '{}', '["sku"]', '', '');
        INSERT INTO rows (id, fields) VALUES ((1 << 36) + 1, '["x"]'), ((2 << 36) + 1, '["y"]');"#;
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory).await;
    let insert = sqlx::raw_sql(INSERT).execute(store.database.writer());
    insert.await.unwrap();
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT data ->> 'sku', tenant FROM upload_rows ORDER BY 1")
            .fetch_all(&store.database.readers)
            .await
            .unwrap();
    let expected = [("x", "default"), ("y", "acme")];
    assert_eq!(
        rows,
        expected.map(|(sku, tenant)| (sku.to_owned(), tenant.to_owned()))
    );
}
