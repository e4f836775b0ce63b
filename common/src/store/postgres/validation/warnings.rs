//! The properties of a table that a user should know before an upload into it.

use sqlx::PgConnection;

use crate::dataset::Mode;
use crate::store::TrialWarning;
use crate::store::postgres::datasets::table_of;
use crate::store::postgres::merging::Deadline;
use crate::store::postgres::table_rows::constraints::events;
use crate::store::postgres::written_rows::RowIdentity;
use crate::upload::UploadDataset;

/// The triggers of a table and of its partitions that run before each row. In `tgtype`, 1 stands
/// for triggers FOR EACH ROW, 2 for BEFORE and 64 for INSTEAD OF. `$1` and `$2`: the table, and the
/// events of triggers.
const ROW_TRIGGERS: &str = "WITH RECURSIVE part (id) AS (
        SELECT to_regclass($1)::oid
        UNION
        SELECT i.inhrelid FROM part JOIN pg_inherits i ON i.inhparent = part.id)
    SELECT DISTINCT t.tgname::text
    FROM part JOIN pg_trigger t ON t.tgrelid = part.id
    WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
      AND t.tgtype::int & 1 = 1 AND t.tgtype::int & 66 <> 0 AND t.tgtype::int & $2 <> 0
    ORDER BY 1";

/// The columns that are not written and whose default calls a volatile function. The default may be
/// that of a domain. Postgres makes an exception for `nextval`. It does not record on which of its
/// own functions a default depends, so these functions are read from the expression. `$1` and `$2`:
/// the table, and the written columns.
const VOLATILE_DEFAULTS: &str = "SELECT a.attname::text
    FROM pg_attribute a
    JOIN pg_type k ON k.oid = a.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
      AND a.attgenerated = '' AND a.attidentity = '' AND a.attname::text <> ALL ($2)
      AND EXISTS (
          SELECT FROM regexp_matches(coalesce(d.adbin, k.typdefaultbin)::text,
                                     ':(?:op)?funcid ([0-9]+)', 'g') AS called (ids)
          JOIN pg_proc p ON p.oid = (called.ids)[1]::oid
          WHERE p.provolatile = 'v' AND p.oid <> 'pg_catalog.nextval(regclass)'::regprocedure)
    ORDER BY a.attnum";

/// The warnings about the table of a dataset, which is locked.
pub(super) async fn of(
    connection: &mut PgConnection,
    dataset: &UploadDataset,
    deadline: Deadline,
) -> sqlx::Result<Vec<TrialWarning>> {
    let table = dataset.postgres_table().to_string();
    deadline.limit_statements(connection).await?;
    let triggers = row_triggers(connection, dataset, &table).await?;
    deadline.limit_statements(connection).await?;
    let defaults = volatile_defaults(connection, dataset, &table).await?;
    deadline.limit_statements(connection).await?;
    let not_reversible = not_reversible(connection, dataset, &table).await?;
    let found = [triggers, defaults, not_reversible];
    Ok(found.into_iter().flatten().collect())
}

async fn row_triggers(
    connection: &mut PgConnection,
    dataset: &UploadDataset,
    table: &str,
) -> sqlx::Result<Option<TrialWarning>> {
    let mode = dataset.merge.as_ref().map_or(Mode::Append, |it| it.mode);
    let triggers: Vec<String> = sqlx::query_scalar(ROW_TRIGGERS)
        .bind(table_of(dataset))
        .bind(events(mode))
        .fetch_all(connection)
        .await?;
    Ok(list(&triggers).map(|triggers| TrialWarning {
        code: "row_triggers".into(),
        message: format!(
            "table {table} has triggers that run before each row ({triggers}), so Postgres stores the rows one at a time; expect a slower upload"
        ),
    }))
}

async fn volatile_defaults(
    connection: &mut PgConnection,
    dataset: &UploadDataset,
    table: &str,
) -> sqlx::Result<Option<TrialWarning>> {
    let columns: Vec<String> = sqlx::query_scalar(VOLATILE_DEFAULTS)
        .bind(table_of(dataset))
        .bind(dataset.written_names())
        .fetch_all(connection)
        .await?;
    Ok(list(&columns).map(|columns| TrialWarning {
        code: "volatile_defaults".into(),
        message: format!(
            "table {table} has columns that the file lacks and whose default Postgres computes for each row ({columns}), so Postgres stores the rows one at a time; expect a slower upload"
        ),
    }))
}

/// A row of a table of the user is found again by its primary key.
async fn not_reversible(
    connection: &mut PgConnection,
    dataset: &UploadDataset,
    table: &str,
) -> sqlx::Result<Option<TrialWarning>> {
    let Some(name) = &dataset.table else {
        return Ok(None);
    };
    let identity = RowIdentity::read(connection, name).await?;
    Ok(identity.is_none().then(|| TrialWarning {
        code: "not_reversible".into(),
        message: format!(
            "table {table} has no primary key, so an upload into it cannot be undone; give the table a primary key"
        ),
    }))
}

/// The names of a list that is not empty.
fn list(names: &[String]) -> Option<String> {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    (!quoted.is_empty()).then(|| quoted.join(", "))
}
