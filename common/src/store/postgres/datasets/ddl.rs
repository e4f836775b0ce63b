//! The statements that make and change the table and the view of a dataset.

use crate::dataset::{
    ColumnDefinition, ColumnType, DatasetKey, Definition, TableName, TypedColumn, postgres_schema,
    quote_identifier,
};
use crate::tenant::Tenant;

/// Rows of one upload are consecutive, so a block range index finds them. Several values per block
/// range are needed, because a worker stores uploads side by side, and ids that clients choose are
/// random.
const INDEX: &str = "USING brin (upload_id uuid_minmax_multi_ops, row_number)
    WITH (pages_per_range = 32, autosummarize = on)";

/// Autovacuum adds new blocks to the index, and must do so more often than by default.
const STORAGE: &str = "WITH (autovacuum_vacuum_insert_scale_factor = 0.005)";

/// The table of a dataset, quoted and with its schema.
pub(in crate::store::postgres) fn table(dataset: &DatasetKey) -> String {
    dataset.postgres_table().quoted()
}

/// Makes other writers of a dataset's table wait until the end of the transaction, and other merges
/// too. Readers go on.
pub(in crate::store::postgres) fn lock_against_writers(table: &str) -> String {
    format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
}

/// The statements that make other writers of a table of the user wait until the end of the
/// transaction. They fail if the table is not free within 2 s, because every later writer of the
/// application queues behind Carga.
///
/// The limit for each later lock is below `deadlock_timeout` (1 s): a transaction of the
/// application may have locked a row, and wait for the table now. The server looks for such a
/// deadlock after 1 s, and would end that transaction. Before this, the statement of Carga gives
/// up.
pub(super) fn lock_table_of_user(table: &TableName) -> [String; 3] {
    [
        "SET LOCAL lock_timeout = '2s'".to_owned(),
        lock_against_writers(&table.quoted()),
        "SET LOCAL lock_timeout = '500ms'".to_owned(),
    ]
}

fn view(dataset: &DatasetKey) -> String {
    dataset.postgres_view().quoted()
}

/// The statements for a new dataset.
pub(super) fn create(dataset: &DatasetKey, definition: &Definition) -> Vec<String> {
    let table = table(dataset);
    let columns: String = definition.columns.iter().map(declaration).collect();
    let key = primary_key(&definition.key);
    vec![
        format!(
            "CREATE TABLE {table} ({columns}upload_id uuid NOT NULL, row_number bigint NOT NULL{key}) {STORAGE}"
        ),
        format!("CREATE INDEX ON {table} {INDEX}"),
        // Without OR REPLACE, so that a view of this name that somebody else has made is an error.
        format!("CREATE VIEW {} AS {}", view(dataset), visible_rows(&table)),
    ]
}

/// The statements that add columns to the table and its view. Rows that are in the table have no
/// value for them.
///
/// The first statement locks the view and changes nothing. Readers of the view lock the view before
/// the table, so a lock on the table before the view could be a deadlock.
pub(super) fn add_columns(dataset: &DatasetKey, columns: &[TypedColumn]) -> Vec<String> {
    let table = table(dataset);
    let columns: Vec<String> = columns
        .iter()
        .map(|column| {
            let name = quote_identifier(&column.name);
            format!("ADD COLUMN {name} {}", sql_type(column.kind))
        })
        .collect();
    let replace_view = format!(
        "CREATE OR REPLACE VIEW {} AS {}",
        view(dataset),
        visible_rows(&table)
    );
    vec![
        replace_view.clone(),
        format!("ALTER TABLE {table} {}", columns.join(", ")),
        replace_view,
    ]
}

/// The statements that delete the table and its view.
pub(super) fn delete(dataset: &DatasetKey) -> [String; 2] {
    [
        format!("DROP VIEW IF EXISTS {}", view(dataset)),
        format!("DROP TABLE IF EXISTS {}", table(dataset)),
    ]
}

/// The reason why the table of a dataset cannot be made or changed, if somebody has made or changed
/// something in the tenant's schema by hand.
pub(super) fn refusal(error: &sqlx::Error, tenant: &Tenant) -> Option<String> {
    let error = error.as_database_error()?;
    let remedy = match error.code()?.as_ref() {
        // In order: an existing table, view or index; an existing type.
        "42P07" | "42710" => {
            let schema = quote_identifier(&postgres_schema(tenant));
            format!(
                "something of this name was made by hand in the schema {schema}; rename it or drop it"
            )
        }
        // In order: an existing column, a missing table, a view with other columns, not a view,
        // too many columns including dropped ones.
        "42701" | "42P01" | "42P16" | "42809" | "54011" => {
            "the table or view of the dataset was changed by hand; undo that change, or declare a new dataset"
                .to_owned()
        }
        _ => return None,
    };
    Some(format!("{}: {remedy}", error.message()))
}

/// The rows of uploads that ended well. The columns are in the order of the table, so that columns
/// which are added later become the last ones. Postgres cannot replace a view otherwise.
///
/// The rows of a merged upload stay in the table when the upload expires.
fn visible_rows(table: &str) -> String {
    format!(
        "SELECT r.* FROM {table} r JOIN uploads u ON u.id = r.upload_id
         WHERE u.status IN ('completed', 'partial')
           AND (u.expired_at IS NULL OR u.dataset ->> 'merge' IS NOT NULL)"
    )
}

/// The constraint on the key, behind the columns of a table.
fn primary_key(key: &[String]) -> String {
    if key.is_empty() {
        return String::new();
    }
    let key: Vec<String> = key.iter().map(|name| quote_identifier(name)).collect();
    format!(", PRIMARY KEY ({})", key.join(", "))
}

fn declaration(column: &ColumnDefinition) -> String {
    let name = quote_identifier(&column.name);
    let kind = sql_type(column.kind);
    match column.required {
        true => format!("{name} {kind} NOT NULL, "),
        false => format!("{name} {kind}, "),
    }
}

/// The type of a column in the table.
pub(in crate::store::postgres) fn sql_type(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Text => "text",
        ColumnType::Integer => "bigint",
        ColumnType::Numeric => "numeric",
        ColumnType::Float => "double precision",
        ColumnType::Boolean => "boolean",
        ColumnType::Date => "date",
        ColumnType::Timestamp => "timestamptz",
        ColumnType::Uuid => "uuid",
        ColumnType::Json => "jsonb",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A dataset of the tenant `default`.
    fn key(name: &str) -> DatasetKey {
        DatasetKey::new(Default::default(), name.parse().unwrap())
    }

    #[test]
    fn a_dataset_gets_a_table_an_index_and_a_view() {
        let definition = br#"{ "columns": [
            { "name": "sku", "type": "text", "required": true },
            { "name": "a\"b", "type": "float" }
        ] }"#;
        let definition = Definition::from_json(definition).unwrap();
        let statements = create(&key("x\"y"), &definition);
        let starts = [
            "CREATE TABLE datasets.\"x\"\"y\" (\"sku\" text NOT NULL, \"a\"\"b\" double precision, \
             upload_id uuid NOT NULL, row_number bigint NOT NULL) WITH (",
            "CREATE INDEX ON datasets.\"x\"\"y\" USING brin (",
            "CREATE VIEW datasets.\"x\"\"y_rows\" AS SELECT r.* FROM datasets.\"x\"\"y\" r JOIN ",
        ];
        assert_eq!(statements.len(), starts.len());
        for (statement, start) in statements.iter().zip(starts) {
            assert!(statement.starts_with(start), "{statement}");
        }
    }

    #[test]
    fn the_statements_for_a_dataset_of_another_tenant_name_its_schema() {
        let definition = br#"{ "columns": [{ "name": "sku", "type": "text" }] }"#;
        let definition = Definition::from_json(definition).unwrap();
        let key = DatasetKey::new("acme-2".parse().unwrap(), "sales".parse().unwrap());
        let mut statements = create(&key, &definition);
        statements.extend(add_columns(&key, &definition.typed_columns()));
        statements.extend(delete(&key));
        for statement in statements {
            assert!(
                statement.contains("\"datasets_acme-2\".\"sales"),
                "{statement}"
            );
            assert!(!statement.contains("datasets."), "{statement}");
        }
    }

    #[test]
    fn the_key_of_a_dataset_is_the_primary_key_of_its_table() {
        let definition = br#"{ "key": ["shop", "a\"b"], "columns": [
            { "name": "a\"b", "type": "text" },
            { "name": "shop", "type": "integer" }
        ] }"#;
        let definition = Definition::from_json(definition).unwrap();
        let table = &create(&key("sales"), &definition)[0];
        let expected = "row_number bigint NOT NULL, PRIMARY KEY (\"shop\", \"a\"\"b\")) WITH (";
        assert!(table.contains(expected), "{table}");
    }

    #[test]
    fn added_columns_come_to_the_table_between_two_replacements_of_the_view() {
        let columns = [("a", ColumnType::Json), ("b", ColumnType::Timestamp)];
        let columns = columns.map(|(name, kind)| TypedColumn {
            name: name.to_owned(),
            kind,
        });
        let statements = add_columns(&key("sales"), &columns);
        let starts = [
            "CREATE OR REPLACE VIEW datasets.\"sales_rows\" AS ",
            "ALTER TABLE datasets.\"sales\" ADD COLUMN \"a\" jsonb, ADD COLUMN \"b\" timestamptz",
            "CREATE OR REPLACE VIEW datasets.\"sales_rows\" AS ",
        ];
        assert_eq!(statements.len(), starts.len());
        for (statement, start) in statements.iter().zip(starts) {
            assert!(statement.starts_with(start), "{statement}");
        }
    }
}
