//! The whole table of a dataset as the database has it, and the lock of a merge into it.

use std::time::Duration;

use anyhow::Result;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

use crate::harness::{Harness, close_after, quoted};

/// An expression for the text of a row, in which NULL differs from an empty text, and a number has
/// all its digits. `$1`: the name of the table.
const TEXT_IN_SQLITE: &str = r#"
    SELECT group_concat(printf('quote("%w")', name), ' || '','' || ')
    FROM pragma_table_xinfo($1)"#;

/// Whether a transaction has the lock that a merge takes. `$1`: the name of the table.
const IS_LOCKED: &str = "
    SELECT EXISTS (
        SELECT FROM pg_locks
        WHERE relation = to_regclass($1) AND mode = 'ShareRowExclusiveLock' AND granted
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    )";

impl Harness {
    /// Every value of every row of the table, visible or not, as sorted texts. They include the
    /// upload and the number of the row.
    pub(super) async fn table(&self, dataset: &str) -> Result<Vec<String>> {
        let mut rows = match self {
            Self::Embedded(directory) => {
                let mut carga = directory.open("carga.db").await?;
                let rows = rows_in_sqlite(&mut carga, &format!("datasets_{dataset}")).await;
                close_after(rows, carga).await?
            }
            Self::Distributed(scope) => {
                let sql = format!("SELECT t::text FROM datasets.{} AS t", quoted(dataset));
                let rows = sqlx::query_scalar::<_, String>(&sql);
                rows.fetch_all(&scope.pool()).await?
            }
        };
        rows.sort_unstable();
        Ok(rows)
    }

    /// Whether a transaction has the lock that a merge into the table takes. In SQLite, this is the
    /// lock of every writer.
    pub(super) async fn is_locked(&self, dataset: &str) -> Result<bool> {
        match self {
            Self::Embedded(directory) => {
                let options = SqliteConnectOptions::new()
                    .filename(directory.path().join("carga.db"))
                    .busy_timeout(Duration::ZERO);
                let mut carga = SqliteConnection::connect_with(&options).await?;
                let begun = sqlx::raw_sql("BEGIN IMMEDIATE; ROLLBACK")
                    .execute(&mut carga)
                    .await;
                carga.close().await?;
                match begun {
                    Err(error) if error.to_string().contains("database is locked") => Ok(true),
                    begun => Ok(begun.map(|_| false)?),
                }
            }
            Self::Distributed(scope) => {
                let locked = sqlx::query_scalar::<_, bool>(IS_LOCKED)
                    .bind(format!("datasets.{}", quoted(dataset)));
                Ok(locked.fetch_one(&scope.pool()).await?)
            }
        }
    }
}

/// Every value of every row of a table in SQLite, as texts.
pub(super) async fn rows_in_sqlite(
    carga: &mut SqliteConnection,
    table: &str,
) -> sqlx::Result<Vec<String>> {
    let text = sqlx::query_scalar::<_, String>(TEXT_IN_SQLITE).bind(table);
    let text = text.fetch_one(&mut *carga).await?;
    let sql = format!("SELECT {text} FROM {}", quoted(table));
    let rows = sqlx::query_scalar::<_, String>(&sql);
    rows.fetch_all(carga).await
}
