//! Which later definitions the table of a dataset can take.

use super::column::{ColumnDefinition, TypedColumn};
use super::definition::Definition;

/// The difference between a dataset's definition and a later one, by what the table needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The definitions are the same.
    None,
    /// Cells are read by other rules. The table stays as it is.
    Rules,
    /// The table needs these columns at its end, without NOT NULL. The rules may differ too.
    AddColumns(Vec<TypedColumn>),
    /// The table cannot take the definition, for this reason.
    Refused(String),
}

/// The change from the definition of a dataset to a later one.
pub fn change(from: &Definition, to: &Definition) -> Change {
    if from == to {
        return Change::None;
    }
    if let Some(reason) = refusal(from, to) {
        return Change::Refused(reason);
    }
    let added = &to.columns[from.columns.len()..];
    match added {
        [] => Change::Rules,
        added => Change::AddColumns(added.iter().map(ColumnDefinition::typed).collect()),
    }
}

/// The reason for which the table cannot take the definition.
fn refusal(from: &Definition, to: &Definition) -> Option<String> {
    if from.key != to.key {
        return Some("the key cannot change; make a new dataset".to_owned());
    }
    if from.mode != to.mode {
        let (from, to) = (from.mode, to.mode);
        return Some(format!(
            "the mode cannot change from {from} to {to}; make a new dataset"
        ));
    }
    if from.table != to.table {
        return Some("the table cannot change; make a new dataset".to_owned());
    }
    let mut columns = from.columns.iter().enumerate();
    let kept = columns.find_map(|(index, column)| refusal_of(index, column, to));
    kept.or_else(|| refusal_of_added(&to.columns[from.columns.len()..]))
}

/// The reason for which the table cannot take a column that it has.
fn refusal_of(index: usize, column: &ColumnDefinition, to: &Definition) -> Option<String> {
    let name = &column.name;
    let mut columns = to.columns.iter();
    let Some(position) = columns.position(|other| other.name == *name) else {
        return Some(format!(
            "column `{name}` cannot be removed or renamed; keep it, or make a new dataset"
        ));
    };
    if position != index {
        let (index, position) = (index + 1, position + 1);
        return Some(format!(
            "column `{name}` cannot move from position {index} to {position}; new columns go last"
        ));
    }
    let other = &to.columns[position];
    if other.kind != column.kind {
        let (from, to) = (column.kind, other.kind);
        return Some(format!(
            "column `{name}` cannot change its type from {from} to {to}; make a new dataset"
        ));
    }
    match (column.required, other.required) {
        (true, false) if to.table.is_some() => Some(format!(
            "column `{name}` must stay required; keep it, or make a new dataset"
        )),
        (true, false) => Some(format!(
            "column `{name}` must stay required, because its table was created with NOT NULL"
        )),
        (false, true) => Some(format!(
            "column `{name}` cannot become required, because stored rows may have NULL in it"
        )),
        (true, true) | (false, false) => None,
    }
}

/// The reason for which the table cannot get these columns.
fn refusal_of_added(added: &[ColumnDefinition]) -> Option<String> {
    let required = added.iter().find(|column| column.required)?;
    let name = &required.name;
    Some(format!(
        "the new column `{name}` cannot be required, because stored rows may have no value for it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::ColumnType;

    const SKU: &str = r#"{ "name": "sku", "type": "text", "required": true }"#;
    const PRICE: &str = r#"{ "name": "price", "type": "numeric" }"#;

    fn definition(columns: &[&str]) -> Definition {
        let json = format!(r#"{{ "columns": [{}] }}"#, columns.join(","));
        Definition::from_json(json.as_bytes()).unwrap()
    }

    fn change_to(columns: &[&str]) -> Change {
        change(&definition(&[SKU, PRICE]), &definition(columns))
    }

    /// The reason for which a table of `sku` and `price` does not take these columns.
    fn reason(columns: &[&str]) -> String {
        match change_to(columns) {
            Change::Refused(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_same_definition_is_no_change_however_it_is_written() {
        let explicit = r#"{ "type": "numeric", "required": false, "name": "price" }"#;
        assert_eq!(change_to(&[SKU, explicit]), Change::None);
    }

    #[test]
    fn every_rule_for_reading_cells_can_change() {
        let ruled = r#"{ "name": "price", "type": "numeric", "from": ["Preço"], "null": ["-"],
            "decimal": ",", "thousands": ".", "currency": ["R$"] }"#;
        assert_eq!(change_to(&[SKU, ruled]), Change::Rules);
        let ruled = definition(&[SKU, ruled]);
        assert_eq!(change(&ruled, &definition(&[SKU, PRICE])), Change::Rules);
        let mut null = definition(&[SKU]);
        null.null = vec!["NA".to_owned()];
        assert_eq!(change(&definition(&[SKU]), &null), Change::Rules);
    }

    #[test]
    fn columns_that_are_not_required_can_be_added_at_the_end() {
        let day = r#"{ "name": "day", "type": "date" }"#;
        let note = r#"{ "name": "note", "type": "text" }"#;
        let comma = r#"{ "name": "price", "type": "numeric", "decimal": "," }"#;
        let Change::AddColumns(added) = change_to(&[SKU, comma, day, note]) else {
            panic!("the columns were not added");
        };
        let added: Vec<_> = added.iter().map(|c| (c.name.as_str(), c.kind)).collect();
        assert_eq!(
            added,
            [("day", ColumnType::Date), ("note", ColumnType::Text)]
        );
    }

    #[test]
    fn a_required_column_cannot_be_added() {
        let day = r#"{ "name": "day", "type": "date", "required": true }"#;
        assert!(reason(&[SKU, PRICE, day]).contains("`day` cannot be required"));
    }

    #[test]
    fn columns_cannot_be_removed_renamed_or_moved() {
        assert!(reason(&[SKU]).contains("`price` cannot be removed"));
        let renamed = r#"{ "name": "Price", "type": "numeric" }"#;
        assert!(reason(&[SKU, renamed]).contains("`price` cannot be removed or renamed"));
        assert!(reason(&[PRICE, SKU]).contains("`sku` cannot move from position 1 to 2"));
        let day = r#"{ "name": "day", "type": "date" }"#;
        assert!(reason(&[SKU, day, PRICE]).contains("`price` cannot move from position 2 to 3"));
    }

    #[test]
    fn a_type_cannot_change() {
        let float = r#"{ "name": "price", "type": "float" }"#;
        assert!(reason(&[SKU, float]).contains("type from numeric to float"));
    }

    #[test]
    fn a_column_cannot_become_required_or_stop_being_required() {
        let required = r#"{ "name": "price", "type": "numeric", "required": true }"#;
        assert!(reason(&[SKU, required]).contains("`price` cannot become required"));
        let optional = r#"{ "name": "sku", "type": "text" }"#;
        assert!(reason(&[optional, PRICE]).contains("`sku` must stay required"));
    }

    #[test]
    fn a_dataset_of_a_table_of_the_user_changes_like_any_other() {
        let with_table = |columns: &[&str]| Definition {
            table: Some("shop.sales".parse().unwrap()),
            ..definition(columns)
        };
        let from = with_table(&[SKU, PRICE]);
        assert_eq!(change(&from, &with_table(&[SKU, PRICE])), Change::None);
        let day = r#"{ "name": "day", "type": "date" }"#;
        let wider = with_table(&[SKU, PRICE, day]);
        let added = wider.typed_columns().split_off(2);
        assert_eq!(change(&from, &wider), Change::AddColumns(added));
        // Carga has not created the table, so it does not say that the column is NOT NULL.
        let optional = r#"{ "name": "sku", "type": "text" }"#;
        let Change::Refused(reason) = change(&from, &with_table(&[optional, PRICE])) else {
            panic!("a column that is no longer required");
        };
        assert!(reason.starts_with("column `sku` must stay required; "));
    }

    #[test]
    fn the_key_the_mode_and_the_table_cannot_change() {
        let from = definition(&[SKU, PRICE]);
        let mut to = from.clone();
        to.key = vec!["sku".to_owned()];
        assert!(matches!(change(&from, &to), Change::Refused(reason) if reason.contains("key")));
        let mut to = from.clone();
        to.mode = crate::dataset::Mode::Ignore;
        assert!(matches!(change(&from, &to), Change::Refused(reason) if reason.contains("ignore")));
        let mut to = from.clone();
        to.table = Some("public.sales".parse().unwrap());
        assert!(matches!(change(&from, &to), Change::Refused(reason) if reason.contains("table")));
        assert!(matches!(change(&to, &from), Change::Refused(reason) if reason.contains("table")));
        let mut other = to.clone();
        other.table = Some("public.Sales".parse().unwrap());
        assert!(matches!(change(&to, &other), Change::Refused(_)));
    }
}
