//! Whether a name is that of a table into which Carga may write.

use sqlx::PgConnection;

use crate::dataset::{TableFault, TableName, quote_identifier, tenant_of_schema};
use crate::tenant::Tenant;

/// The tables that the migrations create, and the table in which sqlx records the migrations. All
/// of them are in one schema.
const OWN_TABLES: &[&str] = &[
    "_sqlx_migrations",
    "api_keys",
    "audit_log",
    "batches",
    "datasets",
    "idempotency_keys",
    "installation",
    "landing",
    "landing_rest",
    "parked_batches",
    "previous_rows",
    "rejected_rows",
    "rows",
    "tenant_usage",
    "token_secrets",
    "token_uses",
    "upload_event_positions",
    "upload_events",
    "upload_holds",
    "upload_leases",
    "uploads",
    "written_rows",
];

/// The relation with a name. Rules may replace the statements of a merge with others. `$1` to `$3`:
/// the schema, the name, and the names of Carga's tables. `$4`: the tenant whose tables would be in
/// this schema. The migrations make the schema of the tenant `default`. Any other schema is that of
/// a tenant only if the tenant has datasets with tables of their own.
const FIND: &str = "SELECT c.oid::bigint, c.relkind::text, c.relpersistence = 't',
        $4::text IS NOT DISTINCT FROM 'default'
            OR EXISTS (SELECT FROM datasets d WHERE d.tenant = $4 AND d.definition ->> 'table' IS NULL)
            OR c.relnamespace = own.relnamespace AND c.relname = ANY ($3)
            OR EXISTS (SELECT FROM pg_inherits i
                       WHERE i.inhrelid = c.oid AND i.inhparent = 'landing'::regclass),
        row_security_active(c.oid),
        EXISTS (SELECT FROM pg_rewrite r
                WHERE r.ev_class = c.oid AND r.ev_type IN ('2', '3', '4') AND r.ev_enabled <> 'D'),
        EXISTS (
            WITH RECURSIVE part (id) AS (
                SELECT c.oid
                UNION
                SELECT i.inhrelid FROM part JOIN pg_inherits i ON i.inhparent = part.id)
            SELECT FROM part JOIN pg_class p ON p.oid = part.id WHERE p.relkind = 'f'),
        c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid)
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class own ON own.oid = 'uploads'::regclass
    WHERE n.nspname = $1 AND c.relname = $2";

/// The role of Carga, the schemas of a table and of the types of its columns that it may not use,
/// the privileges on the table that it lacks, and the sequences of defaults that it may not use. A
/// merge and an undo name these types. `$1`: the table.
const PRIVILEGES: &str = "SELECT current_user::text,
        ARRAY (SELECT n.nspname::text FROM pg_namespace n
               WHERE NOT has_schema_privilege(n.oid, 'USAGE')
                 AND (n.oid = c.relnamespace OR n.oid IN (
                     SELECT t.typnamespace FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped))
               ORDER BY 1),
        ARRAY (SELECT privilege
               FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
               WHERE NOT has_table_privilege(c.oid, privilege)),
        ARRAY (SELECT DISTINCT quote_ident(n.nspname) || '.' || quote_ident(s.relname)
               FROM pg_attrdef d
               JOIN pg_depend e ON e.classid = 'pg_attrdef'::regclass AND e.objid = d.oid
                   AND e.refclassid = 'pg_class'::regclass
               JOIN pg_class s ON s.oid = e.refobjid
               JOIN pg_namespace n ON n.oid = s.relnamespace
               WHERE d.adrelid = c.oid
                 -- The function refuses other relations, and AND has no order.
                 AND CASE s.relkind WHEN 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE, UPDATE')
                                    ELSE false END
               ORDER BY 1)
    FROM pg_class c WHERE c.oid = $1::oid";

/// A relation in the catalog.
#[derive(Debug)]
struct Relation {
    id: i64,
    /// `relkind` of the catalog.
    kind: String,
    is_temporary: bool,
    /// Whether it belongs to Carga.
    is_own: bool,
    /// Whether row level security applies to the role of Carga.
    has_policies: bool,
    has_rules: bool,
    has_foreign_parts: bool,
    /// Whether other tables inherit from it, which are not partitions.
    has_children: bool,
}

/// Finds a table into which Carga may write. Returns its number in the catalog.
pub(super) async fn find(
    connection: &mut PgConnection,
    name: &TableName,
) -> sqlx::Result<Result<i64, TableFault>> {
    let tenant = tenant_of_schema(name.schema());
    let relation = relation(connection, name, tenant.as_ref()).await?;
    if tenant.is_some() && relation.as_ref().is_none_or(|relation| relation.is_own) {
        return Ok(Err(of_tenant(name)));
    }
    let Some(relation) = relation else {
        return Ok(Err(not_found(name)));
    };
    if let Some(reason) = refusal(name, &relation) {
        return Ok(Err(TableFault::new("table_kind", reason)));
    }
    let fault = lacking(connection, name, relation.id).await?;
    Ok(fault.map_or(Ok(relation.id), Err))
}

/// The columns of [`FIND`], in the order of [`Relation`].
type Found = (i64, String, bool, bool, bool, bool, bool, bool);

async fn relation(
    connection: &mut PgConnection,
    name: &TableName,
    tenant: Option<&Tenant>,
) -> sqlx::Result<Option<Relation>> {
    let found: Option<Found> = sqlx::query_as(FIND)
        .bind(name.schema())
        .bind(name.name())
        .bind(OWN_TABLES)
        .bind(tenant.map(Tenant::as_str))
        .fetch_optional(connection)
        .await?;
    let relation = |found: Found| Relation {
        id: found.0,
        kind: found.1,
        is_temporary: found.2,
        is_own: found.3,
        has_policies: found.4,
        has_rules: found.5,
        has_foreign_parts: found.6,
        has_children: found.7,
    };
    Ok(found.map(relation))
}

fn not_found(name: &TableName) -> TableFault {
    let message = format!(
        "there is no table {name} in the database of Carga; create it, or correct the name, in which upper and lower case differ"
    );
    TableFault::new("table_not_found", message)
}

/// The fault of a name in the schema of a tenant. It is the same whether the table exists or not,
/// so that others cannot find out which datasets the tenant has.
fn of_tenant(name: &TableName) -> TableFault {
    let message = format!(
        "{name} belongs to Carga or does not exist; name a table of your own in another schema, or leave out `table`"
    );
    TableFault::new("table_kind", message)
}

/// The reason why no rows go into a relation, whatever its columns are.
fn refusal(name: &TableName, relation: &Relation) -> Option<String> {
    if relation.is_temporary {
        return Some(format!(
            "{name} is a temporary table, which only one connection sees; name a permanent table"
        ));
    }
    let is_of_postgres = name.schema().starts_with("pg_") || name.schema() == "information_schema";
    if relation.is_own || is_of_postgres {
        return Some(format!(
            "{name} belongs to Carga or to Postgres; name a table of your own, or leave out `table`"
        ));
    }
    let kind = match relation.kind.as_str() {
        "r" | "p" => None,
        "v" => Some("a view"),
        "m" => Some("a materialized view"),
        "f" => Some("a foreign table"),
        "S" => Some("a sequence"),
        "i" | "I" => Some("an index"),
        "c" => Some("a type"),
        _ => Some("not a table"),
    };
    if let Some(kind) = kind {
        return Some(format!("{name} is {kind}; name a table of this database"));
    }
    if relation.has_foreign_parts {
        return Some(format!(
            "a part of table {name} is a foreign table, and its rows could not be stored in the same transaction; name a table of this database"
        ));
    }
    if relation.has_children {
        return Some(format!(
            "other tables inherit from table {name}, and its unique indexes do not cover their rows; name a table without child tables, or use partitions"
        ));
    }
    if relation.has_rules {
        return Some(format!(
            "table {name} has rules, which replace the statements that write into it; use triggers instead of rules"
        ));
    }
    relation.has_policies.then(|| {
        format!(
            "row level security of table {name} applies to the role of Carga, which must see all rows; connect Carga with a role that has BYPASSRLS"
        )
    })
}

/// The columns of [`PRIVILEGES`].
type Lacking = (String, Vec<String>, Vec<String>, Vec<String>);

/// The fault of a table for which the role of Carga lacks privileges.
async fn lacking(
    connection: &mut PgConnection,
    name: &TableName,
    id: i64,
) -> sqlx::Result<Option<TableFault>> {
    let found: Option<Lacking> = sqlx::query_as(PRIVILEGES)
        .bind(id)
        .fetch_optional(connection)
        .await?;
    let Some((role, schemas, privileges, sequences)) = found else {
        return Ok(Some(not_found(name)));
    };
    let mut lacking = Vec::new();
    for schema in schemas {
        lacking.push(format!("USAGE ON SCHEMA {}", quote_identifier(&schema)));
    }
    if !privileges.is_empty() {
        lacking.push(format!("{} ON {}", privileges.join(", "), name.quoted()));
    }
    for sequence in sequences {
        lacking.push(format!("USAGE ON SEQUENCE {sequence}"));
    }
    if lacking.is_empty() {
        return Ok(None);
    }
    let grants = lacking.iter();
    let grants: Vec<String> = grants
        .map(|privileges| format!("`GRANT {privileges} TO {}`", quote_identifier(&role)))
        .collect();
    let message = format!(
        "the role {role} of Carga lacks privileges for table {name}; run {}",
        grants.join(" and ")
    );
    Ok(Some(TableFault::new("table_permission", message)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::postgres::MIGRATIONS;

    /// The names in the statements of a migration that make a table.
    fn made(sql: &str) -> impl Iterator<Item = &str> {
        let made = sql.lines().filter_map(|line| {
            let name = line.strip_prefix("CREATE TABLE ")?;
            name.split([' ', '(']).next()
        });
        made.filter(|name| !name.is_empty())
    }

    #[test]
    fn no_table_of_a_migration_is_taken_for_a_table_of_the_user() {
        let mut count = 0;
        for (version, _, sql) in MIGRATIONS {
            for name in made(sql) {
                assert!(OWN_TABLES.contains(&name), "{name} of migration {version}");
                count += 1;
            }
        }
        assert_eq!(count, OWN_TABLES.len() - 1);
    }
}
