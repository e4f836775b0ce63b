//! Tests of the matching, by the columns of a definition and the header of a file.

use carga_common::dataset::Definition;
use serde_json::{Value, json};

use super::*;

fn definition(columns: &Value) -> Definition {
    let json = json!({ "columns": columns }).to_string();
    Definition::from_json(json.as_bytes()).unwrap()
}

/// A dataset with the columns `sku`, `price` and `sold_on`. Only `sku` is required.
fn sales() -> Definition {
    definition(&json!([
        { "name": "sku", "type": "text", "required": true, "from": ["Código", "item code"] },
        { "name": "price", "type": "numeric" },
        { "name": "sold_on", "type": "date" },
    ]))
}

/// A dataset with two columns of text, neither of them required.
fn prices() -> Definition {
    definition(&json!([
        { "name": "price", "type": "text" },
        { "name": "price_2", "type": "text" },
    ]))
}

/// A column whose name in the file was replaced.
fn renamed(column: usize, from: &str, to: &str) -> Renamed {
    Renamed {
        column,
        from: from.to_owned(),
        to: Some(to.to_owned()),
    }
}

fn matched(
    definition: &Definition,
    file: &[&str],
    renamed: &[Renamed],
    unknown: UnknownColumns,
) -> Result<Matching, Refusal> {
    let file: Vec<String> = file.iter().map(|name| (*name).to_owned()).collect();
    match_columns(definition, &file, renamed, unknown)
}

/// The sources of the columns of a file without unknown columns.
fn sources(definition: &Definition, file: &[&str]) -> Vec<Option<usize>> {
    let matching = matched(definition, file, &[], UnknownColumns::Error);
    matching.unwrap().sources
}

/// The message of the refusal of a file.
fn refused(definition: &Definition, file: &[&str], unknown: UnknownColumns) -> String {
    refused_renamed(definition, file, &[], unknown)
}

/// The message of the refusal of a file with replaced names.
fn refused_renamed(
    definition: &Definition,
    file: &[&str],
    renamed: &[Renamed],
    unknown: UnknownColumns,
) -> String {
    let refusal = matched(definition, file, renamed, unknown).unwrap_err();
    assert_eq!(refusal.failure.code, "columns_do_not_match");
    refusal.failure.message
}

#[test]
fn columns_are_matched_in_any_order_and_spelling() {
    let all = [Some(2), Some(0), Some(1)];
    assert_eq!(sources(&sales(), &["price", "sold_on", "sku"]), all);
    assert_eq!(sources(&sales(), &["PRICE", "Sold on", " Sku"]), all);
    assert_eq!(sources(&sales(), &["Price", "sold-on", "Código"]), all);
    assert_eq!(sources(&sales(), &["prïce", "SoldOn", "ITEM_CODE"]), all);
}

#[test]
fn the_name_comes_before_from_and_both_before_other_spellings() {
    let sums = definition(&json!([
        { "name": "total", "type": "numeric", "from": ["Total c/ IVA"] },
        { "name": "subtotal", "type": "numeric", "from": ["Total"] },
    ]));
    for (file, expected) in [
        (["Total", "Total c/ IVA"], [Some(1), Some(0)]),
        (["Total", "total"], [Some(1), Some(0)]),
        (["TOTAL", "Total"], [Some(0), Some(1)]),
        (["TOTAL", "Subtotal"], [Some(0), Some(1)]),
    ] {
        assert_eq!(sources(&sums, &file), expected, "{file:?}");
    }
    assert_eq!(sources(&sums, &["Total"]), [None, Some(0)]);
    assert_eq!(sources(&sums, &["TOTAL C IVA"]), [Some(0), None]);
}

#[test]
fn a_column_that_is_not_required_may_be_missing() {
    let found = matched(&sales(), &["sku"], &[], UnknownColumns::Error);
    let found = found.unwrap();
    assert_eq!(found.sources, [Some(0), None, None]);
    assert_eq!(found.missing, ["price", "sold_on"]);
    assert!(found.ignored.is_empty());
}

#[test]
fn every_column_at_fault_is_named_in_one_message() {
    let strict = definition(&json!([
        { "name": "sku", "type": "text", "required": true, "from": ["CODIGO"] },
        { "name": "price", "type": "numeric" },
        { "name": "shop", "type": "text", "required": true },
        { "name": "city", "type": "text", "required": true },
    ]));
    let file = ["Código", "codigo", "prise", "weight", "citx"];
    let message = refused(&strict, &file, UnknownColumns::Error);
    for clause in [
        ": column `prise` of the file is unknown, did you mean `price`?; ",
        "; column `weight` of the file is unknown; ",
        "; column `citx` of the file is unknown, did you mean `city`?; ",
        "; column `shop` is required and the file has none; ",
        "; column `city` is required and the file has none, did you mean `citx`?; ",
        "; `Código` and `codigo` both mean `sku`; ",
        " columns= ",
        " `from` ",
        " unknown_columns=ignore ",
    ] {
        assert!(message.contains(clause), "{clause} is not in: {message}");
    }
    assert!(!message.contains("column `sku` is required"), "{message}");
}

#[test]
fn unknown_columns_are_left_out_if_the_client_says_so() {
    let file = ["note", "sku", "price", "weight"];
    let found = matched(&sales(), &file, &[], UnknownColumns::Ignore);
    let found = found.unwrap();
    assert_eq!(found.sources, [Some(1), Some(2), None]);
    assert_eq!(found.ignored, ["note", "weight"]);
    assert_eq!(found.missing, ["sold_on"]);
    let message = refused(&sales(), &["skus"], UnknownColumns::Ignore);
    assert!(message.contains("has none, did you mean `skus`?; "));
    assert!(!message.contains("unknown"), "{message}");
}

#[test]
fn a_file_without_any_column_of_the_dataset_is_refused_even_if_unknown_columns_are_not() {
    let file = ["column_1", "colour"];
    let message = refused(&prices(), &file, UnknownColumns::Ignore);
    let clause = ": the file has none of them, but `column_1`, `colour`; name the columns ";
    assert!(message.contains(clause), "{message}");
    let names: Vec<String> = (0..1500).map(|number| format!("name {number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let message = refused(&prices(), &names, UnknownColumns::Ignore);
    assert!(message.contains(", `name 9`, …; name the "), "{message}");
}

#[test]
fn names_that_differ_in_a_symbol_mean_different_columns() {
    let priced = definition(&json!([
        { "name": "price", "type": "numeric", "from": ["Price (€)"] },
        { "name": "Q1.1", "type": "integer" },
    ]));
    assert_eq!(sources(&priced, &["q1-1", "PRICE €"]), [Some(1), Some(0)]);
    for other in ["Price ($)", "price %", "Q11"] {
        let message = refused(&priced, &["Q1.1", other], UnknownColumns::Error);
        let clause = format!(": column `{other}` of the file is unknown");
        assert!(message.contains(&clause), "{message}");
    }
}

#[test]
fn columns_of_which_the_file_repeats_the_name_mean_the_same_column() {
    let repeated = [renamed(2, "price", "price_2")];
    for unknown in [UnknownColumns::Error, UnknownColumns::Ignore] {
        let message = refused_renamed(&prices(), &["price", "price_2"], &repeated, unknown);
        let clause = ": the file has 2 columns `price`, which both mean `price`; ";
        assert!(message.contains(clause), "{message}");
        assert!(!message.contains("price_2"), "{message}");
    }
    // The same names in the file itself.
    let found = sources(&prices(), &["price", "price_2"]);
    assert_eq!(found, [Some(0), Some(1)]);
}

#[test]
fn an_unknown_column_has_its_name_in_the_file_in_messages_and_its_own_name_in_the_upload() {
    let repeated = [renamed(3, "note", "note_2")];
    let file = ["sku", "note", "note_2"];
    let message = refused_renamed(&sales(), &file, &repeated, UnknownColumns::Error);
    assert_eq!(message.matches("column `note` of the file").count(), 2);
    assert!(!message.contains("note_2"), "{message}");
    let found = matched(&sales(), &file, &repeated, UnknownColumns::Ignore);
    assert_eq!(found.unwrap().ignored, ["note", "note_2"]);
}

#[test]
fn a_column_without_a_name_is_found_by_its_number() {
    let numbered = definition(&json!([
        { "name": "sku", "type": "text" },
        { "name": "price", "type": "text", "from": ["column_2"] },
    ]));
    let unnamed = [renamed(2, " ", "column_2")];
    let file = ["sku", "column_2"];
    let found = matched(&numbered, &file, &unnamed, UnknownColumns::Error);
    assert_eq!(found.unwrap().sources, [Some(0), Some(1)]);
}

#[test]
fn the_message_says_if_the_names_in_the_header_are_not_used() {
    let numbers = [renamed(1, "sku", "column_1"), renamed(2, "", "column_2")];
    let file = ["column_1", "column_2"];
    for unknown in [UnknownColumns::Error, UnknownColumns::Ignore] {
        let message = refused_renamed(&sales(), &file, &numbers, unknown);
        assert!(message.contains(", so its names were not used; "));
        assert!(!message.contains("`from`"), "{message}");
        let message = refused(&sales(), &file, unknown);
        assert!(!message.contains("were not used"), "{message}");
    }
}

#[test]
fn a_second_spelling_of_a_column_is_not_called_unknown() {
    let message = refused(&sales(), &["sku", "SKU", "código"], UnknownColumns::Error);
    assert!(message.contains(": `sku` and `SKU` both mean `sku`; "));
    assert!(message.contains("; `sku` and `código` both mean `sku`; "));
    assert!(!message.contains("`from`"), "{message}");
    let file = ["Sku", "SKU", "s.k.u."];
    let message = refused(&sales(), &file, UnknownColumns::Error);
    assert!(message.contains(": `Sku` and `SKU` and `s.k.u.` all mean `sku`; "));
    // A further name would mean the column a fourth time.
    assert!(message.contains("columns=") && !message.contains("`from`"));
}

#[test]
fn names_of_punctuation_match_only_themselves() {
    let signs = definition(&json!([
        { "name": "%", "type": "numeric" },
        { "name": "number", "type": "integer", "from": ["#"] },
    ]));
    assert_eq!(sources(&signs, &["#", "%"]), [Some(1), Some(0)]);
    let message = refused(&signs, &["$"], UnknownColumns::Error);
    assert!(message.contains(": column `$` of the file is unknown; "));
}

#[test]
fn a_message_about_many_long_names_stays_short() {
    let file: Vec<String> = (0..1500)
        .map(|number| format!("{number}{}", "é".repeat(200)))
        .collect();
    let file: Vec<&str> = file.iter().map(String::as_str).collect();
    let message = refused(&sales(), &file, UnknownColumns::Error);
    assert!(message.len() < 50_000, "{} bytes", message.len());
    // One more than the columns of the file: `sku` is required.
    assert!(message.contains("; and 1401 more faults; "), "{message}");

    let spellings = (1..=1500).map(|number| format!("sk{}u", " ".repeat(number)));
    let spellings: Vec<String> = spellings.collect();
    let spellings: Vec<&str> = spellings.iter().map(String::as_str).collect();
    let message = refused(&sales(), &spellings, UnknownColumns::Ignore);
    assert!(message.len() < 2000, "{} bytes", message.len());
    assert!(message.contains(" and … all mean `sku`; "), "{message}");
}
