//! Checks that a name in a header means at most one column of a definition.
//!
//! An import finds a column by its exact name, then by an exact text of `from`, then by another
//! spelling of its name, and then by another spelling of a text in `from`. The first rule that
//! finds a column decides, so two columns must not have the same name for one rule. A text in
//! `from` may be another spelling of the name of another column. It must not be exactly that name,
//! because the first rule would always find the other column.

use std::collections::HashMap;

use super::column::ColumnDefinition;
use super::fields::DefinitionFault;
use super::folding::folded_name;

/// The differences between two spellings of a name.
const SPELLING: &str = "case, accents, blanks and punctuation do not count";

/// Checks all names and all texts of `from`. The fault is that of the later column.
pub(super) fn check_meanings(columns: &[ColumnDefinition]) -> Result<(), DefinitionFault> {
    check_names(columns)?;
    check_from(columns)
}

fn check_names(columns: &[ColumnDefinition]) -> Result<(), DefinitionFault> {
    let mut spellings: HashMap<String, usize> = HashMap::with_capacity(columns.len());
    for (index, column) in columns.iter().enumerate() {
        if let Some(first) = spellings.insert(folded_name(&column.name), index) {
            let message = format!(
                "a name in a header could also mean `columns[{first}]`, whose name is the same: {SPELLING}"
            );
            let path = format!("columns[{index}].name");
            return Err(DefinitionFault::new(path, message));
        }
    }
    Ok(())
}

fn check_from(columns: &[ColumnDefinition]) -> Result<(), DefinitionFault> {
    let names = columns.iter().map(|column| column.name.as_str());
    let names: HashMap<&str, usize> = names.zip(0..).collect();
    let mut spellings: HashMap<String, usize> = HashMap::new();
    for (index, column) in columns.iter().enumerate() {
        for (position, text) in column.from.iter().enumerate() {
            let fault = |message: String| {
                let path = format!("columns[{index}].from[{position}]");
                Err(DefinitionFault::new(path, message))
            };
            let named = names.get(text.as_str()).filter(|named| **named != index);
            if let Some(named) = named {
                return fault(format!("the text is the name of `columns[{named}]`"));
            }
            let first = *spellings.entry(folded_name(text)).or_insert(index);
            if first != index {
                return fault(format!(
                    "`columns[{first}].from` has the same text: {SPELLING}"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::dataset::{Definition, DefinitionFault};

    fn read(columns: Value) -> Result<Definition, DefinitionFault> {
        let json = json!({ "columns": columns }).to_string();
        Definition::from_json(json.as_bytes())
    }

    /// A column with this name and these texts in `from`.
    fn column(name: &str, from: &[&str]) -> Value {
        json!({ "name": name, "type": "text", "from": from })
    }

    fn fault(columns: &[Value]) -> String {
        read(json!(columns)).unwrap_err().to_string()
    }

    #[test]
    fn two_names_must_not_be_spellings_of_one() {
        let accents = fault(&[
            column("código", &[]),
            column("a", &[]),
            column("codigo", &[]),
        ]);
        let start = "`columns[2].name`: a name in a header could also mean `columns[0]`";
        assert!(accents.starts_with(start), "{accents}");
        let blanks = fault(&[column("a b", &[]), column("ab", &[])]);
        assert!(blanks.starts_with("`columns[1].name`: "), "{blanks}");
        let different = [
            column("Q1.1", &[]),
            column("Q11", &[]),
            column("Q11 %", &[]),
        ];
        assert!(read(json!(different)).is_ok());
    }

    #[test]
    fn a_text_in_from_must_not_mean_two_columns() {
        let net = column("net", &["x", "amount"]);
        let both = fault(&[net, column("gross", &["Amount"])]);
        let start = "`columns[1].from[0]`: `columns[0].from` has the same text: ";
        assert!(both.starts_with(start), "{both}");
        let net = column("net", &["a", "gross"]);
        assert_eq!(
            fault(&[net, column("gross", &[])]),
            "`columns[0].from[1]`: the text is the name of `columns[1]`"
        );
    }

    #[test]
    fn a_column_may_repeat_its_own_names_and_spell_the_name_of_another_differently() {
        let own = column("sku", &["sku", "SKU", "código", "Codigo"]);
        assert!(read(json!([own])).is_ok());
        let total = column("total", &["Total c/ IVA"]);
        assert!(read(json!([total, column("subtotal", &["Total"])])).is_ok());
    }
}
