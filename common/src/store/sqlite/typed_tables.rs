//! The SQL of a dataset's table and view.
//!
//! The rows of an upload are together and in order, without an index, because `_carga_id` consists
//! of the number of the upload and the number of the row, like `id` in `rows`. A name from outside
//! is quoted by [`quote_identifier`], so SQLite reads it only as a name.

use sqlx::SqliteConnection;

use super::previous_rows;
use crate::dataset::{ColumnType, DatasetKey, Definition, TypedColumn, quote_identifier};
use crate::typed::sqlite_value;
use crate::upload::UploadDataset;

/// The name of a dataset's table in SQL.
pub(super) fn table(dataset: &DatasetKey) -> String {
    quote_identifier(&dataset.sqlite_table())
}

fn view(dataset: &DatasetKey) -> String {
    quote_identifier(&dataset.sqlite_view())
}

/// Whether the dataset's table exists.
pub(super) async fn exists(
    connection: &mut SqliteConnection,
    dataset: &DatasetKey,
) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = $1)",
    )
    .bind(dataset.sqlite_table())
    .fetch_one(connection)
    .await
}

/// Whether the dataset's table exists and has rows.
pub(super) async fn has_rows(
    connection: &mut SqliteConnection,
    dataset: &DatasetKey,
) -> sqlx::Result<bool> {
    if !exists(connection, dataset).await? {
        return Ok(false);
    }
    let query = format!("SELECT EXISTS (SELECT 1 FROM {})", table(dataset));
    sqlx::query_scalar(&query)
        .persistent(false)
        .fetch_one(connection)
        .await
}

/// SQLite's names for the id of a row. A new table may have columns of these names, but they cannot
/// be added later.
const ROW_ID_NAMES: [&str; 3] = ["rowid", "oid", "_rowid_"];

/// The name of a column that SQLite cannot add to a table.
pub(super) fn cannot_be_added(columns: &[TypedColumn]) -> Option<&str> {
    let mut names = columns.iter().map(|column| column.name.as_str());
    names.find(|name| {
        let mut taken = ROW_ID_NAMES.iter();
        taken.any(|taken| name.eq_ignore_ascii_case(taken))
    })
}

/// The statements that create the table and the view.
///
/// The table is not STRICT, although it has only types of strict tables. SQLite reads a strict
/// table from its beginning to its end when it adds a column, and no upload can store a row
/// meanwhile. In this table, the affinity of a column converts canonical texts to the same values.
///
/// SQLite names the index of the key, because a name given here could be that of the table of
/// another dataset.
pub(super) fn create(dataset: &DatasetKey, definition: &Definition) -> [String; 2] {
    let mut columns = String::new();
    for column in &definition.columns {
        columns += &declaration(&column.typed());
        columns += if column.required { " NOT NULL, " } else { ", " };
    }
    let key: Vec<String> = definition
        .key
        .iter()
        .map(|name| quote_identifier(name))
        .collect();
    let key = match &key[..] {
        [] => String::new(),
        key => format!(", UNIQUE ({})", key.join(", ")),
    };
    let table = format!(
        "CREATE TABLE {} (_carga_id integer PRIMARY KEY, {columns}upload_id text NOT NULL,
             row_number integer GENERATED ALWAYS AS (_carga_id & 0xfffffffff) VIRTUAL{key})",
        table(dataset)
    );
    [table, create_view(dataset, definition)]
}

/// The statements that add columns to the table. The view is created again, since SQLite cannot
/// change a view.
pub(super) fn add_columns(
    dataset: &DatasetKey,
    added: &[TypedColumn],
    definition: &Definition,
) -> Vec<String> {
    let add = |column| {
        let (table, column) = (table(dataset), declaration(column));
        format!("ALTER TABLE {table} ADD COLUMN {column}")
    };
    let mut statements = vec![format!("DROP VIEW IF EXISTS {}", view(dataset))];
    statements.extend(added.iter().map(add));
    statements.push(create_view(dataset, definition));
    statements
}

/// The statements that drop the view and the table. An operator may have dropped them already.
pub(super) fn drop(dataset: &DatasetKey) -> [String; 2] {
    [
        format!("DROP VIEW IF EXISTS {}", view(dataset)),
        format!("DROP TABLE IF EXISTS {}", table(dataset)),
    ]
}

/// Shows the rows of uploads that ended well and have not expired. The rows of merged uploads stay
/// in the table when these expire.
fn create_view(dataset: &DatasetKey, definition: &Definition) -> String {
    let mut columns = String::new();
    for column in &definition.columns {
        columns += &format!("t.{}, ", quote_identifier(&column.name));
    }
    format!(
        "CREATE VIEW {} AS
         SELECT {columns}u.id AS upload_id, t.row_number
         FROM uploads u
         JOIN {} t ON t._carga_id BETWEEN u.number << 36 AND (u.number << 36) + 0xfffffffff
         WHERE u.status IN ('completed', 'partial')
           AND (u.expired_at IS NULL OR u.dataset ->> 'merge' IS NOT NULL)",
        view(dataset),
        table(dataset)
    )
}

/// A column's name and type.
fn declaration(column: &TypedColumn) -> String {
    let name = quote_identifier(&column.name);
    format!("{name} {}", type_name(column.kind))
}

/// The declared type of a column.
pub(super) fn type_name(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Integer | ColumnType::Boolean => "INTEGER",
        ColumnType::Float => "REAL",
        ColumnType::Text
        | ColumnType::Numeric
        | ColumnType::Date
        | ColumnType::Timestamp
        | ColumnType::Uuid
        | ColumnType::Json => "TEXT",
    }
}

/// Inserts a run of rows. `$1` to `$3` are those of the same statement for `rows`: the id of the
/// first row, all rows as JSON, and the span of each row. `$4` is the upload.
///
/// `OR ABORT` overrides the conflict clauses of an operator's constraints. With `ON CONFLICT
/// IGNORE` or `REPLACE`, rows would be lost without a trace.
///
/// A subquery with an OFFSET is not merged into the outer query, but runs as a co-routine
/// (<https://www.sqlite.org/optoverview.html#subquery_flattening>). A merged subquery would copy
/// the JSON of a row for each of its columns, which takes 1.5 times as long for 19 columns.
pub(super) fn insert_rows(dataset: &UploadDataset) -> String {
    let (mut columns, mut values) = (String::new(), String::new());
    for (index, column) in dataset.columns.iter().enumerate() {
        columns += &format!(", {}", quote_identifier(&column.name));
        values += &format!(", {}", sqlite_value(column.kind, index));
    }
    format!(
        "INSERT OR ABORT INTO {} (_carga_id, upload_id{columns})
         SELECT id, $4{values}
         FROM (SELECT $1 + key AS id, CAST(substr($2, value >> 32, value & 0xffffffff) AS TEXT) AS value
               FROM json_each($3) LIMIT -1 OFFSET 0)",
        table(&dataset.key())
    )
}

/// Selects rows of an upload in their order: the row number and the upload's columns. `$1` to `$4`:
/// the upload, its first and its last row number, the most rows.
pub(super) fn select_rows(dataset: &UploadDataset) -> String {
    let mut columns = String::new();
    for column in &dataset.columns {
        columns += &format!(", t.{}", quote_identifier(&column.name));
    }
    format!(
        "SELECT t.row_number{columns}
         FROM uploads u JOIN {} t ON t._carga_id BETWEEN (u.number << 36) + $2 AND (u.number << 36) + $3
         WHERE u.id = $1
         ORDER BY t._carga_id LIMIT $4",
        table(&dataset.key())
    )
}

/// Deletes rows. `$1` to `$3`: the first id, the last id, the most rows.
pub(super) fn delete_rows(dataset: &DatasetKey) -> String {
    let table = table(dataset);
    format!(
        "DELETE FROM {table} WHERE _carga_id IN
             (SELECT _carga_id FROM {table} WHERE _carga_id BETWEEN $1 AND $2 LIMIT $3)"
    )
}

/// Selects the first and the last id of the rows between two ids, `$1` and `$2`.
pub(super) fn select_range(dataset: &DatasetKey) -> String {
    let table = table(dataset);
    format!("SELECT min(_carga_id), max(_carga_id) FROM {table} WHERE _carga_id BETWEEN $1 AND $2")
}

/// Deletes the rows between two ids, `$1` and `$2`, that did not replace others.
pub(super) fn delete_inserted(dataset: &DatasetKey) -> String {
    let table = table(dataset);
    format!(
        "DELETE FROM {table} WHERE _carga_id BETWEEN $1 AND $2
             AND _carga_id NOT IN (SELECT id FROM previous_rows WHERE id BETWEEN $1 AND $2)"
    )
}

/// Gives the rows between two ids, `$1` and `$2`, their previous values and their previous ids.
pub(super) fn restore_rows(dataset: &UploadDataset) -> String {
    format!(
        "UPDATE OR ABORT {} AS t
         SET _carga_id = p.previous_id, upload_id = p.previous_upload, {}
         FROM previous_rows p
         WHERE p.id BETWEEN $1 AND $2 AND t._carga_id = p.id",
        table(&dataset.key()),
        previous_rows::assignments(&dataset.columns)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::RejectLimit;

    /// A dataset of the tenant `default`.
    fn key() -> DatasetKey {
        DatasetKey::new(Default::default(), "a\"b".parse().unwrap())
    }

    fn definition() -> Definition {
        let json = br#"{"columns": [
            {"name": "id\"", "type": "integer", "required": true},
            {"name": "paid", "type": "boolean"},
            {"name": "price", "type": "float"}
        ]}"#;
        Definition::from_json(json).unwrap()
    }

    fn words(sql: &str) -> String {
        sql.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_table_has_the_declared_columns_between_those_of_carga() {
        let [table, view] = create(&key(), &definition());
        assert_eq!(
            words(&table),
            "CREATE TABLE \"datasets_a\"\"b\" (_carga_id integer PRIMARY KEY, \
             \"id\"\"\" INTEGER NOT NULL, \"paid\" INTEGER, \"price\" REAL, upload_id text NOT NULL, \
             row_number integer GENERATED ALWAYS AS (_carga_id & 0xfffffffff) VIRTUAL)"
        );
        assert!(words(&view).starts_with(
            "CREATE VIEW \"datasets_a\"\"b_rows\" AS SELECT t.\"id\"\"\", t.\"paid\", t.\"price\", \
             u.id AS upload_id, t.row_number FROM uploads u"
        ));
    }

    #[test]
    fn the_statements_for_a_dataset_of_another_tenant_name_the_tenant() {
        let key = DatasetKey::new("acme-2".parse().unwrap(), "sales".parse().unwrap());
        let definition = definition();
        let mut statements = create(&key, &definition).to_vec();
        statements.extend(add_columns(&key, &definition.typed_columns(), &definition));
        statements.extend(drop(&key));
        statements.extend([delete_rows(&key), select_range(&key), delete_inserted(&key)]);
        for statement in statements {
            let statement = words(&statement);
            assert!(statement.contains("\"datasets_acme-2/sales"), "{statement}");
            assert!(!statement.contains("datasets_sales"), "{statement}");
        }
    }

    #[test]
    fn a_key_is_unique() {
        let json = br#"{"columns": [
            {"name": "a\"", "type": "text"}, {"name": "b", "type": "date"}
        ], "key": ["b", "a\""]}"#;
        let definition = Definition::from_json(json).unwrap();
        let [table, _] = create(&key(), &definition);
        let table = words(&table);
        assert!(
            table.ends_with("VIRTUAL, UNIQUE (\"b\", \"a\"\"\"))"),
            "{table}"
        );
    }

    #[test]
    fn a_column_is_added_between_two_views() {
        let definition = definition();
        let added = &definition.typed_columns()[2..];
        let statements = add_columns(&key(), added, &definition);
        assert_eq!(statements.len(), 3);
        let drop = "DROP VIEW IF EXISTS \"datasets_a\"\"b_rows\"";
        assert_eq!(statements[0], drop);
        assert_eq!(
            statements[1],
            "ALTER TABLE \"datasets_a\"\"b\" ADD COLUMN \"price\" REAL"
        );
        assert!(statements[2].starts_with("CREATE VIEW "));
    }

    #[test]
    fn rows_are_inserted_by_the_position_of_their_cells() {
        let dataset = UploadDataset {
            name: key().name,
            tenant: key().tenant,
            columns: definition().typed_columns(),
            missing: Vec::new(),
            ignored: Vec::new(),
            sources: vec![Some(0), Some(1), Some(2)],
            reject_limit: RejectLimit::default(),
            merge: None,
            table: None,
        };
        assert!(words(&insert_rows(&dataset)).starts_with(
            "INSERT OR ABORT INTO \"datasets_a\"\"b\" (_carga_id, upload_id, \"id\"\"\", \"paid\", \"price\") \
             SELECT id, $4, value ->> 0, (value ->> 1) = 'true', value ->> 2 FROM ("
        ));
    }
}
