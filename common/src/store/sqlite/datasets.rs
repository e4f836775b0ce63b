//! Datasets, with their tables and views.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::{SqliteStore, now, typed_tables};
use crate::dataset::{self, Change, Dataset, DatasetName, Definition};
use crate::error::PortResult;
use crate::sqlite::{Database, call};
use crate::store::rules;
use crate::store::sql::{self, DATASET_PAGE_BYTES};
use crate::store::{DatasetStore, DeleteOutcome, PutOutcome};
use crate::upload::UploadDataset;

/// Counts the uploads that need the table of a dataset. Only uploads with these statuses keep no
/// rows, so an upload with a status of a newer build counts too. The first conditions repeat those
/// of the partial index. `$2`: whether the table has rows, which may be those of merged uploads
/// that have expired.
const USES: &str = "SELECT count(*) FROM uploads
    WHERE dataset IS NOT NULL AND dataset ->> 'name' = $1
      AND (cleanup_pending OR status NOT IN ('failed', 'cancelled', 'undone')
                              AND (expired_at IS NULL OR $2 AND dataset ->> 'merge' IS NOT NULL))";

/// Deletes the rows that uploads of a dataset replaced. The first condition repeats that of the
/// partial index.
const FORGET_PREVIOUS: &str = "DELETE FROM previous_rows WHERE id IN
    (SELECT p.id FROM uploads u
     JOIN previous_rows p ON p.id BETWEEN u.number << 36 AND (u.number << 36) + 0xfffffffff
     WHERE u.dataset IS NOT NULL AND u.dataset ->> 'name' = $1)";

/// Selects datasets. `$1` to `$3`: the name before the page, the most datasets, the most bytes. The
/// definitions are read last, because their sizes are known without reading them.
const PAGE: &str = "WITH
    next AS (SELECT name, octet_length(definition) AS bytes FROM datasets
             WHERE name > $1 ORDER BY name LIMIT $2),
    sized AS (SELECT name, sum(bytes) OVER (ORDER BY name) - bytes AS bytes_before FROM next)
    SELECT d.name, d.definition, d.created_at, d.updated_at
    FROM sized s JOIN datasets d ON d.name = s.name
    WHERE s.bytes_before < $3 ORDER BY d.name";

/// The columns `name`, `definition`, `created_at` and `updated_at`.
type Record = (String, String, String, String);

#[async_trait]
impl DatasetStore for SqliteStore {
    async fn put_dataset(
        &self,
        name: &DatasetName,
        definition: &Definition,
    ) -> PortResult<PutOutcome> {
        call("store.put_dataset", put(&self.database, name, definition)).await
    }

    async fn dataset(&self, name: &DatasetName) -> PortResult<Option<Dataset>> {
        call("store.dataset", async {
            let mut connection = self.database.readers.acquire().await?;
            find(&mut connection, name).await
        })
        .await
    }

    async fn datasets(&self, after: Option<&DatasetName>, limit: u32) -> PortResult<Vec<Dataset>> {
        call("store.datasets", async {
            let found: Vec<Record> = sqlx::query_as(PAGE)
                // Every name is greater than the empty text.
                .bind(after.map_or("", DatasetName::as_str))
                .bind(i64::from(limit))
                .bind(DATASET_PAGE_BYTES)
                .fetch_all(&self.database.readers)
                .await?;
            found.into_iter().map(parsed).collect()
        })
        .await
    }

    async fn delete_dataset(&self, name: &DatasetName) -> PortResult<DeleteOutcome> {
        call("store.delete_dataset", async {
            let mut transaction = self.database.begin().await?;
            let outcome = delete(&mut transaction, name).await?;
            transaction.commit().await?;
            Ok(outcome)
        })
        .await
    }
}

fn parsed((name, definition, created_at, updated_at): Record) -> sqlx::Result<Dataset> {
    Ok(Dataset {
        definition: Definition::from_json(definition.as_bytes())
            .map_err(|fault| sqlx::Error::Decode(format!("dataset `{name}`: {fault}").into()))?,
        name: sql::parsed("name", &name)?,
        created_at: sql::parsed("created_at", &created_at)?,
        updated_at: sql::parsed("updated_at", &updated_at)?,
    })
}

async fn find(
    connection: &mut SqliteConnection,
    name: &DatasetName,
) -> sqlx::Result<Option<Dataset>> {
    let found: Option<Record> = sqlx::query_as(
        "SELECT name, definition, created_at, updated_at FROM datasets WHERE name = $1",
    )
    .bind(name.as_str())
    .fetch_optional(connection)
    .await?;
    found.map(parsed).transpose()
}

/// Whether the dataset of an upload exists and takes the upload's rows.
pub(super) async fn takes_rows(
    connection: &mut SqliteConnection,
    dataset: &UploadDataset,
) -> sqlx::Result<bool> {
    let found = find(connection, &dataset.name).await?;
    Ok(found.is_some_and(|found| rules::takes_rows(&found.definition, dataset)))
}

async fn exists(connection: &mut SqliteConnection, name: &DatasetName) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM datasets WHERE name = $1)")
        .bind(name.as_str())
        .fetch_one(connection)
        .await
}

async fn put(
    database: &Database,
    name: &DatasetName,
    definition: &Definition,
) -> sqlx::Result<PutOutcome> {
    let mut transaction = database.begin().await?;
    let outcome = match find(&mut transaction, name).await? {
        None => create(&mut transaction, name, definition).await,
        Some(old) => replace(&mut transaction, &old, definition).await,
    };
    match outcome {
        Ok(outcome) => {
            transaction.commit().await?;
            Ok(outcome)
        }
        // Without a commit, the statements before the faulty one are undone.
        Err(error) => match refusal(&error) {
            Some(reason) => Ok(PutOutcome::Refused(reason)),
            None => Err(error),
        },
    }
}

/// The reason why the table of a dataset cannot be changed, if somebody has changed it by hand.
/// SQLite has one code for a missing table, an existing column and a table in place of a view.
fn refusal(error: &sqlx::Error) -> Option<String> {
    const GENERIC_ERROR: &str = "1";
    let error = error.as_database_error()?;
    let is_changed = error.code()? == GENERIC_ERROR;
    is_changed.then(|| {
        format!(
            "{}: the table or view of the dataset was changed by hand; undo that change, or declare a new dataset",
            error.message()
        )
    })
}

async fn create(
    connection: &mut SqliteConnection,
    name: &DatasetName,
    definition: &Definition,
) -> sqlx::Result<PutOutcome> {
    if let Some(other) = same_name(connection, name).await? {
        return Ok(PutOutcome::Refused(format!(
            "the database already has a table or view named `{other}`, and SQLite does not \
             distinguish upper and lower case; choose another name"
        )));
    }
    sqlx::query(
        "INSERT INTO datasets (name, definition, created_at, updated_at) VALUES ($1, $2, $3, $3)",
    )
    .bind(name.as_str())
    .bind(definition.to_json().to_string())
    .bind(now())
    .execute(&mut *connection)
    .await?;
    run(connection, &typed_tables::create(name, definition)).await?;
    Ok(PutOutcome::Created)
}

/// A table or view that has the name of the dataset's table or view, without regard to case.
async fn same_name(
    connection: &mut SqliteConnection,
    name: &DatasetName,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE name COLLATE NOCASE IN ($1, $2)")
        .bind(typed_tables::table_name(name))
        .bind(typed_tables::view_name(name))
        .fetch_optional(connection)
        .await
}

async fn replace(
    connection: &mut SqliteConnection,
    old: &Dataset,
    definition: &Definition,
) -> sqlx::Result<PutOutcome> {
    let added = match dataset::change(&old.definition, definition) {
        Change::None => return Ok(PutOutcome::Unchanged),
        Change::Refused(reason) => return Ok(PutOutcome::Refused(reason)),
        Change::Rules => Vec::new(),
        Change::AddColumns(columns) => columns,
    };
    if let Some(name) = typed_tables::cannot_be_added(&added) {
        return Ok(PutOutcome::Refused(format!(
            "SQLite cannot add a column named `{name}` to a table; choose another name"
        )));
    }
    if !added.is_empty() {
        let statements = typed_tables::add_columns(&old.name, &added, definition);
        run(connection, &statements).await?;
    }
    sqlx::query("UPDATE datasets SET definition = $2, updated_at = $3 WHERE name = $1")
        .bind(old.name.as_str())
        .bind(definition.to_json().to_string())
        .bind(now())
        .execute(connection)
        .await?;
    Ok(PutOutcome::Changed)
}

async fn delete(
    connection: &mut SqliteConnection,
    name: &DatasetName,
) -> sqlx::Result<DeleteOutcome> {
    if !exists(connection, name).await? {
        return Ok(DeleteOutcome::Missing);
    }
    let has_rows = typed_tables::has_rows(connection, name).await?;
    let uploads: i64 = sqlx::query_scalar(USES)
        .bind(name.as_str())
        .bind(has_rows)
        .fetch_one(&mut *connection)
        .await?;
    if uploads > 0 {
        let uploads = sql::count("count(*)", uploads)?;
        return Ok(DeleteOutcome::InUse { uploads });
    }
    run(connection, &typed_tables::drop(name)).await?;
    sqlx::query(FORGET_PREVIOUS)
        .bind(name.as_str())
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM datasets WHERE name = $1")
        .bind(name.as_str())
        .execute(connection)
        .await?;
    Ok(DeleteOutcome::Deleted)
}

/// Runs statements that change the schema. They are not cached, since each runs once.
async fn run(connection: &mut SqliteConnection, statements: &[String]) -> sqlx::Result<()> {
    for statement in statements {
        sqlx::query(statement)
            .persistent(false)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
}
