//! The columns of a dataset.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// Any text, as it is.
    Text,
    /// A whole number of 64 bits.
    Integer,
    /// A decimal number with all its digits.
    Numeric,
    /// A binary floating-point number of 64 bits.
    Float,
    /// True or false.
    Boolean,
    /// A day, from year 1 to year 9999.
    Date,
    /// A point in time with microseconds, in UTC.
    Timestamp,
    /// A UUID of any version.
    Uuid,
    /// Any JSON value.
    Json,
}

impl ColumnType {
    /// All types.
    pub const ALL: [ColumnType; 9] = [
        ColumnType::Text,
        ColumnType::Integer,
        ColumnType::Numeric,
        ColumnType::Float,
        ColumnType::Boolean,
        ColumnType::Date,
        ColumnType::Timestamp,
        ColumnType::Uuid,
        ColumnType::Json,
    ];

    /// The name in definitions and messages.
    pub fn name(self) -> &'static str {
        match self {
            ColumnType::Text => "text",
            ColumnType::Integer => "integer",
            ColumnType::Numeric => "numeric",
            ColumnType::Float => "float",
            ColumnType::Boolean => "boolean",
            ColumnType::Date => "date",
            ColumnType::Timestamp => "timestamp",
            ColumnType::Uuid => "uuid",
            ColumnType::Json => "json",
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A column of a dataset's table, without the rules for reading its cells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypedColumn {
    /// The name in the table.
    pub name: String,
    /// The type, `type` in JSON.
    #[serde(rename = "type")]
    pub kind: ColumnType,
}

/// A column of a definition: its name and type, and the rules for reading its cells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ColumnDefinition {
    /// The name in the table. A column of the file with the same name means this column.
    pub name: String,
    /// The type, `type` in JSON.
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// Whether a row with NULL in this column is rejected. Columns of the key are always required.
    pub required: bool,
    /// Further names in headers that mean this column.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// The cells that mean NULL. Without this list, that of the definition applies. With an empty
    /// list, no cell is NULL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub null: Option<Vec<String>>,
    /// The decimal mark of a `numeric` or `float`; `.` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub decimal: Option<char>,
    /// The mark between groups of digits. Without it, a number has no groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub thousands: Option<char>,
    /// The texts that may stand before or after a number, such as `€`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub currency: Vec<String>,
    /// The form of a `date` or `timestamp`, in the directives of `strptime`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub format: Option<String>,
    /// The cells that mean true; empty if the usual ones apply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub r#true: Vec<String>,
    /// The cells that mean false; empty if the usual ones apply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub r#false: Vec<String>,
}

impl ColumnDefinition {
    /// The column as the table has it.
    pub fn typed(&self) -> TypedColumn {
        TypedColumn {
            name: self.name.clone(),
            kind: self.kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_every_type_by_its_name() {
        for kind in ColumnType::ALL {
            let json = format!("\"{kind}\"");
            assert_eq!(serde_json::to_string(&kind).unwrap(), json);
            assert_eq!(serde_json::from_str::<ColumnType>(&json).unwrap(), kind);
        }
    }

    #[test]
    fn a_typed_column_is_read_back_from_json() {
        let column = TypedColumn {
            name: "sold \"on\"".to_owned(),
            kind: ColumnType::Date,
        };
        let json = serde_json::to_value(&column).unwrap();
        let expected = serde_json::json!({ "name": "sold \"on\"", "type": "date" });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<TypedColumn>(json).unwrap(), column);
    }
}
