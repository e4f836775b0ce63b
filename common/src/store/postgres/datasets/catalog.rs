//! Tables of the user, as the catalog of the database describes them.
//!
//! Carga reads the catalog only. It never creates, alters or drops a table of the user.

mod relation;

use sqlx::PgConnection;

use crate::dataset::{ColumnType, Definition, TableFault, UserColumn, UserTable, check_table};

/// The columns of a table. The last four values describe the type below a domain, and the
/// collation. A domain may also refuse NULL or have a default. `$1`: the table.
const COLUMNS: &str = "WITH RECURSIVE based (number, type_id, modifier, is_required) AS (
        SELECT attnum, atttypid, atttypmod, attnotnull FROM pg_attribute
        WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT b.number, t.typbasetype, t.typtypmod, b.is_required OR t.typnotnull
        FROM based b JOIN pg_type t ON t.oid = b.type_id WHERE t.typtype = 'd')
    SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), b.is_required,
           a.atthasdef OR a.attidentity <> '' OR own.typdefault IS NOT NULL,
           a.attgenerated <> '' OR a.attidentity = 'a',
           CASE WHEN t.typtype = 'e' THEN 'enum'
                WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname::text
                ELSE '' END,
           format_type(b.type_id, b.modifier), b.modifier,
           quote_ident(n.nspname) || '.' || quote_ident(l.collname)
    FROM pg_attribute a
    JOIN pg_type own ON own.oid = a.atttypid
    JOIN based b ON b.number = a.attnum
    JOIN pg_type t ON t.oid = b.type_id AND t.typtype <> 'd'
    LEFT JOIN pg_collation l ON l.oid = a.attcollation
    LEFT JOIN pg_namespace n ON n.oid = l.collnamespace
    WHERE a.attrelid = $1::oid
    ORDER BY a.attnum";

/// The columns of each unique index, and whether it is that of the primary key. Partial indexes,
/// indexes on expressions and indexes that do not compare values as the operator `=` does allow two
/// rows with equal values. `$1`: the table.
const UNIQUE_INDEXES: &str = "SELECT i.indisprimary, ARRAY (
            SELECT a.attname::text
            FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS key (number, place)
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = key.number
            WHERE key.place <= i.indnkeyatts ORDER BY key.place)
    FROM pg_index i
    WHERE i.indrelid = $1::oid AND i.indisunique AND i.indisvalid AND NOT i.indisexclusion
      AND i.indexprs IS NULL AND i.indpred IS NULL
      AND NOT EXISTS (
          SELECT FROM unnest(i.indkey::int2[], i.indcollation::oid[], i.indclass::oid[])
              WITH ORDINALITY AS key (number, collation_id, class_id, place)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = key.number
          JOIN pg_opclass o ON o.oid = key.class_id
          WHERE key.place <= i.indnkeyatts
            AND NOT (o.opcdefault AND key.collation_id = a.attcollation))
    ORDER BY i.indexrelid";

/// A table of the user, with the types below its domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::postgres) struct CatalogTable {
    pub(in crate::store::postgres) table: UserTable,
    /// The types of the columns, in the same order.
    types: Vec<StoredType>,
}

/// The type of a column. For a domain, it is the type below the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::postgres) struct StoredType {
    /// The name in the catalog, such as `int4`. It is `enum` for every enumeration, and empty for
    /// other types that Postgres does not have itself.
    pub(in crate::store::postgres) name: String,
    /// The type in SQL, with its length or precision.
    pub(in crate::store::postgres) sql: String,
    /// The length or precision as Postgres keeps it; -1 if the type has none.
    pub(in crate::store::postgres) modifier: i32,
    /// The collation of the column in SQL, if the type has collations.
    pub(in crate::store::postgres) collation: Option<String>,
}

impl CatalogTable {
    /// The column with this name.
    pub(in crate::store::postgres) fn column(
        &self,
        name: &str,
    ) -> Option<(&UserColumn, &StoredType)> {
        let mut columns = self.table.columns.iter().zip(&self.types);
        columns.find(|(column, _)| column.name == name)
    }
}

/// Reads the table of the user that a definition names, and checks that it takes rows with these
/// columns. Returns `None` if the definition names no table.
pub(in crate::store::postgres) async fn read(
    connection: &mut PgConnection,
    definition: &Definition,
    written: &[&str],
) -> sqlx::Result<Result<Option<CatalogTable>, TableFault>> {
    let Some(name) = &definition.table else {
        return Ok(Ok(None));
    };
    let id = match relation::find(connection, name).await? {
        Ok(id) => id,
        Err(fault) => return Ok(Err(fault)),
    };
    let found = describe(connection, id).await?;
    let checked = check_table(definition, &found.table, written);
    Ok(checked.map(|()| Some(found)))
}

/// The name of a column, its type, whether it is required, whether it has a default, whether it is
/// generated, then the fields of [`StoredType`].
type ColumnRecord = (
    String,
    String,
    bool,
    bool,
    bool,
    String,
    String,
    i32,
    Option<String>,
);

async fn describe(connection: &mut PgConnection, id: i64) -> sqlx::Result<CatalogTable> {
    let columns: Vec<ColumnRecord> = sqlx::query_as(COLUMNS)
        .bind(id)
        .fetch_all(&mut *connection)
        .await?;
    let indexes: Vec<(bool, Vec<String>)> = sqlx::query_as(UNIQUE_INDEXES)
        .bind(id)
        .fetch_all(connection)
        .await?;
    let (columns, types) = columns.into_iter().map(column).unzip();
    let (primary, unique): (Vec<_>, Vec<_>) =
        indexes.into_iter().partition(|(is_primary, _)| *is_primary);
    let names = |(_, names): (bool, Vec<String>)| names;
    Ok(CatalogTable {
        table: UserTable {
            columns,
            primary_key: primary.into_iter().next().map(names).unwrap_or_default(),
            unique: unique.into_iter().map(names).collect(),
        },
        types,
    })
}

fn column(record: ColumnRecord) -> (UserColumn, StoredType) {
    let (name, type_name, is_required, has_default, is_generated, ..) = record;
    let (.., base, sql, modifier, collation) = record;
    let column = UserColumn {
        name,
        type_name,
        takes: takes(&base),
        is_required,
        has_default,
        is_generated,
    };
    let stored = StoredType {
        name: base,
        sql,
        modifier,
        collation,
    };
    (column, stored)
}

/// The types of a dataset's column that are converted to a type with this name in the catalog.
fn takes(name: &str) -> Vec<ColumnType> {
    match name {
        "text" | "varchar" | "bpchar" | "enum" => vec![ColumnType::Text],
        "int2" | "int4" | "int8" => vec![ColumnType::Integer],
        "numeric" => vec![ColumnType::Integer, ColumnType::Numeric],
        "float8" => vec![ColumnType::Float],
        "bool" => vec![ColumnType::Boolean],
        "date" => vec![ColumnType::Date],
        "timestamp" | "timestamptz" => vec![ColumnType::Timestamp],
        "uuid" => vec![ColumnType::Uuid],
        "jsonb" => vec![ColumnType::Json],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::postgres::datasets::sql_type;

    #[test]
    fn every_type_of_a_dataset_is_converted_to_the_type_of_carga_s_own_tables() {
        for (kind, name) in [
            (ColumnType::Text, "text"),
            (ColumnType::Integer, "int8"),
            (ColumnType::Numeric, "numeric"),
            (ColumnType::Float, "float8"),
            (ColumnType::Boolean, "bool"),
            (ColumnType::Date, "date"),
            (ColumnType::Timestamp, "timestamptz"),
            (ColumnType::Uuid, "uuid"),
            (ColumnType::Json, "jsonb"),
        ] {
            assert!(takes(name).contains(&kind), "{}", sql_type(kind));
        }
    }

    #[test]
    fn a_type_that_loses_digits_or_the_order_of_keys_is_not_converted() {
        for name in [
            "float4", "json", "money", "timetz", "char", "name", "bytea", "",
        ] {
            assert!(takes(name).is_empty(), "{name}");
        }
    }
}
