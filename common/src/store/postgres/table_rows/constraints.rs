//! What the catalogue says about the constraints of a table.
//!
//! The conditions here must hold for violating rows only. A condition that misses a violating row
//! costs time, since the row is then found by `splitting`.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::fault::Fault;
use crate::dataset::{Mode, TypedColumn, quote_identifier};
use crate::store::postgres::datasets::{sql_type, table_of};
use crate::store::postgres::savepoint;
use crate::upload::UploadDataset;

/// The name of a staged row's table in conditions.
pub(in crate::store::postgres) const STAGED: &str = "s";

/// How the rows that violate a constraint are found among the staged rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::postgres) enum Search {
    /// The rows for which this SQL condition is true.
    Condition(String),
    /// The rows with a partner that has the same values in these columns. The names are quoted.
    Partner(Vec<String>),
}

/// Whether a row that is read from the staging table is the same as a row that is sent by COPY. So
/// no rule or trigger changes it, and the columns have the types of the definition.
///
/// `$1` to `$4`: the table, the names of its columns, their types, and the events of triggers. In
/// `tgtype`, 1 stands for triggers FOR EACH ROW. Those that run afterwards may refuse a row, too.
const IS_PLAIN: &str = "SELECT NOT c.relhasrules AND c.relkind = 'r'
        AND NOT EXISTS (
            SELECT FROM pg_trigger t
            WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D'
              AND t.tgtype::int & 1 = 1 AND t.tgtype::int & $4 <> 0)
        AND NOT EXISTS (
            SELECT FROM unnest($2::text[], $3::text[]) AS declared (name, kind)
            WHERE NOT EXISTS (
                SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                WHERE a.attrelid = c.oid AND a.attname = declared.name AND NOT a.attisdropped
                  AND t.oid = to_regtype(declared.kind) AND a.atttypmod = -1
                  AND a.attcollation = t.typcollation))
    FROM pg_class c WHERE c.oid = to_regclass($1)";

/// The only column of a constraint or unique index. An expression has no name. `$1` and `$2`: the
/// table, and the name of the constraint or index.
const ONLY_COLUMN: &str = "SELECT a.attname::text
    FROM (SELECT conkey AS keys FROM pg_constraint WHERE conrelid = to_regclass($1) AND conname = $2
          UNION ALL
          SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1]
          FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
          WHERE i.indrelid = to_regclass($1) AND c.relname = $2) AS of_name
    JOIN pg_attribute a ON a.attrelid = to_regclass($1) AND a.attnum = ALL (keys)
    WHERE cardinality(keys) = 1 AND a.attnum > 0 LIMIT 1";

/// Whether a column has no default. `$1` and `$2`: the table and the column.
const HAS_NO_DEFAULT: &str = "SELECT NOT atthasdef AND attidentity = ''
    FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2";

/// The condition of a CHECK, and the columns in it. `$1` and `$2`: the table and the constraint.
const CHECK: &str = "SELECT pg_get_expr(conbin, conrelid), ARRAY (
        SELECT attname::text FROM pg_attribute WHERE attrelid = conrelid AND attnum = ANY (conkey))
    FROM pg_constraint
    WHERE conrelid = to_regclass($1) AND conname = $2 AND contype = 'c'";

/// The columns of a unique index in which NULLs are distinct, each with whether the index compares
/// its values as the operator `=` does. Postgres 14 does not know other NULLs, so their property is
/// read from JSON. `$1` and `$2`: the table and the index.
const UNIQUE_KEY: &str =
    "SELECT a.attname::text, o.opcdefault AND key.collation_id = a.attcollation
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    CROSS JOIN unnest(i.indkey::int2[], i.indcollation::oid[], i.indclass::oid[])
        WITH ORDINALITY AS key (number, collation_id, class_id, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = key.number
    JOIN pg_opclass o ON o.oid = key.class_id
    WHERE i.indrelid = to_regclass($1) AND c.relname = $2
      AND i.indisunique AND NOT i.indisexclusion AND i.indexprs IS NULL AND i.indpred IS NULL
      AND NOT coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false)
      AND key.place <= i.indnkeyatts
    ORDER BY key.place";

/// The columns of a foreign key to another table. Each row has the schema and the name of the other
/// table, the column, its partner in the other table, and whether both columns have the same type.
/// Policies hide rows of the other table from Carga, but not from the constraint. `$1` and `$2`:
/// the table and the constraint.
const FOREIGN_KEY: &str =
    "SELECT n.nspname::text, p.relname::text, a.attname::text, b.attname::text,
           a.atttypid = b.atttypid AND a.attcollation = b.attcollation
    FROM pg_constraint f
    JOIN pg_class p ON p.oid = f.confrelid
    JOIN pg_namespace n ON n.oid = p.relnamespace
    CROSS JOIN unnest(f.conkey, f.confkey) WITH ORDINALITY AS key (number, partner, place)
    JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = key.number
    JOIN pg_attribute b ON b.attrelid = f.confrelid AND b.attnum = key.partner
    WHERE f.conrelid = to_regclass($1) AND f.conname = $2 AND f.contype = 'f'
      AND f.confmatchtype = 's' AND f.confrelid <> f.conrelid AND NOT p.relrowsecurity
    ORDER BY key.place";

/// The events of triggers in `tgtype`.
pub(in crate::store::postgres) const INSERT: i32 = 4;
const INSERT_OR_UPDATE: i32 = 4 | 16;

/// The events of a merge in this mode.
pub(in crate::store::postgres) fn events(mode: Mode) -> i32 {
    match mode {
        Mode::Update => INSERT_OR_UPDATE,
        Mode::Append | Mode::Ignore => INSERT,
    }
}

/// Whether rows can be stored from the staging table as they would be by COPY. `events` are the
/// events whose triggers could change them.
pub(in crate::store::postgres) async fn is_plain(
    connection: &mut PgConnection,
    dataset: &UploadDataset,
    events: i32,
) -> sqlx::Result<bool> {
    // The staged rows of a table of the user have the types of that table.
    let declared: &[TypedColumn] = match dataset.table {
        Some(_) => &[],
        None => &dataset.columns,
    };
    let names: Vec<String> = declared.iter().map(|it| it.name.clone()).collect();
    let kinds: Vec<&'static str> = declared.iter().map(|it| sql_type(it.kind)).collect();
    let is_plain: Option<bool> = sqlx::query_scalar(IS_PLAIN)
        .bind(table_of(dataset))
        .bind(names)
        .bind(kinds)
        .bind(events)
        .fetch_optional(connection)
        .await?;
    Ok(is_plain.unwrap_or(false))
}

/// The only column of each constraint or unique index that was looked up.
#[derive(Debug, Default)]
pub(in crate::store::postgres) struct OnlyColumns(HashMap<String, Option<String>>);

impl OnlyColumns {
    /// Ends an attempt as [`savepoint::settle`] does. The fault names the column, if the constraint
    /// has only one.
    pub(in crate::store::postgres) async fn settle<T>(
        &mut self,
        connection: &mut PgConnection,
        outcome: sqlx::Result<T>,
        dataset: &UploadDataset,
    ) -> sqlx::Result<Result<T, Fault>> {
        let mut settled = savepoint::settle(connection, outcome, dataset).await?;
        if let Err(fault) = &mut settled {
            self.name(connection, dataset, fault).await?;
        }
        Ok(settled)
    }

    /// Sets the column at fault if the server does not name one and the constraint has only one.
    pub(in crate::store::postgres) async fn name(
        &mut self,
        connection: &mut PgConnection,
        dataset: &UploadDataset,
        fault: &mut Fault,
    ) -> sqlx::Result<()> {
        let Fault {
            violation,
            is_of_table,
            ..
        } = fault;
        let (None, Some(constraint), true) =
            (&violation.column, &violation.constraint, *is_of_table)
        else {
            return Ok(());
        };
        let known = match self.0.get(constraint) {
            Some(known) => known.clone(),
            None => {
                let found = only_column(connection, dataset, constraint).await?;
                self.0.insert(constraint.clone(), found.clone());
                found
            }
        };
        violation.column = known;
        Ok(())
    }
}

async fn only_column(
    connection: &mut PgConnection,
    dataset: &UploadDataset,
    constraint: &str,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar(ONLY_COLUMN)
        .bind(table_of(dataset))
        .bind(constraint)
        .fetch_optional(connection)
        .await
}

/// How all staged rows that violate the same constraint are found. `None` if they must be found one
/// by one.
pub(in crate::store::postgres) async fn search(
    connection: &mut PgConnection,
    dataset: &UploadDataset,
    fault: &Fault,
) -> sqlx::Result<Option<Search>> {
    if !fault.is_of_table {
        return Ok(None);
    }
    let violation = &fault.violation;
    let condition = match (violation.code, &violation.column, &violation.constraint) {
        ("not_null_violation", Some(column), _) => null(connection, dataset, column).await?,
        ("check_violation", _, Some(name)) => check(connection, dataset, name).await?,
        ("foreign_key_violation", _, Some(name)) => orphan(connection, dataset, name).await?,
        ("unique_violation", _, Some(name)) => {
            let key = unique_key(connection, dataset, name).await?;
            return Ok(key.map(Search::Partner));
        }
        _ => None,
    };
    Ok(condition.map(Search::Condition))
}

/// The quoted names of the columns of a unique index, if rows with the same value are found by `=`.
async fn unique_key(
    connection: &mut PgConnection,
    dataset: &UploadDataset,
    index: &str,
) -> sqlx::Result<Option<Vec<String>>> {
    let key: Vec<(String, bool)> = sqlx::query_as(UNIQUE_KEY)
        .bind(table_of(dataset))
        .bind(index)
        .fetch_all(connection)
        .await?;
    let is_usable = |(name, is_usual): &(String, bool)| *is_usual && is_staged(dataset, name);
    let is_usable = !key.is_empty() && key.iter().all(is_usable);
    let names = key.iter().map(|(name, _)| quote_identifier(name));
    Ok(is_usable.then(|| names.collect()))
}

/// Whether the column is NULL. A column that the dataset lacks has its default in every row.
async fn null(
    connection: &mut PgConnection,
    dataset: &UploadDataset,
    column: &str,
) -> sqlx::Result<Option<String>> {
    if dataset.columns.iter().any(|known| known.name == column) {
        return Ok(Some(format!("{} IS NULL", staged(column))));
    }
    let is_null: Option<bool> = sqlx::query_scalar(HAS_NO_DEFAULT)
        .bind(table_of(dataset))
        .bind(column)
        .fetch_optional(connection)
        .await?;
    Ok((is_null == Some(true)).then(|| "true".to_owned()))
}

async fn check(
    connection: &mut PgConnection,
    dataset: &UploadDataset,
    constraint: &str,
) -> sqlx::Result<Option<String>> {
    let check: Option<(String, Vec<String>)> = sqlx::query_as(CHECK)
        .bind(table_of(dataset))
        .bind(constraint)
        .fetch_optional(connection)
        .await?;
    let check = check.filter(|(_, columns)| columns.iter().all(|name| is_staged(dataset, name)));
    Ok(check.map(|(expression, _)| format!("NOT ({expression})")))
}

/// Whether the other table has no row that a foreign key refers to.
async fn orphan(
    connection: &mut PgConnection,
    dataset: &UploadDataset,
    constraint: &str,
) -> sqlx::Result<Option<String>> {
    let key: Vec<(String, String, String, String, bool)> = sqlx::query_as(FOREIGN_KEY)
        .bind(table_of(dataset))
        .bind(constraint)
        .fetch_all(connection)
        .await?;
    let Some((schema, other, ..)) = key.first() else {
        return Ok(None);
    };
    let mut pairs = key.iter();
    if !pairs.all(|(.., column, _, has_same_type)| *has_same_type && is_staged(dataset, column)) {
        return Ok(None);
    }
    let other = format!("{}.{}", quote_identifier(schema), quote_identifier(other));
    let columns = key
        .iter()
        .map(|(_, _, column, partner, _)| (column, partner));
    let not_null = columns
        .clone()
        .map(|(column, _)| format!("{} IS NOT NULL", staged(column)));
    let equal = columns
        .map(|(column, partner)| format!("p.{} = {}", quote_identifier(partner), staged(column)));
    Ok(Some(format!(
        "{} AND NOT EXISTS (SELECT FROM {other} AS p WHERE {})",
        all(not_null),
        all(equal)
    )))
}

/// Joins conditions that must all be true.
pub(in crate::store::postgres) fn all(conditions: impl Iterator<Item = String>) -> String {
    let conditions: Vec<String> = conditions.collect();
    conditions.join(" AND ")
}

/// A column of a staged row.
fn staged(column: &str) -> String {
    format!("{STAGED}.{}", quote_identifier(column))
}

/// Whether staged rows have a column of the table. A table of the user may have other columns,
/// whose names are those of Carga's columns in staged rows.
fn is_staged(dataset: &UploadDataset, column: &str) -> bool {
    dataset.table.is_none() || dataset.written_names().contains(&column)
}
