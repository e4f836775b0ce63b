//! Datasets, with their tables and views.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::{SqliteStore, audit, now, typed_tables};
use crate::audit::{Action, Written};
use crate::dataset::{self, Change, Dataset, DatasetKey, DatasetName, Definition, TableFault};
use crate::error::PortResult;
use crate::sqlite::{Database, call};
use crate::store::rules;
use crate::store::sql::{self, DATASET_PAGE_BYTES};
use crate::store::{DatasetStore, DeleteOutcome, PutOutcome};
use crate::tenant::Tenant;
use crate::upload::UploadDataset;

/// Counts the uploads that need the table of a dataset. Only uploads with these statuses keep no
/// rows, so an upload with a status of a newer build counts too. The first conditions repeat those
/// of the partial index. `$1` and `$2`: the tenant and the name. `$3`: whether the table has rows,
/// which may be those of merged uploads that have expired.
const USES: &str = "SELECT count(*) FROM uploads
    WHERE dataset IS NOT NULL AND tenant = $1 AND dataset ->> 'name' = $2
      AND (cleanup_pending OR status NOT IN ('failed', 'cancelled', 'undone')
                              AND (expired_at IS NULL OR $3 AND dataset ->> 'merge' IS NOT NULL))";

/// Deletes the rows that uploads of a dataset replaced. The first condition repeats that of the
/// partial index. `$1` and `$2`: the tenant and the name.
const FORGET_PREVIOUS: &str = "DELETE FROM previous_rows WHERE id IN
    (SELECT p.id FROM uploads u
     JOIN previous_rows p ON p.id BETWEEN u.number << 36 AND (u.number << 36) + 0xfffffffff
     WHERE u.dataset IS NOT NULL AND u.tenant = $1 AND u.dataset ->> 'name' = $2)";

/// Selects datasets. `$1` to `$4`: the tenant, the name before the page, the most datasets, the
/// most bytes. The definitions are read last, because their sizes are known without reading them.
const PAGE: &str = "WITH
    next AS (SELECT name, octet_length(definition) AS bytes FROM datasets
             WHERE tenant = $1 AND name > $2 ORDER BY name LIMIT $3),
    sized AS (SELECT name, sum(bytes) OVER (ORDER BY name) - bytes AS bytes_before FROM next)
    SELECT d.tenant, d.name, d.definition, d.created_at, d.updated_at
    FROM sized s JOIN datasets d ON d.tenant = $1 AND d.name = s.name
    WHERE s.bytes_before < $4 ORDER BY d.name";

/// The columns `tenant`, `name`, `definition`, `created_at` and `updated_at`.
type Record = (String, String, String, String, String);

#[async_trait]
impl DatasetStore for SqliteStore {
    async fn put_dataset(
        &self,
        key: &DatasetKey,
        definition: &Definition,
    ) -> PortResult<PutOutcome> {
        call("store.put_dataset", put(&self.database, key, definition)).await
    }

    async fn dataset(&self, key: &DatasetKey) -> PortResult<Option<Dataset>> {
        call("store.dataset", async {
            let mut connection = self.database.readers.acquire().await?;
            find(&mut connection, key).await
        })
        .await
    }

    async fn datasets(
        &self,
        tenant: &Tenant,
        after: Option<&DatasetName>,
        limit: u32,
    ) -> PortResult<Vec<Dataset>> {
        call("store.datasets", async {
            let found: Vec<Record> = sqlx::query_as(PAGE)
                .bind(tenant.as_str())
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

    async fn delete_dataset(&self, key: &DatasetKey) -> PortResult<DeleteOutcome> {
        call("store.delete_dataset", async {
            let mut transaction = self.database.begin().await?;
            let outcome = delete(&mut transaction, key).await?;
            let written = match outcome {
                DeleteOutcome::Deleted => {
                    record(&mut transaction, key, Action::DeleteDataset).await?
                }
                DeleteOutcome::Missing | DeleteOutcome::InUse { .. } => Written(None),
            };
            transaction.commit().await?;
            written.log();
            Ok(outcome)
        })
        .await
    }

    async fn check_table(
        &self,
        definition: &Definition,
        _written: &[&str],
    ) -> PortResult<Result<(), TableFault>> {
        Ok(has_own_table(definition))
    }
}

/// Refuses a definition that names a table of the user.
fn has_own_table(definition: &Definition) -> Result<(), TableFault> {
    let table = definition.table.as_ref();
    table.map_or(Ok(()), |table| Err(TableFault::needs_postgres(table)))
}

fn parsed((tenant, name, definition, created_at, updated_at): Record) -> sqlx::Result<Dataset> {
    Ok(Dataset {
        definition: Definition::from_json(definition.as_bytes())
            .map_err(|fault| sqlx::Error::Decode(format!("dataset `{name}`: {fault}").into()))?,
        tenant: sql::parsed("tenant", &tenant)?,
        name: sql::parsed("name", &name)?,
        created_at: sql::parsed("created_at", &created_at)?,
        updated_at: sql::parsed("updated_at", &updated_at)?,
    })
}

async fn find(
    connection: &mut SqliteConnection,
    key: &DatasetKey,
) -> sqlx::Result<Option<Dataset>> {
    let found: Option<Record> = sqlx::query_as(
        "SELECT tenant, name, definition, created_at, updated_at FROM datasets
         WHERE tenant = $1 AND name = $2",
    )
    .bind(key.tenant.as_str())
    .bind(key.name.as_str())
    .fetch_optional(connection)
    .await?;
    found.map(parsed).transpose()
}

/// Whether the dataset of an upload exists and takes the upload's rows.
pub(super) async fn takes_rows(
    connection: &mut SqliteConnection,
    dataset: &UploadDataset,
) -> sqlx::Result<bool> {
    let found = find(connection, &dataset.key()).await?;
    Ok(found.is_some_and(|found| rules::takes_rows(&found.definition, dataset)))
}

async fn exists(connection: &mut SqliteConnection, key: &DatasetKey) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM datasets WHERE tenant = $1 AND name = $2)")
        .bind(key.tenant.as_str())
        .bind(key.name.as_str())
        .fetch_one(connection)
        .await
}

async fn put(
    database: &Database,
    key: &DatasetKey,
    definition: &Definition,
) -> sqlx::Result<PutOutcome> {
    if let Err(fault) = has_own_table(definition) {
        return Ok(PutOutcome::Unfit(fault));
    }
    let mut transaction = database.begin().await?;
    let outcome = match find(&mut transaction, key).await? {
        None => create(&mut transaction, key, definition).await,
        Some(old) => replace(&mut transaction, &old, definition).await,
    };
    match outcome {
        Ok(outcome) => {
            let written = match outcome {
                PutOutcome::Created | PutOutcome::Changed => {
                    let action = Action::putting_dataset(outcome == PutOutcome::Created);
                    record(&mut transaction, key, action).await?
                }
                PutOutcome::Unchanged | PutOutcome::Refused(_) | PutOutcome::Unfit(_) => {
                    Written(None)
                }
            };
            transaction.commit().await?;
            written.log();
            Ok(outcome)
        }
        // Without a commit, the statements before the faulty one are undone.
        Err(error) => match refusal(&error) {
            Some(reason) => Ok(PutOutcome::Refused(reason)),
            None => Err(error),
        },
    }
}

/// Adds the entry of a change to the audit log.
async fn record(
    connection: &mut SqliteConnection,
    key: &DatasetKey,
    action: Action,
) -> sqlx::Result<Written> {
    audit::record(connection, &key.tenant, action, key.name.as_str()).await
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
    key: &DatasetKey,
    definition: &Definition,
) -> sqlx::Result<PutOutcome> {
    if let Some(other) = same_name(connection, key).await? {
        return Ok(PutOutcome::Refused(format!(
            "the database already has a table or view named `{other}`, and SQLite does not \
             distinguish upper and lower case; choose another name"
        )));
    }
    sqlx::query(
        "INSERT INTO datasets (tenant, name, definition, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $4)",
    )
    .bind(key.tenant.as_str())
    .bind(key.name.as_str())
    .bind(definition.to_json().to_string())
    .bind(now())
    .execute(&mut *connection)
    .await?;
    run(connection, &typed_tables::create(key, definition)).await?;
    Ok(PutOutcome::Created)
}

/// A table or view that has the name of the dataset's table or view, without regard to case.
async fn same_name(
    connection: &mut SqliteConnection,
    key: &DatasetKey,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE name COLLATE NOCASE IN ($1, $2)")
        .bind(key.sqlite_table())
        .bind(key.sqlite_view())
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
        let statements = typed_tables::add_columns(&old.key(), &added, definition);
        run(connection, &statements).await?;
    }
    sqlx::query(
        "UPDATE datasets SET definition = $3, updated_at = $4 WHERE tenant = $1 AND name = $2",
    )
    .bind(old.tenant.as_str())
    .bind(old.name.as_str())
    .bind(definition.to_json().to_string())
    .bind(now())
    .execute(connection)
    .await?;
    Ok(PutOutcome::Changed)
}

async fn delete(
    connection: &mut SqliteConnection,
    key: &DatasetKey,
) -> sqlx::Result<DeleteOutcome> {
    if !exists(connection, key).await? {
        return Ok(DeleteOutcome::Missing);
    }
    let (tenant, name) = (key.tenant.as_str(), key.name.as_str());
    let has_rows = typed_tables::has_rows(connection, key).await?;
    let uploads: i64 = sqlx::query_scalar(USES)
        .bind(tenant)
        .bind(name)
        .bind(has_rows)
        .fetch_one(&mut *connection)
        .await?;
    if uploads > 0 {
        let uploads = sql::count("count(*)", uploads)?;
        return Ok(DeleteOutcome::InUse { uploads });
    }
    run(connection, &typed_tables::drop(key)).await?;
    for statement in [
        FORGET_PREVIOUS,
        "DELETE FROM datasets WHERE tenant = $1 AND name = $2",
    ] {
        sqlx::query(statement)
            .bind(tenant)
            .bind(name)
            .execute(&mut *connection)
            .await?;
    }
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
mod tests;
