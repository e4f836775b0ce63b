//! The definition of a dataset: its columns, and how the rows of a file become rows of its table.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::column_rules::{Defaults, read_column};
use super::fields::{DefinitionFault, Fields, Json};
use super::meanings::check_meanings;
use super::{ColumnDefinition, ColumnType, TableName, TypedColumn};

/// The most columns of a dataset. A table in Postgres has at most 1,600, and two of them are
/// `upload_id` and `row_number`.
pub const MAX_COLUMNS: usize = 1600 - 2;

/// The most columns of a key. An index in Postgres has at most 32 columns.
const MAX_KEY_COLUMNS: usize = 32;

/// The most bytes of a definition as JSON.
pub const MAX_DEFINITION_BYTES: usize = 1 << 20;

/// The fields of a definition.
const FIELDS: [&str; 5] = ["columns", "key", "mode", "null", "table"];

/// The other fields of an answer about a dataset. They are ignored, so that an answer can be edited
/// and sent back.
const ANSWER_FIELDS: [&str; 3] = ["name", "created_at", "updated_at"];

/// How rows are merged into the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Every row becomes a row of the table.
    Append,
    /// A row replaces the row that has the same key.
    Update,
    /// A row whose key exists already is not stored.
    Ignore,
}

impl Mode {
    const ALL: [Mode; 3] = [Mode::Append, Mode::Update, Mode::Ignore];

    /// The name in definitions.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Append => "append",
            Mode::Update => "update",
            Mode::Ignore => "ignore",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The definition of a dataset, with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Definition {
    /// The columns, in the order of the table.
    pub columns: Vec<ColumnDefinition>,
    /// The names of the columns that identify a row; empty if rows are only appended.
    pub key: Vec<String>,
    /// How rows are merged into the table.
    pub mode: Mode,
    /// The cells that mean NULL in columns without a list of their own.
    pub null: Vec<String>,
    /// An existing table of the user; `None` if Carga creates the table.
    pub table: Option<TableName>,
}

impl Definition {
    /// Parses a definition, and checks the rules for each field and between fields.
    pub fn from_json(text: &[u8]) -> Result<Self, DefinitionFault> {
        let definition = Json::parse(text)?.without(&ANSWER_FIELDS);
        let mut fields = Fields::of_definition(definition, &FIELDS)?;
        let key = fields.texts("key")?.unwrap_or_default();
        let mode = read_mode(&mut fields, &key)?;
        let null = fields.texts("null")?;
        let null = null.unwrap_or_else(|| vec![String::new()]);
        let table = read_table(&mut fields)?;
        let defaults = Defaults {
            key: &key,
            null: &null,
        };
        let columns = read_columns(&mut fields, &defaults)?;
        check_meanings(&columns)?;
        check_key(&key, &columns)?;
        Ok(Self {
            columns,
            key,
            mode,
            null,
            table,
        })
    }

    /// The normal form, from which [`Self::from_json`] makes the same definition. Every column has
    /// `name`, `type` and `required`, and its other fields only where they are set.
    pub fn to_json(&self) -> serde_json::Value {
        // Serialization fails only for maps whose keys are not texts, and a definition has no map.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The columns as the table has them.
    pub fn typed_columns(&self) -> Vec<TypedColumn> {
        self.columns.iter().map(ColumnDefinition::typed).collect()
    }

    /// The cells that mean NULL in this column.
    pub fn null_words<'a>(&'a self, column: &'a ColumnDefinition) -> &'a [String] {
        column.null.as_ref().unwrap_or(&self.null)
    }
}

fn read_mode(fields: &mut Fields, key: &[String]) -> Result<Mode, DefinitionFault> {
    let Some(name) = fields.text("mode")? else {
        return Ok(match key {
            [] => Mode::Append,
            _ => Mode::Update,
        });
    };
    let known = Mode::ALL.into_iter().find(|mode| mode.name() == name);
    let mode = known.ok_or_else(|| {
        let message = "unknown mode; the modes are append, update, ignore";
        fields.fault("mode", message)
    })?;
    if mode != Mode::Append && key.is_empty() {
        let message = format!("the mode `{mode}` compares rows by their key; add `key`");
        return Err(fields.fault("mode", message));
    }
    Ok(mode)
}

fn read_table(fields: &mut Fields) -> Result<Option<TableName>, DefinitionFault> {
    let Some(name) = fields.text("table")? else {
        return Ok(None);
    };
    let table: Result<TableName, _> = name.parse();
    let table = table.map_err(|fault| fields.fault("table", fault.to_string()))?;
    Ok(Some(table))
}

fn read_columns(
    fields: &mut Fields,
    defaults: &Defaults<'_>,
) -> Result<Vec<ColumnDefinition>, DefinitionFault> {
    let items = fields.items("columns")?;
    let items = items.ok_or_else(|| fields.fault("columns", "the field is missing"))?;
    if items.is_empty() {
        return Err(fields.fault("columns", "a dataset has at least one column"));
    }
    if items.len() > MAX_COLUMNS {
        let message = format!(
            "a dataset has at most {MAX_COLUMNS} columns, and this one has {}",
            items.len()
        );
        return Err(fields.fault("columns", message));
    }
    let mut columns: Vec<ColumnDefinition> = Vec::with_capacity(items.len());
    // Without regard to case, because SQLite does not distinguish the case of a column's name.
    let mut paths: HashMap<String, String> = HashMap::new();
    for (path, item) in items {
        let column = read_column(&path, item, defaults)?;
        let name = column.name.to_ascii_lowercase();
        if let Some(first) = paths.insert(name, path.clone()) {
            let message = format!("`{first}` has the same name, without regard to case");
            return Err(DefinitionFault::new(format!("{path}.name"), message));
        }
        columns.push(column);
    }
    Ok(columns)
}

/// Checks that each name in the key is that of a column whose values can be compared, and that no
/// name is repeated.
fn check_key(key: &[String], columns: &[ColumnDefinition]) -> Result<(), DefinitionFault> {
    if key.len() > MAX_KEY_COLUMNS {
        let message = format!(
            "a key has at most {MAX_KEY_COLUMNS} columns, and this one has {}",
            key.len()
        );
        return Err(DefinitionFault::new("key", message));
    }
    for (index, name) in key.iter().enumerate() {
        let fault = |message: &str| Err(DefinitionFault::new(format!("key[{index}]"), message));
        let Some(column) = columns.iter().find(|column| column.name == *name) else {
            return fault("no column has this name");
        };
        if column.kind == ColumnType::Json {
            return fault("a column of type json cannot be in the key");
        }
        if key[..index].contains(name) {
            return fault("the column is in the key twice");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(value: Value) -> Result<Definition, DefinitionFault> {
        Definition::from_json(value.to_string().as_bytes())
    }

    fn fault(value: Value) -> String {
        read(value).unwrap_err().to_string()
    }

    fn columns(names: &[&str]) -> Value {
        let column = |name: &&str| json!({ "name": name, "type": "text" });
        names.iter().map(column).collect()
    }

    /// A definition with one more field.
    fn with(field: &str, value: Value) -> Value {
        json!({ "columns": columns(&["a"]), field: value })
    }

    /// The example of the documentation.
    fn products() -> Value {
        json!({
            "columns": [
                { "name": "sku", "type": "text", "required": true, "from": ["SKU", "código"] },
                { "name": "price", "type": "numeric", "decimal": "," },
                { "name": "sold_on", "type": "date", "format": "%d/%m/%Y" }
            ],
            "key": ["sku"], "mode": "update", "null": ["", "NA"], "table": null
        })
    }

    #[test]
    fn a_definition_is_read_back_from_its_normal_form() {
        for given in [
            products(),
            json!({ "columns": columns(&["a"]) }),
            json!({ "columns": [{ "name": "a", "type": "boolean", "null": [], "true": ["x"],
                "false": [""] }], "null": [], "table": "public.a" }),
        ] {
            let definition = read(given).unwrap();
            assert_eq!(read(definition.to_json()), Ok(definition));
        }
    }

    #[test]
    fn the_normal_form_has_every_default_of_the_definition_and_no_other_field() {
        let given = json!({ "columns": columns(&["id", "a"]), "key": ["id"] });
        let expected = json!({
            "columns": [
                { "name": "id", "type": "text", "required": true },
                { "name": "a", "type": "text", "required": false }
            ],
            "key": ["id"], "mode": "update", "null": [""], "table": null
        });
        assert_eq!(read(given).unwrap().to_json(), expected);
        let given = read(with("key", Value::Null)).unwrap();
        assert_eq!(given.mode, Mode::Append);
        assert_eq!(given.null, [""]);
    }

    #[test]
    fn a_fault_names_its_field() {
        for (given, field) in [
            (json!([]), "definition"),
            (json!({}), "columns"),
            (json!({ "columns": {} }), "columns"),
            (json!({ "columns": [] }), "columns"),
            (json!({ "columns": [1] }), "columns[0]"),
            (json!({ "columns": columns(&[""]) }), "columns[0].name"),
            (with("rows", json!(1)), "rows"),
            (with("mode", json!("replace")), "mode"),
            (with("mode", json!("ignore")), "mode"),
            (with("null", json!("")), "null"),
            (with("null", json!(["", 0])), "null[1]"),
            (with("key", json!(["A"])), "key[0]"),
            (with("key", json!(["a", "a"])), "key[1]"),
            (with("table", json!(["public", "a"])), "table"),
            (with("table", json!("prices")), "table"),
            (with("table", json!("")), "table"),
        ] {
            assert_eq!(read(given).unwrap_err().field, field);
        }
        let unknown = fault(with("rows", json!(1)));
        assert_eq!(
            unknown,
            "`rows`: unknown field; the known ones are columns, key, mode, null, table"
        );
        assert!(fault(with("mode", json!("ignore"))).ends_with("add `key`"));
        assert_eq!(
            fault(with("table", json!("shop.old.prices"))),
            "`table`: the name of a table has the form `schema.name`, with one point"
        );
    }

    #[test]
    fn an_answer_about_a_dataset_is_a_definition() {
        let mut answer = products();
        for field in ANSWER_FIELDS {
            answer[field] = json!("2026-11-26");
        }
        assert_eq!(read(answer), read(products()));
    }

    #[test]
    fn names_that_differ_only_in_case_are_a_fault() {
        let repeated = fault(json!({ "columns": columns(&["a", "É", "é", "A"]) }));
        assert!(repeated.starts_with("`columns[3].name`: `columns[0]` has the same name"));
    }

    #[test]
    fn a_definition_has_as_many_columns_as_a_table_of_postgres_beside_two_of_carga() {
        let names: Vec<String> = (0..1599).map(|number| format!("c{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let longest = read(json!({ "columns": columns(&names[1..]) }));
        assert_eq!(longest.unwrap().columns.len(), 1598);
        let longer = fault(json!({ "columns": columns(&names) }));
        assert!(longer.starts_with("`columns`: a dataset has at most 1598 columns"));
    }

    #[test]
    fn a_definition_names_a_table_of_the_user_in_every_mode() {
        for mode in Mode::ALL {
            let mut given = products();
            given["mode"] = json!(mode);
            given["table"] = json!("shop.Price list");
            let definition = read(given).unwrap();
            assert_eq!(definition.mode, mode);
            let table = definition.table.as_ref().unwrap();
            assert_eq!(table.quoted(), "\"shop\".\"Price list\"");
            assert_eq!(definition.to_json()["table"], "shop.Price list");
        }
        assert_eq!(read(with("table", Value::Null)).unwrap().table, None);
    }

    #[test]
    fn a_key_has_no_column_of_type_json_and_no_more_columns_than_an_index_of_postgres() {
        let typed = json!([{ "name": "a", "type": "text" }, { "name": "b", "type": "json" }]);
        let key = fault(json!({ "columns": typed, "key": ["a", "b"] }));
        assert_eq!(key, "`key[1]`: a column of type json cannot be in the key");
        let names: Vec<String> = (0..33).map(|number| format!("c{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let keyed = |key: &[&str]| read(json!({ "columns": columns(&names), "key": key }));
        assert_eq!(keyed(&names[1..]).unwrap().key.len(), 32);
        let longer = keyed(&names).unwrap_err().to_string();
        assert_eq!(
            longer,
            "`key`: a key has at most 32 columns, and this one has 33"
        );
    }

    #[test]
    fn a_column_s_own_list_replaces_the_cells_that_mean_null() {
        let definition = read(json!({ "null": ["NA"], "columns": [
            { "name": "a", "type": "text" }, { "name": "b", "type": "text", "null": ["-"] }
        ] }));
        let definition = definition.unwrap();
        let [a, b] = &definition.columns[..] else {
            panic!("two columns");
        };
        assert_eq!(definition.null_words(a), ["NA"]);
        assert_eq!(definition.null_words(b), ["-"]);
        let typed = definition.typed_columns();
        assert_eq!((typed.len(), typed[1].name.as_str()), (2, "b"));
    }
}
