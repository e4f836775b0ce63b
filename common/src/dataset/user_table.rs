//! An existing table of the user, and whether it takes the rows of a dataset.

use std::collections::{HashMap, HashSet};

use super::{ColumnDefinition, ColumnType, Definition, TableName, folded_name, quote_identifier};

/// The most columns in a message. A definition may have more than a thousand.
const MAX_LISTED: usize = 100;

/// A table of the user as the catalog of the database describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserTable {
    /// The columns, in the order of the table.
    pub columns: Vec<UserColumn>,
    /// The columns of the primary key; empty if the table has none.
    pub primary_key: Vec<String>,
    /// The columns of each unique index, without partial indexes and indexes on expressions.
    pub unique: Vec<Vec<String>>,
}

/// A column of a table of the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserColumn {
    /// The name.
    pub name: String,
    /// The type as the database writes it, with its length or precision.
    pub type_name: String,
    /// The types of a dataset's column that Carga converts to this type.
    pub takes: Vec<ColumnType>,
    /// Whether the column refuses NULL.
    pub is_required: bool,
    /// Whether the database gives a value to a row that has none: by a default or an identity.
    pub has_default: bool,
    /// Whether the database makes every value itself: a generated column, or an identity that is
    /// always generated.
    pub is_generated: bool,
}

/// Why a table of the user does not take the rows of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TableFault {
    /// The reason, for programs.
    pub code: &'static str,
    /// The reason and the remedy, for people.
    pub message: String,
}

impl TableFault {
    /// A fault with a code for programs and a message for people.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The fault of any table if the store is SQLite. Its file belongs to Carga, so a user has no
    /// tables in it.
    pub fn needs_postgres(table: &TableName) -> Self {
        let message = format!(
            "a dataset with a table of your own, here {table}, needs Postgres (DATABASE_URL); leave out `table`, and Carga creates a table for the dataset"
        );
        Self::new("table_unsupported", message)
    }
}

/// Checks that a table of the user takes the rows of a dataset. `written` has the names of the
/// dataset's columns that the rows have; the table gives its defaults to the others.
pub fn check_table(
    definition: &Definition,
    table: &UserTable,
    written: &[&str],
) -> Result<(), TableFault> {
    let check = Check { definition, table };
    let columns = check.columns()?;
    check.check_generated(&columns)?;
    check.check_types(&columns)?;
    check.check_needed(written)?;
    check.check_key()
}

/// A definition and the table that it names.
struct Check<'a> {
    definition: &'a Definition,
    table: &'a UserTable,
}

impl<'a> Check<'a> {
    /// The table for messages.
    fn name(&self) -> String {
        match &self.definition.table {
            Some(name) => format!("table {name}"),
            None => "the table".to_owned(),
        }
    }

    /// The columns of the definition, each with that of the table.
    fn columns(&self) -> Result<Vec<(&'a ColumnDefinition, &'a UserColumn)>, TableFault> {
        let by_name = self.table.columns.iter();
        let by_name: HashMap<&str, &UserColumn> = by_name
            .map(|column| (column.name.as_str(), column))
            .collect();
        let columns = self.definition.columns.iter();
        let (found, missing): (Vec<_>, Vec<_>) = columns
            .map(|column| (column, by_name.get(column.name.as_str()).copied()))
            .partition(|(_, found)| found.is_some());
        if missing.is_empty() {
            let found = found.into_iter();
            return Ok(found
                .filter_map(|(column, found)| Some((column, found?)))
                .collect());
        }
        let spellings = self.spellings();
        let missing: Vec<String> = missing
            .iter()
            .map(|(column, _)| describe_missing(&column.name, &spellings))
            .collect();
        let message = format!(
            "{} does not have these columns of the definition: {}; correct their names, in which upper and lower case differ, or leave them out",
            self.name(),
            listed(&missing, ", ")
        );
        Err(TableFault::new("column_not_found", message))
    }

    /// The columns of the table by their folded names.
    fn spellings(&self) -> HashMap<String, &'a str> {
        let columns = self.table.columns.iter();
        columns
            .map(|column| (folded_name(&column.name), column.name.as_str()))
            .collect()
    }

    fn check_generated(
        &self,
        columns: &[(&ColumnDefinition, &UserColumn)],
    ) -> Result<(), TableFault> {
        let generated = columns.iter().filter(|(_, found)| found.is_generated);
        let generated: Vec<String> = generated
            .map(|(column, _)| format!("`{}`", column.name))
            .collect();
        if generated.is_empty() {
            return Ok(());
        }
        let message = format!(
            "the database makes every value of these columns of {}: {}; leave them out of the definition",
            self.name(),
            listed(&generated, ", ")
        );
        Err(TableFault::new("column_generated", message))
    }

    fn check_types(&self, columns: &[(&ColumnDefinition, &UserColumn)]) -> Result<(), TableFault> {
        let others = columns.iter();
        let others: Vec<String> = others
            .filter(|(column, found)| !found.takes.contains(&column.kind))
            .map(|(column, found)| describe_type(column, found))
            .collect();
        if others.is_empty() {
            return Ok(());
        }
        let message = format!(
            "columns of {} have types to which Carga does not convert the declared types: {}",
            self.name(),
            listed(&others, "; ")
        );
        Err(TableFault::new("column_type", message))
    }

    fn check_needed(&self, written: &[&str]) -> Result<(), TableFault> {
        let written: HashSet<&str> = written.iter().copied().collect();
        let is_needed = |column: &&UserColumn| {
            let has_value = column.has_default || column.is_generated;
            column.is_required && !has_value && !written.contains(column.name.as_str())
        };
        let needed = self.table.columns.iter().filter(is_needed);
        let needed: Vec<String> = needed
            .map(|column| format!("`{}` ({})", column.name, column.type_name))
            .collect();
        if needed.is_empty() {
            return Ok(());
        }
        let message = format!(
            "{} needs a value for these columns, which are NOT NULL, have no default and get no value from the rows: {}; add them to the definition and to the file, or give them a default in the table",
            self.name(),
            listed(&needed, ", ")
        );
        Err(TableFault::new("column_missing", message))
    }

    fn check_key(&self) -> Result<(), TableFault> {
        let key = &self.definition.key;
        let mut indexes = self.table.unique.iter().chain([&self.table.primary_key]);
        if key.is_empty() || indexes.any(|columns| are_the_same(columns, key)) {
            return Ok(());
        }
        let names: Vec<String> = key.iter().map(|name| format!("`{name}`")).collect();
        let quoted: Vec<String> = key.iter().map(|name| quote_identifier(name)).collect();
        let table = self.definition.table.as_ref();
        let message = format!(
            "{} has no unique index on exactly the columns of the key, {}; partial indexes and indexes on expressions do not count; `CREATE UNIQUE INDEX ON {} ({})` makes one",
            self.name(),
            names.join(", "),
            table.map_or_else(String::new, TableName::quoted),
            quoted.join(", ")
        );
        Err(TableFault::new("key_not_unique", message))
    }
}

/// Whether the lists have the same names in any order. Neither has a name twice.
fn are_the_same(one: &[String], other: &[String]) -> bool {
    one.len() == other.len() && one.iter().all(|name| other.contains(name))
}

/// A column that the table does not have, with its name in another spelling if the table has that.
fn describe_missing(name: &str, spellings: &HashMap<String, &str>) -> String {
    match spellings.get(&folded_name(name)) {
        Some(other) => format!("`{name}` (did you mean `{other}`?)"),
        None => format!("`{name}`"),
    }
}

/// A column whose type the table does not take, with the types that would fit.
fn describe_type(column: &ColumnDefinition, found: &UserColumn) -> String {
    let (name, kind, type_name) = (&column.name, column.kind, &found.type_name);
    let takes: Vec<&str> = found.takes.iter().map(|kind| kind.name()).collect();
    let remedy = match takes.is_empty() {
        true => "no declared type is converted to this type, so leave the column out".to_owned(),
        false => format!("declare it as {}", takes.join(" or ")),
    };
    format!(
        "`{name}` is {type_name}, and {kind} needs {}; {remedy}",
        fitting_types(kind)
    )
}

/// The types of the database to which Carga converts a declared type.
fn fitting_types(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Text => "text, varchar, char or an enum",
        ColumnType::Integer => "smallint, integer, bigint or numeric",
        ColumnType::Numeric => "numeric",
        ColumnType::Float => "double precision",
        ColumnType::Boolean => "boolean",
        ColumnType::Date => "date",
        ColumnType::Timestamp => "timestamptz or timestamp",
        ColumnType::Uuid => "uuid",
        ColumnType::Json => "jsonb",
    }
}

/// The first [`MAX_LISTED`] items, and how many more there are.
fn listed(items: &[String], separator: &str) -> String {
    let shown = &items[..items.len().min(MAX_LISTED)];
    let mut text = shown.join(separator);
    let more = items.len() - shown.len();
    if more > 0 {
        text.push_str(&format!("{separator}and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests;
