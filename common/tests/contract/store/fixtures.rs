//! Fixtures for the adapters of the store.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use carga_common::dataset::{ColumnType, DatasetKey, TypedColumn, quote_identifier};
use carga_common::settings::SecretUrl;
use carga_common::store::{
    PostgresSettings, PostgresStore, SqliteStore, SqliteStoreSettings, Store, StoredRow,
};
use carga_common::upload::UploadId;
use carga_testkit::Scope;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::types::Json;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tempfile::TempDir;

use super::{Relation, StoreFixture};
use crate::suite::Fixture;

/// An upload, a row number, and the cells as texts.
type TypedRecord = (String, i64, Vec<Option<String>>);

/// Makes typed rows of these columns. A float gets the shortest text of its value, since each
/// database has its own form.
fn typed_rows(
    found: Vec<TypedRecord>,
    columns: &[TypedColumn],
) -> Result<Vec<(UploadId, StoredRow)>> {
    let mut rows = Vec::new();
    for (upload, row_number, mut fields) in found {
        for (cell, column) in fields.iter_mut().zip(columns) {
            if let (Some(text), ColumnType::Float) = (cell, column.kind) {
                let number: f64 = text.parse().context("a float is not a number")?;
                *text = format!("{number:?}");
            }
        }
        let row_number = u64::try_from(row_number)?;
        rows.push((upload.parse()?, StoredRow { row_number, fields }));
    }
    Ok(rows)
}

/// The SQL expressions for the texts of these columns, separated by commas.
fn expressions(columns: &[TypedColumn], text: fn(&TypedColumn) -> String) -> String {
    let texts: Vec<String> = columns.iter().map(text).collect();
    texts.join(", ")
}

/// A database on the shared Postgres server.
pub(super) struct Postgres(Scope);

impl Fixture for Postgres {
    async fn start() -> Result<Self> {
        Ok(Self(Scope::new().await?))
    }

    async fn end(self) -> Result<()> {
        self.0.close().await
    }
}

impl StoreFixture for Postgres {
    async fn open(&self) -> Result<Arc<dyn Store>> {
        let settings = PostgresSettings {
            url: SecretUrl::new(self.0.database_url().to_owned()),
            program: "contract".to_owned(),
            connections: 4,
            migrate: true,
            allow_unknown: false,
        };
        Ok(Arc::new(PostgresStore::connect(settings).await?))
    }

    async fn rows_in_table(&self, id: UploadId) -> Result<u64> {
        let count: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM landing r JOIN uploads u ON u.number = r.upload WHERE u.id = $1)
                    + (SELECT count(*) FROM rows WHERE upload_id = $1)",
        )
        .bind(id.as_uuid())
        .fetch_one(&self.0.pool())
        .await?;
        Ok(u64::try_from(count)?)
    }

    async fn typed_rows(
        &self,
        key: &DatasetKey,
        relation: Relation,
        columns: &[TypedColumn],
    ) -> Result<Vec<(UploadId, StoredRow)>> {
        let query = format!(
            "SELECT upload_id::text, row_number, ARRAY[{}]::text[] FROM {}
             ORDER BY upload_id, row_number",
            expressions(columns, text_in_postgres),
            relation_in_postgres(key, relation)
        );
        let found: Vec<TypedRecord> = sqlx::query_as(&query).fetch_all(&self.0.pool()).await?;
        typed_rows(found, columns)
    }

    fn table(key: &DatasetKey) -> String {
        relation_in_postgres(key, Relation::Table)
    }

    async fn catalog(&self) -> Result<Vec<String>> {
        let query = sqlx::query_scalar(
            r"SELECT concat_ws(' ', n.nspname, c.relname, c.relkind, a.attname, a.atttypid::regtype, a.attnotnull)
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
              WHERE n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
              ORDER BY 1",
        );
        Ok(query.fetch_all(&self.0.pool()).await?)
    }

    async fn contents(&self) -> Result<Vec<String>> {
        let pool = self.0.pool();
        let mut contents = self.catalog().await?;
        // A temporary table is in a schema that the catalog leaves out.
        let tables: Vec<(String, bool)> = sqlx::query_as(
            r"SELECT format('%I.%I', n.nspname, c.relname), c.relpersistence = 't'
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE c.relkind = 'r' AND n.nspname <> 'information_schema'
                AND (n.nspname NOT LIKE 'pg\_%' OR c.relpersistence = 't')
              ORDER BY 1",
        )
        .fetch_all(&pool)
        .await?;
        for (table, is_temporary) in tables {
            if !is_temporary {
                let query = format!("SELECT r::text FROM {table} r ORDER BY 1");
                let rows: Vec<String> = sqlx::query_scalar(&query).fetch_all(&pool).await?;
                contents.extend(rows);
            }
            contents.push(table);
        }
        Ok(contents)
    }

    fn slow_insertions(table: &str) -> [String; 2] {
        let function = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN PERFORM pg_sleep(600); RETURN NEW; END'";
        let trigger = format!(
            "CREATE TRIGGER slow BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION slow()"
        );
        [function.to_owned(), trigger]
    }

    async fn execute(&self, statement: &str) -> Result<()> {
        const NO_CHECK: &str = "ALTER TABLE uploads DROP CONSTRAINT IF EXISTS uploads_status_check";
        sqlx::query(NO_CHECK).execute(&self.0.pool()).await?;
        sqlx::query(statement).execute(&self.0.pool()).await?;
        Ok(())
    }

    fn corrupt_values() -> &'static [(&'static str, &'static str, &'static str)] {
        &[
            ("status", "'done'", "done"),
            ("sha256", r"'\x01ab'", "01ab"),
            ("rows_inserted", "-7", "-7"),
            ("blank_lines", "-8", "-8"),
            ("batches_total", "-9", "-9"),
        ]
    }
}

/// The table or view of a dataset in SQL.
fn relation_in_postgres(key: &DatasetKey, relation: Relation) -> String {
    let schema = match key.tenant.is_default() {
        true => "datasets".to_owned(),
        false => format!("datasets_{}", key.tenant),
    };
    let name = format!("{}{}", key.name, ending(relation));
    format!("{}.{}", quote_identifier(&schema), quote_identifier(&name))
}

/// The end of the name of a table or view.
fn ending(relation: Relation) -> &'static str {
    match relation {
        Relation::Table => "",
        Relation::View => "_rows",
    }
}

fn text_in_postgres(column: &TypedColumn) -> String {
    let name = quote_identifier(&column.name);
    match column.kind {
        ColumnType::Date => format!("to_char({name}, 'YYYY-MM-DD')"),
        ColumnType::Timestamp => {
            format!(r#"to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#)
        }
        _ => format!("{name}::text"),
    }
}

/// The upload's id, the row number and the cells of a row in a dataset's table.
type JsonRecord = (String, i64, Json<Vec<Option<String>>>);

/// A database file in a temporary directory.
pub(super) struct Sqlite(TempDir);

impl Sqlite {
    fn file(&self) -> PathBuf {
        self.0.path().join("store.db")
    }

    async fn connect(&self) -> Result<SqliteConnection> {
        let options = SqliteConnectOptions::new().filename(self.file());
        Ok(options.connect().await?)
    }
}

impl Fixture for Sqlite {
    async fn start() -> Result<Self> {
        Ok(Self(TempDir::new()?))
    }

    async fn end(self) -> Result<()> {
        Ok(self.0.close()?)
    }
}

impl StoreFixture for Sqlite {
    async fn open(&self) -> Result<Arc<dyn Store>> {
        let settings = SqliteStoreSettings {
            file: self.file(),
            migrate: true,
        };
        Ok(Arc::new(SqliteStore::open(settings).await?))
    }

    async fn rows_in_table(&self, id: UploadId) -> Result<u64> {
        let mut connection = self.connect().await?;
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM rows r JOIN uploads u ON u.number = r.upload WHERE u.id = ?",
        )
        .bind(id.to_string())
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        Ok(u64::try_from(count)?)
    }

    async fn typed_rows(
        &self,
        key: &DatasetKey,
        relation: Relation,
        columns: &[TypedColumn],
    ) -> Result<Vec<(UploadId, StoredRow)>> {
        let query = format!(
            "SELECT upload_id, row_number, json_array({}) FROM {} ORDER BY upload_id, row_number",
            expressions(columns, text_in_sqlite),
            relation_in_sqlite(key, relation)
        );
        let mut connection = self.connect().await?;
        let found: Vec<JsonRecord> = sqlx::query_as(&query).fetch_all(&mut connection).await?;
        connection.close().await?;
        let found = found.into_iter().map(|(id, row, cells)| (id, row, cells.0));
        typed_rows(found.collect(), columns)
    }

    fn table(key: &DatasetKey) -> String {
        relation_in_sqlite(key, Relation::Table)
    }

    async fn catalog(&self) -> Result<Vec<String>> {
        let mut connection = self.connect().await?;
        let catalog: Vec<String> = sqlx::query_scalar(
            "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema ORDER BY 1",
        )
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        Ok(catalog)
    }

    async fn contents(&self) -> Result<Vec<String>> {
        let mut contents = self.catalog().await?;
        let mut connection = self.connect().await?;
        let tables: Vec<(String, String)> = sqlx::query_as(
            "SELECT t.name, group_concat('quote(\"' || replace(c.name, '\"', '\"\"') || '\")', ' || ')
             FROM sqlite_schema t JOIN pragma_table_info(t.name) c
             WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite!_%' ESCAPE '!'
             GROUP BY t.name ORDER BY 1",
        )
        .fetch_all(&mut connection)
        .await?;
        for (table, row) in tables {
            let query = format!("SELECT {row} FROM {} ORDER BY 1", quote_identifier(&table));
            let rows: Vec<String> = sqlx::query_scalar(&query)
                .fetch_all(&mut connection)
                .await?;
            contents.push(table);
            contents.extend(rows);
        }
        connection.close().await?;
        Ok(contents)
    }

    /// SQLite allows WITH in a view, and not in a trigger.
    fn slow_insertions(table: &str) -> [String; 2] {
        let view = "CREATE VIEW slow AS
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000000000000)
            SELECT count(*) AS counted FROM n";
        let trigger = format!(
            "CREATE TRIGGER slow BEFORE INSERT ON {table} BEGIN SELECT counted FROM slow; END"
        );
        [view.to_owned(), trigger]
    }

    async fn execute(&self, statement: &str) -> Result<()> {
        let mut connection = self.connect().await?;
        sqlx::query("PRAGMA ignore_check_constraints = ON")
            .execute(&mut connection)
            .await?;
        sqlx::query(statement).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    fn corrupt_values() -> &'static [(&'static str, &'static str, &'static str)] {
        &[
            ("status", "'done'", "done"),
            ("sha256", "x'01ab'", "01ab"),
            ("rows_inserted", "-7", "-7"),
            ("blank_lines", "-8", "-8"),
            ("batches_total", "-9", "-9"),
            ("duplicate_of", "'nobody'", "nobody"),
            ("finished_at", "'yesterday'", "yesterday"),
            ("created_at", "'long ago'", "long ago"),
        ]
    }
}

/// A text in place of a number is not shown, so the text of a number proves that it is one.
fn text_in_sqlite(column: &TypedColumn) -> String {
    let name = quote_identifier(&column.name);
    match column.kind {
        ColumnType::Integer | ColumnType::Float => {
            format!("CASE typeof({name}) WHEN 'text' THEN 'a text' ELSE CAST({name} AS TEXT) END")
        }
        ColumnType::Boolean => format!("CASE {name} WHEN 0 THEN 'false' WHEN 1 THEN 'true' END"),
        _ => name,
    }
}

/// The table or view of a dataset in SQL.
fn relation_in_sqlite(key: &DatasetKey, relation: Relation) -> String {
    let (name, ending) = (&key.name, ending(relation));
    quote_identifier(&match key.tenant.is_default() {
        true => format!("datasets_{name}{ending}"),
        false => format!("datasets_{}/{name}{ending}", key.tenant),
    })
}
