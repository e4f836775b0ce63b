//! The schemas of the tenants' tables. The migrations make the schema of the tenant `default`.

use sqlx::PgConnection;

use crate::dataset::{TableName, postgres_schema, quote_identifier, tenant_of_schema};
use crate::tenant::Tenant;

/// The state of a schema, in the order of [`State`]. `$1`: the schema without quotes.
///
/// This reads the catalog as it is now. `to_regnamespace` may have cached that a schema is missing,
/// although another session has made it meanwhile.
const STATE: &str = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1::text),
        ARRAY (SELECT privilege
               FROM pg_namespace n, unnest(ARRAY['USAGE', 'CREATE']) AS privilege
               WHERE n.nspname = $1 AND NOT has_schema_privilege(n.oid, privilege)),
        EXISTS (SELECT FROM datasets WHERE split_part(definition ->> 'table', '.', 1) = $1),
        has_database_privilege(current_database(), 'CREATE'),
        current_database()::text, current_user::text";

/// Lets the puts that concern one schema take turns. The number of the lock differs from that of
/// the changes of a dataset, and each put takes the lock of its dataset first, so that puts cannot
/// deadlock.
const TAKE_TURN: &str = "SELECT pg_advisory_xact_lock(1684108386, hashtext($1))";

/// A schema in the catalog, and the role of Carga.
#[derive(Debug, Clone)]
struct State {
    exists: bool,
    /// The privileges on an existing schema that the role lacks.
    lacking: Vec<String>,
    /// Whether a dataset of any tenant names a table of the user in this schema.
    has_user_table: bool,
    /// Whether the role may make a schema.
    may_create: bool,
    database: String,
    role: String,
}

/// The columns of [`STATE`].
type Found = (bool, Vec<String>, bool, bool, String, String);

/// Makes the schema of a tenant if it is missing, in the transaction that makes the first table.
/// Returns the reason if the tables cannot be in this schema.
///
/// CREATE SCHEMA IF NOT EXISTS needs the privilege even if the schema exists.
pub(super) async fn make(
    connection: &mut PgConnection,
    tenant: &Tenant,
) -> sqlx::Result<Option<String>> {
    let name = postgres_schema(tenant);
    take_turn(connection, &name).await?;
    let state = state(connection, &name).await?;
    let quoted = quote_identifier(&name);
    if let Some(reason) = refusal(&quoted, &state) {
        return Ok(Some(reason));
    }
    if !state.exists {
        let create = format!("CREATE SCHEMA {quoted}");
        sqlx::query(&create)
            .persistent(false)
            .execute(connection)
            .await?;
    }
    Ok(None)
}

/// Begins a put of a dataset with a table of the user. If the table is in the schema of a tenant,
/// new datasets of this tenant wait until the end of the transaction.
pub(super) async fn keep_out_tenant(
    connection: &mut PgConnection,
    table: &TableName,
) -> sqlx::Result<()> {
    match tenant_of_schema(table.schema()) {
        Some(_) => take_turn(connection, table.schema()).await,
        None => Ok(()),
    }
}

async fn take_turn(connection: &mut PgConnection, schema: &str) -> sqlx::Result<()> {
    sqlx::query(TAKE_TURN)
        .bind(schema)
        .execute(connection)
        .await?;
    Ok(())
}

async fn state(connection: &mut PgConnection, schema: &str) -> sqlx::Result<State> {
    let found: Found = sqlx::query_as(STATE)
        .bind(schema)
        .fetch_one(connection)
        .await?;
    let (exists, lacking, has_user_table, may_create, database, role) = found;
    Ok(State {
        exists,
        lacking,
        has_user_table,
        may_create,
        database,
        role,
    })
}

/// The reason why the tables of a tenant cannot be in a schema. `schema` is quoted.
fn refusal(schema: &str, state: &State) -> Option<String> {
    let role = &state.role;
    let (grantee, database) = (quote_identifier(role), quote_identifier(&state.database));
    if state.has_user_table {
        return Some(format!(
            "the table of this dataset needs the schema {schema}, and another dataset names a table of the user in it (`table`); delete that dataset, move its table with ALTER TABLE … SET SCHEMA, and declare the dataset again"
        ));
    }
    if !state.lacking.is_empty() {
        let lacking = state.lacking.join(", ");
        return Some(format!(
            "the table of this dataset needs the schema {schema}, and the role {role} of Carga lacks {lacking} on it; as the owner of the schema, run `GRANT {lacking} ON SCHEMA {schema} TO {grantee}`"
        ));
    }
    (!state.exists && !state.may_create).then(|| {
        format!(
            "the table of this dataset needs the schema {schema}, which does not exist, and the role {role} of Carga lacks the privilege CREATE on the database; as the owner of the database, run `GRANT CREATE ON DATABASE {database} TO {grantee}` for the schemas of all tenants, or `CREATE SCHEMA {schema} AUTHORIZATION {grantee}` for this schema"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = "\"datasets_acme\"";

    fn usable() -> State {
        State {
            exists: true,
            lacking: Vec::new(),
            has_user_table: false,
            may_create: false,
            database: "my db".to_owned(),
            role: "carga app".to_owned(),
        }
    }

    #[test]
    fn a_schema_that_the_role_can_use_or_make_is_not_refused() {
        assert_eq!(refusal(SCHEMA, &usable()), None);
        let missing = State {
            exists: false,
            may_create: true,
            ..usable()
        };
        assert_eq!(refusal(SCHEMA, &missing), None);
    }

    #[test]
    fn the_refusal_of_a_missing_schema_has_both_statements_that_help() {
        let missing = State {
            exists: false,
            ..usable()
        };
        let reason = refusal(SCHEMA, &missing).unwrap();
        for statement in [
            "run `GRANT CREATE ON DATABASE \"my db\" TO \"carga app\"`",
            "or `CREATE SCHEMA \"datasets_acme\" AUTHORIZATION \"carga app\"`",
        ] {
            assert!(reason.contains(statement), "{reason}");
        }
    }

    #[test]
    fn the_refusal_of_a_schema_without_privileges_has_the_grant_that_helps() {
        let closed = State {
            lacking: vec!["USAGE".to_owned(), "CREATE".to_owned()],
            ..usable()
        };
        let reason = refusal(SCHEMA, &closed).unwrap();
        let grant = "run `GRANT USAGE, CREATE ON SCHEMA \"datasets_acme\" TO \"carga app\"`";
        assert!(reason.ends_with(grant), "{reason}");
    }

    #[test]
    fn a_schema_with_a_table_of_the_user_is_refused_before_anything_else() {
        let of_user = State {
            has_user_table: true,
            lacking: vec!["CREATE".to_owned()],
            ..usable()
        };
        let reason = refusal(SCHEMA, &of_user).unwrap();
        for part in [
            SCHEMA,
            "names a table of the user",
            "ALTER TABLE … SET SCHEMA",
        ] {
            assert!(reason.contains(part), "{reason}");
        }
    }
}
