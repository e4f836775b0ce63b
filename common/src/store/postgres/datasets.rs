//! Datasets and their tables. A dataset has a table and a view in the schema of its tenant
//! (`schema`), or it names a table of the user, which Carga never alters (`catalog`).
//!
//! A change of a dataset locks its record, and the creation of an upload takes a shared lock on the
//! record of its dataset. A deletion and a new upload therefore exclude each other.

pub(super) mod catalog;
mod ddl;
mod schema;

use std::ops::RangeInclusive;

use async_trait::async_trait;
use jiff_sqlx::Timestamp as SqlTimestamp;
use sqlx::types::Json;
use sqlx::{Connection, PgConnection};

pub(super) use self::ddl::{lock_against_writers, sql_type, table};
use super::connections::{LONG, MERGE, MERGE_STATEMENT, SHORT};
use super::{PostgresStore, audit, previous_rows, written_rows};
use crate::audit::Action;
use crate::dataset::{
    Change, Dataset, DatasetKey, DatasetName, Definition, TableFault, TableName, change,
};
use crate::error::PortResult;
use crate::store::rules;
use crate::store::sql::{self, DATASET_PAGE_BYTES};
use crate::store::{DatasetStore, DeleteOutcome, PutOutcome};
use crate::tenant::Tenant;
use crate::typed::POSTGRES_ROW_BYTES;
use crate::upload::{UploadDataset, UploadId};

/// Limits how long a change or a trial waits for each lock, because uploads that store rows wait
/// behind it.
pub(super) const WAIT_BRIEFLY: &str = "SELECT set_config('lock_timeout', '2s', true)";

/// Lets the changes of one dataset take turns. A new dataset has no record that could be locked.
/// Locks with two keys never collide with locks with one key, such as the fence. `$1`: the tenant
/// and the name.
const TAKE_TURN: &str = "SELECT pg_advisory_xact_lock(1684108385, hashtext($1))";

/// Counts the uploads that need a dataset. Only uploads with these statuses keep no rows, so an
/// upload with a status of a newer build counts too. Rows in a table of the user belong to the user
/// as soon as their upload has ended, unless a retry can still merge them. `$1` and `$2`: the
/// tenant and the name. `$3`: whether Carga's own table of the dataset has rows, which may be those
/// of merged uploads that have expired.
const COUNT_USES: &str = "SELECT count(*) FROM uploads
    WHERE tenant = $1 AND dataset ->> 'name' = $2
      AND (cleanup_pending OR status NOT IN ('failed', 'cancelled', 'undone')
           AND CASE WHEN dataset ->> 'table' IS NULL
                    THEN expired_at IS NULL OR $3 AND dataset ->> 'merge' IS NOT NULL
                    ELSE status NOT IN ('completed', 'partial') OR rows_dead > 0 AND expired_at IS NULL END)";

/// Selects one dataset. `$1` and `$2`: the tenant and the name.
const ONE: &str = "SELECT tenant, name, definition::text, created_at, updated_at
    FROM datasets WHERE tenant = $1 AND name = $2";

/// Selects datasets. `$1` to `$4`: the tenant, the name before the page, the most datasets, the
/// most bytes.
const PAGE: &str = "WITH
    next AS (SELECT name, octet_length(definition::text) AS bytes FROM datasets
             WHERE tenant = $1 AND ($2::text IS NULL OR name > $2) ORDER BY name LIMIT $3),
    sized AS (SELECT name, sum(bytes) OVER (ORDER BY name) - bytes AS bytes_before FROM next)
    SELECT d.tenant, d.name, d.definition::text, d.created_at, d.updated_at
    FROM sized s JOIN datasets d ON d.tenant = $1 AND d.name = s.name
    WHERE s.bytes_before < $4 ORDER BY d.name";

#[async_trait]
impl DatasetStore for PostgresStore {
    async fn put_dataset(
        &self,
        key: &DatasetKey,
        definition: &Definition,
    ) -> PortResult<PutOutcome> {
        self.call("store.put_dataset", LONG, async |connection| {
            put(connection, key, definition).await
        })
        .await
    }

    async fn dataset(&self, key: &DatasetKey) -> PortResult<Option<Dataset>> {
        self.call("store.dataset", SHORT, async |connection| {
            let found: Option<Record> = sqlx::query_as(ONE)
                .bind(key.tenant.as_str())
                .bind(key.name.as_str())
                .fetch_optional(connection)
                .await?;
            found.map(dataset).transpose()
        })
        .await
    }

    async fn datasets(
        &self,
        tenant: &Tenant,
        after: Option<&DatasetName>,
        limit: u32,
    ) -> PortResult<Vec<Dataset>> {
        self.call("store.datasets", SHORT, async |connection| {
            let found: Vec<Record> = sqlx::query_as(PAGE)
                .bind(tenant.as_str())
                .bind(after.map(DatasetName::as_str))
                .bind(i64::from(limit))
                .bind(DATASET_PAGE_BYTES)
                .fetch_all(connection)
                .await?;
            found.into_iter().map(dataset).collect()
        })
        .await
    }

    async fn delete_dataset(&self, key: &DatasetKey) -> PortResult<DeleteOutcome> {
        self.call("store.delete_dataset", MERGE, async |connection| {
            delete(connection, key).await
        })
        .await
    }

    async fn check_table(
        &self,
        definition: &Definition,
        written: &[&str],
    ) -> PortResult<Result<(), TableFault>> {
        self.call("store.check_table", SHORT, async |connection| {
            let read = catalog::read(connection, definition, written).await?;
            Ok(read.map(|_| ()))
        })
        .await
    }

    fn max_row_bytes(&self) -> Option<usize> {
        Some(POSTGRES_ROW_BYTES)
    }
}

/// The columns `tenant`, `name`, `definition`, `created_at` and `updated_at`.
type Record = (String, String, String, SqlTimestamp, SqlTimestamp);

fn dataset((tenant, name, definition, created_at, updated_at): Record) -> sqlx::Result<Dataset> {
    let DatasetKey { tenant, name } = key(&tenant, &name)?;
    Ok(Dataset {
        tenant,
        name,
        definition: parse(&definition)?,
        created_at: created_at.to_jiff(),
        updated_at: updated_at.to_jiff(),
    })
}

/// The key of a dataset, from its columns.
pub(super) fn key(tenant: &str, name: &str) -> sqlx::Result<DatasetKey> {
    let tenant = sql::parsed("tenant", tenant)?;
    Ok(DatasetKey::new(tenant, sql::parsed("name", name)?))
}

fn parse(definition: &str) -> sqlx::Result<Definition> {
    let parsed = Definition::from_json(definition.as_bytes());
    parsed.map_err(|fault| sqlx::Error::Decode(Box::new(fault)))
}

async fn put(
    connection: &mut PgConnection,
    key: &DatasetKey,
    definition: &Definition,
) -> sqlx::Result<PutOutcome> {
    let mut transaction = connection.begin().await?;
    let (outcome, statements) = match lock(&mut transaction, key).await? {
        None => (PutOutcome::Created, ddl::create(key, definition)),
        Some(known) => match change(&parse(&known)?, definition) {
            Change::None => return Ok(PutOutcome::Unchanged),
            Change::Refused(reason) => return Ok(PutOutcome::Refused(reason)),
            Change::Rules => (PutOutcome::Changed, Vec::new()),
            Change::AddColumns(columns) => (PutOutcome::Changed, ddl::add_columns(key, &columns)),
        },
    };
    let is_new = outcome == PutOutcome::Created;
    let changed = change_table(&mut transaction, (key, is_new), definition, &statements);
    if let Some(refused) = changed.await? {
        return Ok(refused);
    }
    sqlx::query(
        "INSERT INTO datasets (tenant, name, definition) VALUES ($1, $2, $3)
         ON CONFLICT (tenant, name) DO UPDATE SET definition = excluded.definition, updated_at = now()",
    )
    .bind(key.tenant.as_str())
    .bind(key.name.as_str())
    .bind(Json(definition.to_json()))
    .execute(&mut *transaction)
    .await?;
    let action = Action::putting_dataset(is_new);
    let written = audit::record(&mut transaction, &key.tenant, action, key.name.as_str()).await?;
    transaction.commit().await?;
    written.log();
    Ok(outcome)
}

/// Runs the statements that change the table of a dataset. A table of the user is checked instead.
/// Returns the outcome if the table does not take the definition. A dataset that is not new has a
/// table in the schema of its tenant already.
async fn change_table(
    connection: &mut PgConnection,
    (key, is_new): (&DatasetKey, bool),
    definition: &Definition,
    statements: &[String],
) -> sqlx::Result<Option<PutOutcome>> {
    if let Some(table) = &definition.table {
        schema::keep_out_tenant(connection, table).await?;
        let columns = definition.columns.iter();
        let names: Vec<&str> = columns.map(|column| column.name.as_str()).collect();
        let read = catalog::read(connection, definition, &names).await?;
        return Ok(read.err().map(PutOutcome::Unfit));
    }
    if is_new && let Some(reason) = schema::make(connection, &key.tenant).await? {
        return Ok(Some(PutOutcome::Refused(reason)));
    }
    match run(connection, statements).await {
        Ok(()) => Ok(None),
        Err(error) => match ddl::refusal(&error, &key.tenant) {
            Some(reason) => Ok(Some(PutOutcome::Refused(reason))),
            None => Err(error),
        },
    }
}

async fn delete(connection: &mut PgConnection, key: &DatasetKey) -> sqlx::Result<DeleteOutcome> {
    let mut transaction = connection.begin().await?;
    if lock(&mut transaction, key).await?.is_none() {
        return Ok(DeleteOutcome::Missing);
    }
    // These statements are younger than the lock, so they see every upload that was created before.
    let has_user_table: bool = sqlx::query_scalar(
        "SELECT definition ->> 'table' IS NOT NULL FROM datasets WHERE tenant = $1 AND name = $2",
    )
    .bind(key.tenant.as_str())
    .bind(key.name.as_str())
    .fetch_one(&mut *transaction)
    .await?;
    let has_rows = !has_user_table && has_rows(&mut transaction, key).await?;
    let uses: i64 = sqlx::query_scalar(COUNT_USES)
        .bind(key.tenant.as_str())
        .bind(key.name.as_str())
        .bind(has_rows)
        .fetch_one(&mut *transaction)
        .await?;
    let uploads = sql::count("count(*)", uses)?;
    if uploads > 0 {
        return Ok(DeleteOutcome::InUse { uploads });
    }
    if has_user_table {
        // Uploads that can still be undone may have written millions of rows.
        sqlx::query(MERGE_STATEMENT)
            .execute(&mut *transaction)
            .await?;
        written_rows::delete_of_dataset(&mut transaction, key).await?;
    } else {
        run(&mut transaction, &ddl::delete(key)).await?;
        previous_rows::delete_of_dataset(&mut transaction, key).await?;
    }
    sqlx::query("DELETE FROM datasets WHERE tenant = $1 AND name = $2")
        .bind(key.tenant.as_str())
        .bind(key.name.as_str())
        .execute(&mut *transaction)
        .await?;
    let (tenant, name) = (&key.tenant, key.name.as_str());
    let written = audit::record(&mut transaction, tenant, Action::DeleteDataset, name).await?;
    transaction.commit().await?;
    written.log();
    Ok(DeleteOutcome::Deleted)
}

/// Begins a change of a dataset: locks its record, and returns its definition. No statement of the
/// transaction waits long for a lock.
async fn lock(connection: &mut PgConnection, key: &DatasetKey) -> sqlx::Result<Option<String>> {
    sqlx::query(WAIT_BRIEFLY).execute(&mut *connection).await?;
    sqlx::query(TAKE_TURN)
        .bind(key.to_string())
        .execute(&mut *connection)
        .await?;
    sqlx::query_scalar(
        "SELECT definition::text FROM datasets WHERE tenant = $1 AND name = $2 FOR UPDATE",
    )
    .bind(key.tenant.as_str())
    .bind(key.name.as_str())
    .fetch_optional(connection)
    .await
}

async fn run(connection: &mut PgConnection, statements: &[String]) -> sqlx::Result<()> {
    for statement in statements {
        sqlx::query(statement)
            .persistent(false)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Shares the record of an upload's dataset until the end of the transaction, so that the dataset
/// is not deleted meanwhile. Returns false if the dataset is missing, or does not take the rows.
pub(super) async fn share(
    connection: &mut PgConnection,
    dataset: &UploadDataset,
) -> sqlx::Result<bool> {
    const SHARE: &str =
        "SELECT definition::text FROM datasets WHERE tenant = $1 AND name = $2 FOR SHARE";
    let definition = definition(connection, SHARE, dataset).await?;
    Ok(definition.is_some_and(|definition| rules::takes_rows(&definition, dataset)))
}

/// Whether a dataset takes these rows now. Returns false if it is missing.
pub(super) async fn takes_rows(
    connection: &mut PgConnection,
    dataset: &UploadDataset,
) -> sqlx::Result<bool> {
    let definition = definition(connection, DEFINITION, dataset).await?;
    Ok(definition.is_some_and(|definition| rules::takes_rows(&definition, dataset)))
}

/// The definition of an upload's dataset. It is there until the upload has ended, and later
/// definitions only add columns.
pub(super) async fn definition_of(
    connection: &mut PgConnection,
    dataset: &UploadDataset,
) -> sqlx::Result<Definition> {
    let definition = definition(connection, DEFINITION, dataset).await?;
    definition.ok_or_else(|| sql::invalid("the dataset was deleted"))
}

/// Selects a definition. `$1` and `$2`: the tenant and the name.
const DEFINITION: &str = "SELECT definition::text FROM datasets WHERE tenant = $1 AND name = $2";

async fn definition(
    connection: &mut PgConnection,
    query: &'static str,
    dataset: &UploadDataset,
) -> sqlx::Result<Option<Definition>> {
    let definition: Option<String> = sqlx::query_scalar(query)
        .bind(dataset.tenant.as_str())
        .bind(dataset.name.as_str())
        .fetch_optional(connection)
        .await?;
    definition.as_deref().map(parse).transpose()
}

/// The table that gets the rows of an upload, quoted and with its schema.
pub(super) fn table_of(dataset: &UploadDataset) -> String {
    dataset.postgres_table().quoted()
}

/// Makes other writers of a table of the user wait until the end of the transaction.
pub(super) async fn lock_table_of_user(
    connection: &mut PgConnection,
    table: &TableName,
) -> sqlx::Result<()> {
    run(connection, &ddl::lock_table_of_user(table)).await
}

/// Whether the dataset's table exists and has rows.
async fn has_rows(connection: &mut PgConnection, key: &DatasetKey) -> sqlx::Result<bool> {
    let table = table(key);
    if !exists(connection, &table).await? {
        return Ok(false);
    }
    let query = format!("SELECT EXISTS (SELECT 1 FROM {table})");
    sqlx::query_scalar(&query)
        .persistent(false)
        .fetch_one(connection)
        .await
}

/// Whether a table exists. Its name is in SQL.
async fn exists(connection: &mut PgConnection, table: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(table)
        .fetch_one(connection)
        .await
}

/// Removes rows of an upload from the table of its dataset, unless the table is gone.
pub(super) async fn remove_rows(
    connection: &mut PgConnection,
    dataset: &DatasetKey,
    id: UploadId,
    row_numbers: RangeInclusive<i64>,
) -> sqlx::Result<()> {
    let table = table(dataset);
    if exists(connection, &table).await? {
        let delete =
            format!("DELETE FROM {table} WHERE upload_id = $1 AND row_number BETWEEN $2 AND $3");
        sqlx::query(&delete)
            .persistent(false)
            .bind(id.as_uuid())
            .bind(row_numbers.start())
            .bind(row_numbers.end())
            .execute(connection)
            .await?;
    }
    Ok(())
}
