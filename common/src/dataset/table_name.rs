//! The name of a table in Postgres: one that the user has made, or one of a dataset.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::quote_identifier;

/// The most bytes of the name of a schema or a table. Postgres cuts a longer name.
const MAX_BYTES: usize = 63;

/// The schema of the datasets of the tenant `default`.
pub(super) const DEFAULT_SCHEMA: &str = "datasets";

/// The name of a table, written `schema.name`. Upper and lower case differ. A name that is parsed
/// from a text is that of an existing table of the user, and its parts have no dots.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableName {
    schema: String,
    name: String,
}

impl TableName {
    /// The name of a table that Carga makes. Its parts may contain dots.
    pub(super) fn own(schema: String, name: String) -> Self {
        Self { schema, name }
    }

    /// The name of the schema.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The name of the table, without its schema.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name in SQL, quoted and with its schema. The schema `datasets` needs no quotes, and has
    /// none where people read it.
    pub fn quoted(&self) -> String {
        let name = quote_identifier(&self.name);
        match self.schema == DEFAULT_SCHEMA {
            true => format!("{DEFAULT_SCHEMA}.{name}"),
            false => format!("{}.{name}", quote_identifier(&self.schema)),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// A text that is not the name of a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TableNameFault(String);

impl FromStr for TableName {
    type Err = TableNameFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('.').collect();
        let [schema, name] = parts[..] else {
            let message = "the name of a table has the form `schema.name`, with one point";
            return Err(TableNameFault(message.to_owned()));
        };
        for (what, part) in [("schema", schema), ("table", name)] {
            check_part(what, part).map_err(TableNameFault)?;
        }
        Ok(Self {
            schema: schema.to_owned(),
            name: name.to_owned(),
        })
    }
}

fn check_part(what: &str, part: &str) -> Result<(), String> {
    if part.is_empty() {
        return Err(format!("the name of the {what} must not be empty"));
    }
    if part.len() > MAX_BYTES {
        return Err(format!(
            "the name of the {what} has at most {MAX_BYTES} bytes, and this one has {}",
            part.len()
        ));
    }
    if part.contains('\0') {
        return Err(format!(
            "the name of the {what} must not contain the character NUL"
        ));
    }
    Ok(())
}

impl Serialize for TableName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TableName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_schema_and_a_name() {
        let table: TableName = "shop.Price list".parse().unwrap();
        assert_eq!((table.schema(), table.name()), ("shop", "Price list"));
        assert_eq!(table.to_string(), "shop.Price list");
        assert_eq!(table.quoted(), "\"shop\".\"Price list\"");
        let quotes: TableName = "a\"b.\"c\"".parse().unwrap();
        assert_eq!(quotes.quoted(), "\"a\"\"b\".\"\"\"c\"\"\"");
        let json = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<TableName>(&json).unwrap(), table);
    }

    #[test]
    fn the_fault_of_a_name_says_which_part_is_wrong() {
        let long = format!("shop.{}", "x".repeat(64));
        for (text, fault) in [
            ("prices", "`schema.name`"),
            ("a.b.c", "`schema.name`"),
            (".prices", "schema must not be empty"),
            ("shop.", "table must not be empty"),
            ("shop.a\0", "NUL"),
            (long.as_str(), "at most 63 bytes, and this one has 64"),
        ] {
            let found = text.parse::<TableName>().unwrap_err().to_string();
            assert!(found.contains(fault), "{found}");
        }
    }
}
