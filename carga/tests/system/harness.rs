//! The directory or servers that a test gives to Carga, and direct access to the data stored there.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use carga_testkit::{DataDir, Scope};
use csv::StringRecord;
use futures::TryStreamExt;
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::types::Json;
use sqlx::{Connection, SqliteConnection};
use uuid::Uuid;

/// How Carga runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    /// `carga serve` alone.
    Embedded,
    /// `carga-api` and `carga-worker` on servers.
    Distributed,
}

impl Mode {
    /// Makes a directory, or databases and queues, that no other test uses.
    pub(crate) async fn harness(self) -> Result<Harness> {
        Ok(match self {
            Self::Embedded => Harness::Embedded(DataDir::new()?),
            Self::Distributed => Harness::Distributed(Scope::new().await?),
        })
    }
}

/// Defines two tests per scenario: `embedded::{scenario}` and `distributed::{scenario}`. Both get
/// the attributes of the scenario, such as `#[ignore = "takes an hour"]`.
macro_rules! in_both_modes {
    ($($(#[$($attribute:tt)+])* $scenario:ident),+ $(,)?) => {
        in_both_modes! { @ embedded Embedded $($(#[$($attribute)+])* $scenario)+ }
        in_both_modes! { @ distributed Distributed $($(#[$($attribute)+])* $scenario)+ }
    };
    (@ $module:ident $mode:ident $($(#[$($attribute:tt)+])* $scenario:ident)+) => {
        mod $module {
            $(
                #[tokio::test]
                $(#[$($attribute)+])*
                async fn $scenario() -> anyhow::Result<()> {
                    super::$scenario($crate::harness::Mode::$mode).await
                }
            )+
        }
    };
}

/// A test's own data directory, or its own database, queue and bucket on the shared servers.
#[derive(Debug)]
pub(crate) enum Harness {
    Embedded(DataDir),
    Distributed(Scope),
}

impl From<DataDir> for Harness {
    fn from(directory: DataDir) -> Self {
        Self::Embedded(directory)
    }
}

impl From<Scope> for Harness {
    fn from(scope: Scope) -> Self {
        Self::Distributed(scope)
    }
}

/// A query for the rows of one upload in SQLite.
macro_rules! in_sqlite {
    ($columns:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM uploads u JOIN rows r ON r.id BETWEEN u.number << 36 AND (u.number << 36) + 0xfffffffff WHERE u.id = $1"
        )
    };
}

/// A query for the rows of one upload in Postgres, visible or not, in both tables that may have
/// them.
macro_rules! in_postgres {
    ($select:literal, $rest:literal) => {
        concat!(
            $select,
            " FROM (SELECT r.row_number, r.fields FROM landing r JOIN uploads u ON u.number = r.upload WHERE u.id = $1
                    UNION ALL
                    SELECT row_number, fields FROM rows WHERE upload_id = $1) AS stored",
            $rest
        )
    };
}

impl Harness {
    pub(crate) fn env(&self) -> BTreeMap<String, String> {
        match self {
            Self::Embedded(directory) => directory.env(),
            Self::Distributed(scope) => scope.env(),
        }
    }

    /// The data directory; an error in distributed mode.
    pub(crate) fn directory(&self) -> Result<&DataDir> {
        match self {
            Self::Embedded(directory) => Ok(directory),
            Self::Distributed(_) => bail!("distributed mode has no data directory"),
        }
    }

    /// Adds one setting.
    #[must_use]
    pub(crate) fn with(self, key: &str, value: &str) -> Self {
        match self {
            Self::Embedded(directory) => Self::Embedded(directory.with(key, value)),
            Self::Distributed(scope) => Self::Distributed(scope.with(key, value)),
        }
    }

    /// Runs statements in Carga's database as its operator, in the dialect of that database.
    pub(crate) async fn execute(&self, postgres: &str, sqlite: &str) -> Result<()> {
        match self {
            Self::Embedded(directory) => {
                let options = SqliteConnectOptions::new()
                    .filename(directory.path().join("carga.db"))
                    .busy_timeout(Duration::from_secs(10));
                let mut carga = SqliteConnection::connect_with(&options).await?;
                let done = sqlx::raw_sql(sqlite).execute(&mut carga).await;
                close_after(done, carga).await?;
            }
            Self::Distributed(scope) => {
                sqlx::raw_sql(postgres).execute(&scope.pool()).await?;
            }
        }
        Ok(())
    }

    /// Counts the stored rows of the upload, and their distinct row numbers.
    pub(crate) async fn count_rows(&self, id: Uuid) -> Result<(i64, i64)> {
        Ok(match self {
            Self::Embedded(directory) => {
                let mut carga = directory.open("carga.db").await?;
                let sql = in_sqlite!("count(*), count(DISTINCT r.row_number)");
                let counted = sqlx::query_as(sql).bind(id.to_string());
                close_after(counted.fetch_one(&mut carga).await, carga).await?
            }
            Self::Distributed(scope) => {
                let sql = in_postgres!("SELECT count(*), count(DISTINCT row_number)", "");
                let counted = sqlx::query_as(sql).bind(id);
                counted.fetch_one(&scope.pool()).await?
            }
        })
    }

    /// Counts the stored batches of the upload.
    pub(crate) async fn count_batches(&self, id: Uuid) -> Result<i64> {
        const SQL: &str = "SELECT count(*) FROM batches WHERE upload_id = $1";
        let (batches,) = match self {
            Self::Embedded(directory) => {
                let mut carga = directory.open("carga.db").await?;
                let counted = sqlx::query_as(SQL).bind(id.to_string());
                close_after(counted.fetch_one(&mut carga).await, carga).await?
            }
            Self::Distributed(scope) => {
                let counted = sqlx::query_as(SQL).bind(id);
                counted.fetch_one(&scope.pool()).await?
            }
        };
        Ok(batches)
    }

    /// Whether each upload had stored batches before the last batch of any other was stored.
    pub(crate) async fn have_overlapped(&self) -> Result<bool> {
        const SQL: &str = "SELECT max(begun) < min(done)
            FROM (SELECT min(stored_at) AS begun, max(stored_at) AS done FROM batches GROUP BY upload_id) AS uploads";
        let (overlapped,) = match self {
            Self::Embedded(directory) => {
                let mut carga = directory.open("carga.db").await?;
                let found = sqlx::query_as(SQL).fetch_one(&mut carga).await;
                close_after(found, carga).await?
            }
            Self::Distributed(scope) => sqlx::query_as(SQL).fetch_one(&scope.pool()).await?,
        };
        Ok(overlapped)
    }

    /// Fails unless the stored rows equal `expected`, cell by cell and in the same order.
    pub(crate) async fn check_rows(&self, id: Uuid, expected: &[StringRecord]) -> Result<()> {
        self.check_numbered_rows(id, (1..).zip(expected)).await
    }

    /// Like `check_rows`, for row numbers that have gaps.
    pub(crate) async fn check_numbered_rows(
        &self,
        id: Uuid,
        expected: impl IntoIterator<Item = (i64, &StringRecord)>,
    ) -> Result<()> {
        let mut expected = expected.into_iter();
        let mut check_row = |number: i64, cells: &[String]| {
            let (expected_number, row) = expected.next().context("more rows than the file has")?;
            ensure!(
                number == expected_number && row.iter().eq(cells),
                "row {number} is {cells:?}"
            );
            Ok(())
        };
        match self {
            Self::Embedded(directory) => {
                let mut carga = directory.open("carga.db").await?;
                let sql = concat!(in_sqlite!("r.row_number, r.fields"), " ORDER BY r.id");
                let mut rows = sqlx::query_as::<_, (i64, Json<Vec<String>>)>(sql)
                    .bind(id.to_string())
                    .fetch(&mut carga);
                while let Some((number, Json(cells))) = rows.try_next().await? {
                    check_row(number, &cells)?;
                }
                drop(rows);
                carga.close().await?;
            }
            Self::Distributed(scope) => {
                let pool = scope.pool();
                let sql = in_postgres!("SELECT row_number, fields", " ORDER BY row_number");
                let mut rows = sqlx::query_as::<_, (i64, Vec<String>)>(sql)
                    .bind(id)
                    .fetch(&pool);
                while let Some((number, cells)) = rows.try_next().await? {
                    check_row(number, &cells)?;
                }
            }
        }
        ensure!(expected.next().is_none(), "fewer rows than the file has");
        Ok(())
    }

    /// Reads a row from the view `upload_rows`.
    pub(crate) async fn view_row(&self, id: Uuid, row_number: i64) -> Result<Value> {
        const SQL: &str = "SELECT data FROM upload_rows WHERE upload_id = $1 AND row_number = $2";
        let (Json(data),) = match self {
            Self::Embedded(directory) => {
                let mut carga = directory.open("carga.db").await?;
                let found = sqlx::query_as(SQL).bind(id.to_string()).bind(row_number);
                close_after(found.fetch_one(&mut carga).await, carga).await?
            }
            Self::Distributed(scope) => {
                let found = sqlx::query_as(SQL).bind(id).bind(row_number);
                found.fetch_one(&scope.pool()).await?
            }
        };
        Ok(data)
    }

    /// The visible rows of a dataset, in their order, as JSON arrays. A row has the values of the
    /// expressions that the database's own list has.
    pub(crate) async fn typed(&self, dataset: &str, postgres: &str, sqlite: &str) -> Result<Value> {
        let mut rows = Vec::new();
        self.each_typed(dataset, postgres, sqlite, |row| {
            rows.push(Value::Array(row));
            Ok(())
        })
        .await?;
        Ok(Value::Array(rows))
    }

    /// Like `typed`, for more rows than fit in memory.
    pub(crate) async fn each_typed(
        &self,
        dataset: &str,
        postgres: &str,
        sqlite: &str,
        mut each: impl FnMut(Vec<Value>) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Embedded(directory) => {
                let view = quoted(&format!("datasets_{dataset}_rows"));
                let sql = format!("SELECT json_array({sqlite}) FROM {}", in_order(&view));
                let mut carga = directory.open("carga.db").await?;
                let rows = sqlx::query_as::<_, (Json<Vec<Value>>,)>(&sql);
                let mut rows = rows.fetch(&mut carga);
                while let Some((Json(row),)) = rows.try_next().await? {
                    each(row)?;
                }
                drop(rows);
                carga.close().await?;
            }
            Self::Distributed(scope) => {
                let view = format!("datasets.{}", quoted(&format!("{dataset}_rows")));
                let sql = format!(
                    "SELECT jsonb_build_array({postgres}) FROM {}",
                    in_order(&view)
                );
                let pool = scope.pool();
                let rows = sqlx::query_as::<_, (Json<Vec<Value>>,)>(&sql);
                let mut rows = rows.fetch(&pool);
                while let Some((Json(row),)) = rows.try_next().await? {
                    each(row)?;
                }
            }
        }
        Ok(())
    }

    /// Counts the rows of the upload in the table of a dataset, visible or not, and their distinct
    /// row numbers.
    pub(crate) async fn count_typed(&self, dataset: &str, id: Uuid) -> Result<(i64, i64)> {
        let count = |table: String| {
            format!("SELECT count(*), count(DISTINCT row_number) FROM {table} WHERE upload_id = $1")
        };
        Ok(match self {
            Self::Embedded(directory) => {
                let sql = count(quoted(&format!("datasets_{dataset}")));
                let mut carga = directory.open("carga.db").await?;
                let counted = sqlx::query_as(&sql).bind(id.to_string());
                close_after(counted.fetch_one(&mut carga).await, carga).await?
            }
            Self::Distributed(scope) => {
                let sql = count(format!("datasets.{}", quoted(dataset)));
                let counted = sqlx::query_as(&sql).bind(id);
                counted.fetch_one(&scope.pool()).await?
            }
        })
    }

    /// The keys in the archive, sorted.
    pub(crate) async fn objects(&self) -> Result<Vec<String>> {
        match self {
            Self::Embedded(directory) => directory.objects(),
            Self::Distributed(scope) => scope.objects().await,
        }
    }

    pub(crate) async fn object(&self, key: &str) -> Result<Vec<u8>> {
        match self {
            Self::Embedded(directory) => directory.object(key),
            Self::Distributed(scope) => scope.object(key).await,
        }
    }

    /// Removes everything that the test stored.
    pub(crate) async fn close(self) -> Result<()> {
        match self {
            Self::Embedded(directory) => {
                drop(directory);
                Ok(())
            }
            Self::Distributed(scope) => scope.close().await,
        }
    }
}

/// A name in SQL.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The rows of a dataset's view in the order of the uploads and their files.
fn in_order(view: &str) -> String {
    format!("(SELECT * FROM {view} ORDER BY upload_id, row_number) AS shown")
}

/// Closes the connection, and returns the answer that came through it.
pub(crate) async fn close_after<T>(
    answer: sqlx::Result<T>,
    connection: SqliteConnection,
) -> Result<T> {
    connection.close().await?;
    Ok(answer?)
}
