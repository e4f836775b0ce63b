//! Tests of the check of a table of the user, by the columns of a definition and of the table.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// The type of the database in [`column`], by the type of a dataset.
const TYPES: [(ColumnType, &str); 9] = [
    (ColumnType::Text, "character varying(20)"),
    (ColumnType::Integer, "smallint"),
    (ColumnType::Numeric, "numeric(10,2)"),
    (ColumnType::Float, "double precision"),
    (ColumnType::Boolean, "boolean"),
    (ColumnType::Date, "date"),
    (ColumnType::Timestamp, "timestamp without time zone"),
    (ColumnType::Uuid, "uuid"),
    (ColumnType::Json, "jsonb"),
];

/// A nullable column that takes one type.
fn column(name: &str, kind: ColumnType) -> UserColumn {
    let (_, type_name) = TYPES.iter().find(|(other, _)| *other == kind).unwrap();
    UserColumn {
        name: name.to_owned(),
        type_name: (*type_name).to_owned(),
        takes: vec![kind],
        is_required: false,
        has_default: false,
        is_generated: false,
    }
}

/// A column that refuses NULL and gets no value from the database.
fn needed(name: &str) -> UserColumn {
    UserColumn {
        is_required: true,
        ..column(name, ColumnType::Text)
    }
}

fn table(columns: Vec<UserColumn>) -> UserTable {
    UserTable {
        columns,
        primary_key: Vec::new(),
        unique: Vec::new(),
    }
}

/// A definition of columns with their types, for the table `shop.prices`.
fn definition(columns: &[(&str, ColumnType)], key: &[&str]) -> Definition {
    let columns = columns.iter();
    let columns: Vec<Value> = columns
        .map(|(name, kind)| json!({ "name": name, "type": kind.name() }))
        .collect();
    let json = json!({ "columns": columns, "key": key, "table": "shop.prices" });
    Definition::from_json(json.to_string().as_bytes()).unwrap()
}

/// A definition of text columns.
fn texts(names: &[&str], key: &[&str]) -> Definition {
    let columns: Vec<_> = names.iter().map(|name| (*name, ColumnType::Text)).collect();
    definition(&columns, key)
}

fn names(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Checks with rows that have every column of the definition.
fn check(definition: &Definition, table: &UserTable) -> Result<(), TableFault> {
    let columns = definition.columns.iter();
    let written: Vec<&str> = columns.map(|column| column.name.as_str()).collect();
    check_table(definition, table, &written)
}

/// The message of the fault with this code.
fn fault(checked: Result<(), TableFault>, code: &str) -> String {
    let fault = checked.unwrap_err();
    assert_eq!(fault.code, code, "{fault}");
    fault.message
}

#[test]
fn a_table_takes_the_rows_of_a_dataset_with_some_of_its_columns_in_any_order() {
    let columns = TYPES.iter().rev();
    let mut columns: Vec<UserColumn> = columns
        .map(|(kind, _)| column(kind.name(), *kind))
        .collect();
    columns.push(column("note", ColumnType::Text));
    let declared: Vec<_> = TYPES.iter().map(|(kind, _)| (kind.name(), *kind)).collect();
    assert_eq!(check(&definition(&declared, &[]), &table(columns)), Ok(()));
}

#[test]
fn every_column_that_the_table_does_not_have_is_listed_with_another_spelling_of_its_name() {
    let table = table(vec![needed("Price"), column("sold_on", ColumnType::Date)]);
    let checked = check(&texts(&["sku", "price", "sold_on", "stock"], &[]), &table);
    assert_eq!(
        fault(checked, "column_not_found"),
        "table shop.prices does not have these columns of the definition: `sku`, `price` (did you mean `Price`?), `stock`; correct their names, in which upper and lower case differ, or leave them out"
    );
}

#[test]
fn a_message_lists_the_first_hundred_columns_and_counts_the_others() {
    let all: Vec<String> = (0..150).map(|number| format!("c{number}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for (count, end) in [
        (100, "`c98`, `c99`; correct"),
        (101, "`c99`, and 1 more; correct"),
        (150, "`c99`, and 50 more; correct"),
    ] {
        let checked = check(&texts(&all[..count], &[]), &table(Vec::new()));
        let message = fault(checked, "column_not_found");
        assert!(message.contains(end), "{message}");
        assert!(message.contains(": `c0`, `c1`, "), "{message}");
    }
}

#[test]
fn every_column_of_another_type_is_listed_with_the_types_that_would_fit() {
    let money = UserColumn {
        type_name: "money".to_owned(),
        takes: Vec::new(),
        ..column("price", ColumnType::Numeric)
    };
    let scaled = UserColumn {
        takes: vec![ColumnType::Integer, ColumnType::Numeric],
        ..column("stock", ColumnType::Numeric)
    };
    let table = table(vec![money, scaled, column("sold_on", ColumnType::Date)]);
    let declared = [
        ("price", ColumnType::Numeric),
        ("sold_on", ColumnType::Date),
        ("stock", ColumnType::Float),
    ];
    let checked = check(&definition(&declared, &[]), &table);
    assert_eq!(
        fault(checked, "column_type"),
        "columns of table shop.prices have types to which Carga does not convert the declared types: `price` is money, and numeric needs numeric; no declared type is converted to this type, so leave the column out; `stock` is numeric(10,2), and float needs double precision; declare it as integer or numeric"
    );
}

#[test]
fn a_declared_type_fits_only_the_types_of_the_table_that_take_it() {
    for declared in ColumnType::ALL {
        for (kind, _) in TYPES {
            let checked = check(
                &definition(&[("a", declared)], &[]),
                &table(vec![column("a", kind)]),
            );
            match kind == declared {
                true => assert_eq!(checked, Ok(()), "{declared}"),
                false => {
                    let message = fault(checked, "column_type");
                    let (needs, takes) = (fitting_types(declared), kind.name());
                    let clause = format!("and {declared} needs {needs}; declare it as {takes}");
                    assert!(message.ends_with(&clause), "{message}");
                }
            }
        }
    }
}

#[test]
fn a_column_of_which_the_database_makes_every_value_must_not_be_declared() {
    let generated = |name| UserColumn {
        is_generated: true,
        ..needed(name)
    };
    let columns = vec![generated("id"), needed("sku"), generated("total")];
    let table = table(columns);
    assert_eq!(check(&texts(&["sku"], &[]), &table), Ok(()));
    let checked = check(&texts(&["id", "sku", "total"], &[]), &table);
    assert_eq!(
        fault(checked, "column_generated"),
        "the database makes every value of these columns of table shop.prices: `id`, `total`; leave them out of the definition"
    );
}

#[test]
fn every_column_that_needs_a_value_and_gets_none_is_listed() {
    let with_default = UserColumn {
        has_default: true,
        ..needed("added_at")
    };
    let note = column("note", ColumnType::Text);
    let table = table(vec![
        needed("sku"),
        needed("shop"),
        with_default,
        note,
        needed("stock"),
    ]);
    let definition = texts(&["sku", "stock", "note"], &[]);
    assert_eq!(
        fault(
            check_table(&definition, &table, &["note"]),
            "column_missing"
        ),
        "table shop.prices needs a value for these columns, which are NOT NULL, have no default and get no value from the rows: `sku` (character varying(20)), `shop` (character varying(20)), `stock` (character varying(20)); add them to the definition and to the file, or give them a default in the table"
    );
    // The table also needs a column that the definition does not have.
    let message = fault(check(&definition, &table), "column_missing");
    assert!(message.contains("from the rows: `shop` ("), "{message}");
    assert!(!message.contains("`sku`"), "{message}");
    assert!(!message.contains("`stock`"), "{message}");
}

#[test]
fn a_column_that_the_file_lacks_may_be_null_or_have_a_default() {
    let with_default = UserColumn {
        has_default: true,
        ..needed("shop")
    };
    let note = column("note", ColumnType::Text);
    let table = table(vec![needed("sku"), with_default, note]);
    let definition = texts(&["sku", "shop", "note"], &[]);
    assert_eq!(check_table(&definition, &table, &["sku"]), Ok(()));
}

#[test]
fn a_key_needs_a_unique_index_on_exactly_its_columns() {
    let columns = || ["sku", "day", "shop"].map(needed).to_vec();
    let with = |primary_key: &[&str], unique: &[&[&str]]| UserTable {
        primary_key: names(primary_key),
        unique: unique.iter().map(|columns| names(columns)).collect(),
        ..table(columns())
    };
    let keyed = texts(&["sku", "day", "shop"], &["sku", "day"]);
    for table in [
        with(&[], &[&["sku", "day"]]),
        with(&[], &[&["shop"], &["day", "sku"]]),
        with(&["day", "sku"], &[]),
    ] {
        assert_eq!(check(&keyed, &table), Ok(()), "{table:?}");
    }
    for table in [
        with(&[], &[]),
        with(&["sku"], &[&["day"], &["day", "shop"]]),
        with(&["sku", "day", "shop"], &[&["sku", "shop"]]),
    ] {
        let message = fault(check(&keyed, &table), "key_not_unique");
        for part in [
            "table shop.prices has no unique index on exactly the columns of the key, `sku`, `day`;",
            "`CREATE UNIQUE INDEX ON \"shop\".\"prices\" (\"sku\", \"day\")`",
        ] {
            assert!(message.contains(part), "{message}");
        }
        // Without a key, rows are only appended.
        assert_eq!(check(&texts(&["sku", "day", "shop"], &[]), &table), Ok(()));
    }
}

#[test]
fn the_names_in_the_proposed_index_are_quoted() {
    let json = json!({
        "columns": [{ "name": "a\"b", "type": "text" }],
        "key": ["a\"b"], "table": "my shop.\"prices\"",
    });
    let definition = Definition::from_json(json.to_string().as_bytes()).unwrap();
    let message = fault(
        check(&definition, &table(vec![needed("a\"b")])),
        "key_not_unique",
    );
    let statement = "`CREATE UNIQUE INDEX ON \"my shop\".\"\"\"prices\"\"\" (\"a\"\"b\")`";
    assert!(message.contains(statement), "{message}");
}

/// The flags of a column: whether it refuses NULL, has a default, is generated, is declared, and is
/// written if it is declared.
fn flags() -> impl Strategy<Value = [bool; 5]> {
    any::<[bool; 5]>()
}

proptest! {
    #[test]
    fn a_table_takes_rows_exactly_if_no_column_is_at_fault(columns in prop::collection::vec(flags(), 1..8)) {
        let name = |index: usize| format!("c{index}");
        let of_table: Vec<UserColumn> = columns
            .iter()
            .enumerate()
            .map(|(index, [is_required, has_default, is_generated, ..])| UserColumn {
                is_required: *is_required,
                has_default: *has_default,
                is_generated: *is_generated,
                ..column(&name(index), ColumnType::Text)
            })
            .collect();
        let declared = (0..columns.len()).filter(|at| columns[*at][3]);
        let declared: Vec<String> = declared.map(name).collect();
        prop_assume!(!declared.is_empty());
        let written = (0..columns.len()).filter(|at| columns[*at][3] && columns[*at][4]);
        let written: Vec<String> = written.map(name).collect();
        let mut columns = columns.iter();
        let is_at_fault = columns.any(|[is_required, has_default, is_generated, is_declared, is_written]| {
            let has_value = *has_default || *is_generated || (*is_declared && *is_written);
            (*is_generated && *is_declared) || (*is_required && !has_value)
        });
        let declared: Vec<&str> = declared.iter().map(String::as_str).collect();
        let written: Vec<&str> = written.iter().map(String::as_str).collect();
        let checked = check_table(&texts(&declared, &[]), &table(of_table), &written);
        prop_assert_eq!(checked.is_err(), is_at_fault, "{:?}", checked);
    }
}
