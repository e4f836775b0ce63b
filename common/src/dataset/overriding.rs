//! Rules for the cells of one file, in the place of defaults of the dataset's definition.

use super::column::{ColumnDefinition, ColumnType};
use super::column_rules::{boolean_that_is_null, is_decimal_mark, repeated_mark};
use super::definition::Definition;
use super::fields::{DefinitionFault, MAX_TEXTS};
use super::time_format::check_format;

/// How the cells of one file are read, where this differs from the definition of the dataset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileReading {
    /// The cells that mean NULL in columns without a list of their own.
    pub null: Option<Vec<String>>,
    /// The decimal mark of `numeric` and `float` columns that have none of their own.
    pub decimal: Option<char>,
    /// The format of `date` columns that have none of their own. It is not for timestamps, because
    /// a format without a time of day would read each of them as midnight.
    pub date_format: Option<String>,
}

impl Definition {
    /// The definition for the cells of one file. Names, types and the key stay the same, so the
    /// table of the dataset takes the rows. The column's own rules stay too. A fault names the
    /// field of `reading` that this definition cannot take.
    pub fn with_reading(&self, reading: &FileReading) -> Result<Self, DefinitionFault> {
        reading.check()?;
        let mut definition = self.clone();
        if let Some(null) = &reading.null {
            definition.null.clone_from(null);
        }
        for column in &mut definition.columns {
            reading.complete(column);
        }
        for column in &definition.columns {
            check_column(column, definition.null_words(column))?;
        }
        Ok(definition)
    }
}

impl FileReading {
    /// Checks the rules that do not depend on a column.
    pub fn check(&self) -> Result<(), DefinitionFault> {
        let texts = self.null.as_ref().map_or(0, Vec::len);
        if texts > MAX_TEXTS {
            let message = format!("a list has at most {MAX_TEXTS} texts, not {texts}");
            return Err(DefinitionFault::new("null", message));
        }
        if self.decimal.is_some_and(|mark| !is_decimal_mark(mark)) {
            let message = "must not be a letter, a digit, a sign or a blank";
            return Err(DefinitionFault::new("decimal", message));
        }
        match &self.date_format {
            Some(format) => check_format(ColumnType::Date, format)
                .map_err(|message| DefinitionFault::new("date_format", message)),
            None => Ok(()),
        }
    }

    /// Gives the column the rules that its definition leaves open.
    fn complete(&self, column: &mut ColumnDefinition) {
        match column.kind {
            ColumnType::Numeric | ColumnType::Float => {
                column.decimal = column.decimal.or(self.decimal);
            }
            ColumnType::Date if column.format.is_none() => {
                column.format.clone_from(&self.date_format);
            }
            _ => {}
        }
    }
}

/// Checks the rules between the fields of one column. The column was without a fault before, so the
/// fault is that of a field of the [`FileReading`].
fn check_column(column: &ColumnDefinition, null: &[String]) -> Result<(), DefinitionFault> {
    let name = &column.name;
    if let Some(mark) = repeated_mark(column) {
        let message = format!(
            "column `{name}` of the dataset has `{mark}` between thousands, so `{mark}` cannot be its decimal mark; use another mark, or give the column its own `decimal`"
        );
        return Err(DefinitionFault::new("decimal", message));
    }
    if let Some((field, index)) = boolean_that_is_null(column, null) {
        let message = format!(
            "column `{name}` of the dataset has the same text in `{field}[{index}]`, so it cannot mean NULL; leave the text out, or give the column its own list `null`"
        );
        return Err(DefinitionFault::new("null", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};
    use serde_json::{Value, json};

    fn read(definition: &Value) -> Result<Definition, DefinitionFault> {
        Definition::from_json(definition.to_string().as_bytes())
    }

    /// The definition for one file, from a definition with these columns.
    fn effective(columns: Value, reading: &FileReading) -> Result<Definition, DefinitionFault> {
        let definition = read(&json!({ "columns": columns })).unwrap();
        definition.with_reading(reading)
    }

    fn null(texts: &[&str]) -> FileReading {
        let texts = texts.iter().map(|text| (*text).to_owned());
        FileReading {
            null: Some(texts.collect()),
            ..FileReading::default()
        }
    }

    fn decimal(mark: char) -> FileReading {
        FileReading {
            decimal: Some(mark),
            ..FileReading::default()
        }
    }

    fn date_format(format: &str) -> FileReading {
        FileReading {
            date_format: Some(format.to_owned()),
            ..FileReading::default()
        }
    }

    #[test]
    fn the_list_of_a_file_replaces_that_of_the_definition_and_not_that_of_a_column() {
        let columns = json!([
            { "name": "a", "type": "text" },
            { "name": "b", "type": "text", "null": ["-"] },
            { "name": "c", "type": "text", "null": [] },
        ]);
        let definition = effective(columns, &null(&["NA", "?"])).unwrap();
        let columns = definition.columns.iter();
        let words = columns.map(|column| definition.null_words(column).join(" "));
        assert_eq!(words.collect::<Vec<_>>(), ["NA ?", "-", ""]);
    }

    #[test]
    fn the_decimal_mark_of_a_file_is_that_of_decimal_numbers_without_their_own() {
        let columns = json!([
            { "name": "a", "type": "numeric" },
            { "name": "b", "type": "float" },
            { "name": "c", "type": "numeric", "decimal": "." },
            { "name": "d", "type": "integer", "thousands": "," },
            { "name": "e", "type": "text" },
        ]);
        let definition = effective(columns, &decimal(',')).unwrap();
        let marks: Vec<_> = definition.columns.iter().map(|it| it.decimal).collect();
        assert_eq!(marks, [Some(','), Some(','), Some('.'), None, None]);
    }

    #[test]
    fn the_date_format_of_a_file_is_that_of_dates_without_their_own() {
        let columns = json!([
            { "name": "a", "type": "date" },
            { "name": "b", "type": "date", "format": "%d.%m.%Y" },
            { "name": "c", "type": "timestamp" },
            { "name": "d", "type": "text" },
        ]);
        let definition = effective(columns, &date_format("%d/%m/%Y")).unwrap();
        let formats = definition.columns.iter().map(|it| it.format.as_deref());
        let formats: Vec<_> = formats.collect();
        assert_eq!(formats, [Some("%d/%m/%Y"), Some("%d.%m.%Y"), None, None]);
    }

    #[test]
    fn a_rule_that_contradicts_a_column_is_a_fault_that_names_both() {
        let grouped = json!([{ "name": "price", "type": "float", "thousands": "," }]);
        let repeated = effective(grouped, &decimal(',')).unwrap_err();
        assert_eq!(repeated.field, "decimal");
        let start = "column `price` of the dataset has `,` between thousands";
        assert!(repeated.message.starts_with(start), "{repeated}");
        let words = json!([
            { "name": "paid", "type": "boolean", "true": ["S"], "false": ["x", "N"] },
        ]);
        let both = effective(words.clone(), &null(&["", "N"])).unwrap_err();
        assert_eq!(both.field, "null");
        let start = "column `paid` of the dataset has the same text in `false[1]`";
        assert!(both.message.starts_with(start), "{both}");
        assert!(effective(words, &null(&["", "n"])).is_ok());
    }

    #[test]
    fn a_rule_that_no_column_could_have_is_a_fault_even_if_no_column_takes_it() {
        let text = json!([{ "name": "a", "type": "text" }]);
        let field = |reading: &FileReading| effective(text.clone(), reading).unwrap_err().field;
        for mark in ['5', 'e', '-', ' ', '\t'] {
            assert_eq!(field(&decimal(mark)), "decimal", "{mark:?}");
        }
        for format in ["", "%d/%m", "%F %T", "%Q"] {
            assert_eq!(field(&date_format(format)), "date_format", "{format}");
        }
        assert_eq!(field(&null(&["x"; MAX_TEXTS + 1])), "null");
        assert!(effective(text, &null(&["x"; MAX_TEXTS])).is_ok());
    }

    /// Columns without their names.
    fn any_column() -> impl Strategy<Value = Value> {
        select(vec![
            json!({ "type": "text", "null": ["-"] }),
            json!({ "type": "integer", "thousands": "," }),
            json!({ "type": "numeric" }),
            json!({ "type": "numeric", "decimal": ",", "thousands": "." }),
            json!({ "type": "float", "thousands": "," }),
            json!({ "type": "date" }),
            json!({ "type": "date", "format": "%d.%m.%Y" }),
            json!({ "type": "timestamp" }),
            json!({ "type": "timestamp", "format": "%d.%m.%Y" }),
            json!({ "type": "boolean" }),
            json!({ "type": "boolean", "true": ["S"], "false": [" N"] }),
            json!({ "type": "boolean", "true": ["S"], "false": ["N"], "null": ["-"] }),
        ])
    }

    fn any_reading() -> impl Strategy<Value = FileReading> {
        let null = subsequence(vec!["", "-", "NA", "N", "S", "s"], 0..=3);
        let null = null.prop_map(|texts| {
            let texts = texts.into_iter().map(str::to_owned);
            texts.collect::<Vec<_>>()
        });
        let date_format = select(vec!["%d/%m/%Y", "%Y%m%d"]).prop_map(str::to_owned);
        let parts = (
            option::of(null),
            option::of(select(vec!['.', ',', '\''])),
            option::of(date_format),
        );
        parts.prop_map(|(null, decimal, date_format)| FileReading {
            null,
            decimal,
            date_format,
        })
    }

    /// Writes the rules of a file into the JSON of a definition.
    fn written(definition: &Value, reading: &FileReading) -> Value {
        let mut written = definition.clone();
        if let Some(texts) = &reading.null {
            written["null"] = json!(texts);
        }
        for column in written["columns"].as_array_mut().unwrap() {
            let (field, value) = match column["type"].as_str() {
                Some("numeric" | "float") => ("decimal", json!(reading.decimal)),
                Some("date") => ("format", json!(reading.date_format)),
                _ => continue,
            };
            if column[field].is_null() {
                column[field] = value;
            }
        }
        written
    }

    proptest! {
        #[test]
        fn the_rules_of_a_file_make_the_definition_that_has_them_written_in_it(
            mut columns in prop::collection::vec(any_column(), 1..5),
            reading in any_reading(),
        ) {
            for (index, column) in columns.iter_mut().enumerate() {
                column["name"] = json!(format!("c{index}"));
            }
            let definition = json!({ "columns": columns });
            let stored = read(&definition).unwrap();
            let effective = stored.with_reading(&reading);
            let expected = read(&written(&definition, &reading));
            prop_assert_eq!(effective.is_ok(), expected.is_ok());
            if let (Ok(effective), Ok(expected)) = (effective, expected) {
                prop_assert_eq!(effective.typed_columns(), stored.typed_columns());
                prop_assert_eq!(effective, expected);
            }
        }
    }
}
