//! The options of the document are those of the parsers.

use std::collections::BTreeSet;

use carga_intake::options::{OF_DATASETS, OPTIONS};
use serde_json::Value;

use super::super::document;
use super::resolved;
use crate::routes::{audit, batches, datasets, events, exports, keys, read};

/// The calls without a file that have options, and the lists of their parsers.
const LISTS: &[(&str, &[&str])] = &[
    ("get /audit", &audit::LIST_OPTIONS),
    ("get /datasets", &datasets::LIST_OPTIONS),
    ("get /events", &events::LIST_OPTIONS),
    ("get /keys", &keys::LIST_OPTIONS),
    ("get /uploads", &read::LIST_OPTIONS),
    ("get /uploads/{id}/batches", &batches::LIST_OPTIONS),
    ("get /uploads/{id}/rejected", &exports::REJECTED_OPTIONS),
    ("get /uploads/{id}/rows", &exports::ROWS_OPTIONS),
    ("post /uploads/{id}/retry", &batches::RETRY_OPTIONS),
];

/// The parameters of the query of an operation.
fn in_query<'a>(document: &'a Value, operation: &'a Value) -> BTreeSet<&'a str> {
    let parameters = operation["parameters"].as_array().unwrap().iter();
    let parameters = parameters.map(|it| resolved(document, it));
    let in_query = parameters.filter(|it| it["in"] == "query");
    in_query.map(|it| it["name"].as_str().unwrap()).collect()
}

fn takes_file(operation: &Value) -> bool {
    let content = &operation["requestBody"]["content"];
    content.get("multipart/form-data").is_some()
}

#[test]
fn every_call_with_a_file_takes_the_options_of_the_parser_and_no_others() {
    let document = document();
    for (path, method) in [
        ("/uploads", "post"),
        ("/uploads/{id}", "put"),
        ("/uploads/validate", "post"),
        ("/uploads/preview", "post"),
        ("/datasets/suggest", "post"),
    ] {
        let has_dataset = !matches!(path, "/uploads/preview" | "/datasets/suggest");
        let is_taken = |name: &&str| has_dataset || !OF_DATASETS.contains(name);
        let names = OPTIONS.map(|spec| spec.name).into_iter();
        let mut expected: BTreeSet<&str> = names.filter(is_taken).collect();
        let operation = &document["paths"][path][method];
        assert_eq!(in_query(&document, operation), expected, "{path}");
        let form = &operation["requestBody"]["content"]["multipart/form-data"]["schema"];
        let form = &resolved(&document, form)["properties"];
        let fields: BTreeSet<&str> = form
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        expected.insert("file");
        assert_eq!(fields, expected, "{path}");
    }
}

#[test]
fn every_other_call_takes_the_options_of_its_parser_and_no_others() {
    let document = document();
    let mut with_options = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if takes_file(operation) {
                continue;
            }
            let call = format!("{method} {path}");
            let list = LISTS.iter().find(|(known, _)| *known == call);
            let expected = list.map(|(_, options)| *options).unwrap_or_default();
            let expected: BTreeSet<&str> = expected.iter().copied().collect();
            assert_eq!(in_query(&document, operation), expected, "{call}");
            if list.is_some() {
                with_options.insert(call);
            }
        }
    }
    assert!(
        LISTS.iter().all(|(call, _)| with_options.contains(*call)),
        "{with_options:?}"
    );
}
