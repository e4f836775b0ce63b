//! Tests of the options, by their names and values.

use carga_common::dataset::{Definition, Mode};
use carga_common::upload::Merge;
use serde_json::json;

use super::*;
use crate::csv::Names;
use crate::matching::UnknownColumns;
use crate::policy::{MaxRejects, OnError};
use crate::refusal::{Refusal, RefusalKind};

#[test]
fn the_documentation_lists_exactly_these_options() {
    let document = include_str!("../../../docs/api.md");
    let (_, table) = document.split_once("| Option |").unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let documented: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    let mut names = OPTIONS.map(|spec| spec.name).to_vec();
    names.sort_unstable();
    let mut sorted = documented.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, names);
}

#[test]
fn unknown_and_repeated_options_are_refused_by_name() {
    let mut options = Options::default();
    let refusal = options.set("data_set", "x").unwrap_err();
    assert_eq!(refusal.failure.code, "unknown_option");
    assert!(refusal.failure.message.contains("data_set"));
    options.set("filename", "a.csv").unwrap();
    let refusal = options.set("filename", "b.csv").unwrap_err();
    assert_eq!(refusal.failure.code, "repeated_option");
}

#[test]
fn a_digest_is_accepted_in_either_case_and_checked() {
    let mut options = Options::default();
    options.set("sha256", &"AB".repeat(32)).unwrap();
    assert!(options.check_sha256([0xab; 32].into()).is_ok());
    let refusal = options.check_sha256([0xcd; 32].into()).unwrap_err();
    assert_eq!(refusal.failure.code, "sha256_mismatch");
}

#[test]
fn option_values_are_parsed_as_the_contract_defines_them() {
    let parsed =
        |name: &str, value: &str| Options::from_query(&[(name.to_owned(), value.to_owned())]);
    let csv = |name: &str, value: &str| parsed(name, value).unwrap().csv;
    assert_eq!(csv("delimiter", "tab").delimiter, Some('\t'));
    assert_eq!(csv("delimiter", "§").delimiter, Some('§'));
    assert_eq!(csv("quote", "'").quote, Some(Some(b'\'')));
    assert_eq!(csv("quote", "none").quote, Some(None));
    assert_eq!(
        csv("encoding", "Latin1").encoding.unwrap().name(),
        "windows-1252"
    );
    assert_eq!(csv("escape", "\\").escape, Some(Some(b'\\')));
    assert_eq!(csv("skip", "3").skip, Some(3));
    assert_eq!(csv("header", "false").header, Some(false));
    let columns = csv("columns", "id,\"last, first\"").columns.unwrap();
    assert_eq!(columns, ["id", "last, first"]);
    assert_eq!(csv("names", "strict").names, Names::Strict);
    assert_eq!(csv("trim", "true").trim, Some(true));
    assert!(csv("short_rows", "pad").pad_short_rows);
    let policy = |name: &str, value: &str| parsed(name, value).unwrap().policy;
    assert_eq!(policy("on_error", "abort").on_error, OnError::Abort);
    assert_eq!(
        policy("max_rejects", "10").max_rejects,
        MaxRejects::Rows(10)
    );
    assert_eq!(
        policy("max_rejects", "0.5%").max_rejects,
        MaxRejects::Percent(0.5)
    );
    let dataset = parsed("dataset", "Sales 2026").unwrap().dataset.unwrap();
    assert_eq!(dataset.as_str(), "Sales 2026");
    for (name, value) in [
        ("delimiter", ""),
        ("delimiter", ",,"),
        ("delimiter", "\n"),
        ("delimiter", "\""),
        ("delimiter", "\u{fffd}"),
        ("quote", "ab"),
        ("quote", "é"),
        ("encoding", "klingon"),
        ("encoding", "hz-gb-2312"),
        ("header", "yes"),
        ("escape", "ab"),
        ("skip", "-1"),
        ("columns", ""),
        ("columns", "a,\"b"),
        ("columns", "a,b\nc,d"),
        ("columns", "a,,c"),
        ("columns", "a,a"),
        ("names", "keep"),
        ("trim", "1"),
        ("short_rows", "ignore"),
        ("on_error", "ignore"),
        ("max_rejects", "-1"),
        ("max_rejects", "101%"),
        ("max_rejects", "NaN%"),
        ("on_duplicate", "maybe"),
        ("sha256", "abc"),
        ("dataset", ""),
        ("dataset", "a/b"),
        ("dataset", "sales_rows"),
        ("null", "a\0"),
        ("null", "\u{fffd}"),
        ("decimal", ""),
        ("decimal", ",,"),
        ("decimal", "5"),
        ("decimal", " "),
        ("decimal", "\u{fffd}"),
        ("date_format", ""),
        ("date_format", "%d/%m"),
        ("date_format", "%F %T"),
        ("date_format", "%d\0%m\0%Y"),
        ("date_format", "%d\u{fffd}%m\u{fffd}%Y"),
        ("unknown_columns", "drop"),
        ("mode", "replace"),
        ("mode", "Update"),
        ("atomic", "yes"),
    ] {
        let refusal = parsed(name, value).unwrap_err();
        assert_eq!(refusal.failure.code, "malformed_option", "{name}={value}");
        assert!(refusal.failure.message.contains(name));
    }
}

#[test]
fn the_order_of_options_does_not_matter() {
    let is_accepted = |pairs: [(&str, &str); 2]| {
        let query = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        match Options::from_query(&query) {
            Ok(_) => true,
            Err(refusal) => {
                assert_eq!(refusal.failure.code, "malformed_option");
                assert!(refusal.failure.message.contains("`delimiter`"));
                false
            }
        }
    };
    for (delimiter, other, expected) in [
        ("\"", ("quote", "none"), true),
        ("\"", ("quote", "'"), true),
        ("\"", ("escape", "\\"), false),
        ("'", ("quote", "'"), false),
        ("|", ("escape", "|"), false),
        ("|", ("escape", "none"), true),
    ] {
        let delimiter = ("delimiter", delimiter);
        assert_eq!(is_accepted([delimiter, other]), expected, "{other:?}");
        assert_eq!(is_accepted([other, delimiter]), expected, "{other:?}");
    }
}

#[test]
fn some_options_are_those_of_uploads_with_a_dataset() {
    let with_dataset = |name: &str, value: &str| {
        let option = (name.to_owned(), value.to_owned());
        let alone = Options::from_query(std::slice::from_ref(&option));
        let refusal = alone.unwrap_err();
        assert_eq!(refusal.failure.code, "malformed_option");
        assert!(refusal.failure.message.contains(name), "{refusal}");
        assert!(refusal.failure.message.contains("`dataset`"), "{refusal}");
        let dataset = ("dataset".to_owned(), "sales".to_owned());
        Options::from_query(&[option, dataset]).unwrap()
    };
    let options = with_dataset("unknown_columns", "ignore");
    assert_eq!(options.unknown_columns, Some(UnknownColumns::Ignore));
    assert_eq!(with_dataset("mode", "ignore").mode, Some(Mode::Ignore));
    assert_eq!(with_dataset("atomic", "false").atomic, Some(false));
    let null = with_dataset("null", "").reading.null;
    assert_eq!(null, Some(vec![String::new()]));
    let decimal = with_dataset("decimal", ",").reading.decimal;
    assert_eq!(decimal, Some(','));
    let format = with_dataset("date_format", "%d/%m/%Y").reading.date_format;
    assert_eq!(format.as_deref(), Some("%d/%m/%Y"));
}

#[test]
fn null_may_be_repeated_and_no_other_option_may() {
    let mut options = Options::default();
    for text in ["NA", "", "NA"] {
        options.check_name("null").unwrap();
        options.set("null", text).unwrap();
    }
    let texts = ["NA", "", "NA"].map(str::to_owned);
    let given = texts.clone().map(|text| ("null", text));
    assert_eq!(options.given(), given);
    assert_eq!(options.reading.null, Some(texts.to_vec()));
    for spec in OPTIONS.iter().filter(|spec| spec.name != "null") {
        options.given.push((spec.name, String::new()));
        let refusal = options.check_name(spec.name).unwrap_err();
        assert_eq!(refusal.failure.code, "repeated_option", "{}", spec.name);
    }
}

#[test]
fn null_may_be_given_as_often_as_a_definition_has_texts() {
    let mut options = Options::default();
    for _ in 0..1000 {
        options.set("null", "NA").unwrap();
    }
    let refusal = options.set("null", "NA").unwrap_err();
    assert_eq!(refusal.failure.code, "malformed_option");
    let message = refusal.failure.message;
    assert!(message.contains("at most 1000 times"), "{message}");
}

#[test]
fn the_refusal_of_a_date_format_says_which_rule_it_breaks() {
    let refusal = Options::default().set("date_format", "%d/%m").unwrap_err();
    let message = refusal.failure.message;
    let start = "option `date_format`: the year is missing";
    assert!(message.starts_with(start), "{message}");
}

#[test]
fn an_option_that_contradicts_a_column_is_refused_by_its_name() {
    let definition = json!({ "columns": [
        { "name": "price", "type": "numeric", "thousands": "," },
        { "name": "paid", "type": "boolean", "true": ["S"], "false": ["N"] },
    ] });
    let definition = Definition::from_json(definition.to_string().as_bytes()).unwrap();
    for (name, value, column) in [("decimal", ",", "price"), ("null", "N", "paid")] {
        let mut options = Options::default();
        options.set(name, value).unwrap();
        let refusal = options.effective_definition(&definition).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Unprocessable);
        assert_eq!(refusal.failure.code, "malformed_option");
        let message = refusal.failure.message;
        let start = format!("option `{name}`: column `{column}` of the dataset has ");
        assert!(message.starts_with(&start), "{message}");
    }
    let unchanged = Options::default().effective_definition(&definition);
    assert_eq!(unchanged.unwrap(), definition);
}

/// The merge into a dataset with one column, which is its key if the dataset has a mode.
fn merge(options: &Options, of_dataset: Option<Mode>) -> Result<Option<Merge>, Refusal> {
    let columns = json!([{ "name": "sku", "type": "text" }]);
    let definition = match of_dataset {
        Some(mode) => json!({ "columns": columns, "key": ["sku"], "mode": mode }),
        None => json!({ "columns": columns }),
    };
    let definition = Definition::from_json(definition.to_string().as_bytes()).unwrap();
    options.merge(&"sales".parse().unwrap(), &definition)
}

#[test]
fn rows_are_merged_at_the_end_by_a_key_or_if_the_upload_is_atomic() {
    use Mode::{Append, Ignore, Update};
    for (of_dataset, mode, atomic, expected) in [
        (None, None, None, None),
        (None, Some(Append), Some(false), None),
        (None, None, Some(true), Some(Append)),
        (Some(Update), None, None, Some(Update)),
        (Some(Update), Some(Ignore), Some(false), Some(Ignore)),
        (Some(Update), Some(Append), None, None),
        (Some(Append), None, Some(true), Some(Append)),
        (Some(Append), Some(Update), None, Some(Update)),
    ] {
        let options = Options {
            mode,
            atomic,
            ..Options::default()
        };
        let key = of_dataset.map(|_| "sku".to_owned());
        let expected = expected.map(|mode| Merge {
            mode,
            key: key.into_iter().collect(),
        });
        assert_eq!(merge(&options, of_dataset).unwrap(), expected);
    }
}

#[test]
fn rows_for_a_table_of_the_user_are_merged_with_every_option() {
    let columns = json!([{ "name": "sku", "type": "text" }]);
    let definition = json!({ "columns": columns, "table": "shop.prices" });
    let definition = Definition::from_json(definition.to_string().as_bytes()).unwrap();
    for mode in [None, Some(Mode::Append)] {
        for atomic in [None, Some(true), Some(false)] {
            let options = Options {
                mode,
                atomic,
                ..Options::default()
            };
            let merge = options.merge(&"sales".parse().unwrap(), &definition);
            let expected = Merge {
                mode: Mode::Append,
                key: Vec::new(),
            };
            assert_eq!(merge.unwrap(), Some(expected), "{mode:?} {atomic:?}");
        }
    }
}

#[test]
fn a_mode_that_needs_a_key_is_refused_for_a_dataset_without_one() {
    for mode in [Mode::Update, Mode::Ignore] {
        let options = Options {
            mode: Some(mode),
            ..Options::default()
        };
        let refusal = merge(&options, None).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Unprocessable);
        assert_eq!(refusal.failure.code, "no_key");
        let message = refusal.failure.message;
        assert!(
            message.starts_with("dataset `sales` has no key; "),
            "{message}"
        );
    }
}

#[test]
fn a_variation_of_the_options_keeps_what_the_content_type_says() {
    let mut options = Options::default();
    options.set("quote", "none").unwrap();
    options.default_header(Some(false));
    let varied = options.with("skip", "1").unwrap();
    assert_eq!(varied.csv.header, Some(false));
    let varied = options.with("header", "true").unwrap();
    assert_eq!(varied.csv.header, Some(true));
}

#[test]
fn a_variation_of_the_options_keeps_every_value_of_a_repeated_one() {
    let mut options = Options::default();
    for (name, value) in [("dataset", "sales"), ("null", "NA"), ("null", "")] {
        options.set(name, value).unwrap();
    }
    let varied = options.with("skip", "1").unwrap();
    assert_eq!(varied.reading, options.reading);
}

#[test]
fn a_file_name_has_no_directories_and_no_characters_that_reorder_text() {
    for (sent, kept) in [
        ("a.csv", "a.csv"),
        ("../../etc/passwd", "passwd"),
        ("C:\\x\\a.csv", "a.csv"),
        ("x/y\\a.csv", "a.csv"),
        ("x/a.csv/", "a.csv"),
        ("a\u{202e}vsc.exe", "avsc.exe"),
        ("\u{2066}a\u{2069}\n.csv", "a.csv"),
    ] {
        let mut of_part = Options::default();
        of_part.default_filename(Some(sent));
        let mut of_option = Options::default();
        of_option.set("filename", sent).unwrap();
        for options in [of_part, of_option] {
            assert_eq!(options.filename.as_deref(), Some(kept));
        }
    }
    for empty in ["", "/", "\u{202e}"] {
        let mut options = Options::default();
        options.default_filename(Some(empty));
        assert_eq!(options.filename, None);
    }
}
