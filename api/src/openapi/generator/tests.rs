//! The document is complete: nothing is in it that the server lacks, and the other way round.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use carga_intake::options::{OF_DATASETS, OPTIONS};
use serde_json::{Value, json};

use super::conformance::faults;
use super::{codes, document, documented};
use crate::access::Requirement;
use crate::openapi::DOCUMENT;
use crate::router::requirements;

/// The variable with which the test of the file writes the file instead.
const WRITE: &str = "WRITE_OPENAPI";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_file_of_the_document_is_current() {
    let document = document();
    if std::env::var_os(WRITE).is_some() {
        let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
        std::fs::write(repository().join("docs/openapi.json"), text).unwrap();
        return;
    }
    let committed: Value = serde_json::from_str(DOCUMENT).unwrap_or_default();
    assert!(
        committed == document,
        "docs/openapi.json is not that of the code; renew it with `make openapi`"
    );
}

#[test]
fn the_document_has_exactly_the_routes_of_the_server() {
    let mut expected: Vec<String> = requirements()
        .into_iter()
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    expected.sort();
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let mut found: Vec<String> = paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn every_operation_requires_the_scopes_of_its_route() {
    for (method, path, operation) in documented() {
        let of_route = |it: &(_, &str, Requirement)| it.0 == method && it.1 == path;
        let (.., requirement) = requirements().into_iter().find(of_route).unwrap();
        let mut scopes = BTreeSet::new();
        for alternative in operation["security"].as_array().unwrap() {
            let (_, required) = alternative.as_object().unwrap().iter().next().unwrap();
            scopes.insert(required[0].as_str().unwrap().to_owned());
        }
        let expected: BTreeSet<String> = match requirement {
            Requirement::Open => BTreeSet::new(),
            Requirement::AnyOf(scopes) => scopes.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(scopes, expected, "{method} {path}");
    }
}

#[test]
fn the_documentation_has_exactly_the_calls_of_the_document_with_their_scopes() {
    // A dataset may have the name `suggest`; the documentation need not say that.
    let is_told = |call: &String| !call.ends_with("/datasets/suggest") || call.starts_with("POST");
    let mut found: Vec<String> = documented()
        .iter()
        .map(|(method, path, _)| format!("{method} {path}"))
        .filter(is_told)
        .collect();
    found.sort();
    let mut calls = codes::calls();
    calls.sort();
    assert_eq!(calls, found);
    let mut with_scopes: Vec<(String, Vec<String>)> = requirements()
        .into_iter()
        .map(|(method, path, requirement)| {
            let scopes = super::scopes(requirement).into_iter();
            (
                format!("{method} {path}"),
                scopes.map(str::to_owned).collect(),
            )
        })
        .filter(|(call, _)| is_told(call))
        .collect();
    let mut told = codes::scopes_of_calls();
    for (_, scopes) in told.iter_mut().chain(&mut with_scopes) {
        scopes.sort();
    }
    told.sort();
    with_scopes.sort();
    assert_eq!(told, with_scopes);
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
        let parameters = operation["parameters"].as_array().unwrap().iter();
        let parameters = parameters.map(|it| resolved(&document, it));
        let in_query = parameters.filter(|it| it["in"] == "query");
        let found: BTreeSet<&str> = in_query.map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(found, expected, "{path}");
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

/// The value itself, or the component that it refers to.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// Every status and code of the operations.
fn refusals() -> BTreeSet<(u16, String)> {
    let mut found = BTreeSet::new();
    for (_, _, operation) in documented() {
        for (status, answer) in operation["responses"].as_object().unwrap() {
            for code in answer["x-codes"].as_array().into_iter().flatten() {
                let code = code.as_str().unwrap().to_owned();
                found.insert((status.parse().unwrap(), code));
            }
        }
    }
    found
}

#[test]
fn the_operations_have_exactly_the_statuses_and_codes_of_the_documentation() {
    let mut expected = BTreeSet::new();
    for row in codes::errors() {
        let mut codes = row.codes;
        if codes.is_empty() {
            // "Any code of a rejected row".
            codes = codes::of_rejected_rows().into_keys().collect();
        }
        expected.extend(codes.into_iter().map(|code| (row.status, code)));
    }
    // These are no answers of a call: the first is in a preview, and the second is for requests
    // that match no call.
    for (status, code) in [(200, "header_not_found"), (405, "method_not_allowed")] {
        assert!(expected.remove(&(status, code.to_owned())), "{code}");
    }
    let found = refusals();
    let missing: Vec<_> = expected.difference(&found).collect();
    let extra: Vec<_> = found.difference(&expected).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing {missing:?}, extra {extra:?}"
    );
}

/// The program's sources, without their tests.
fn sources() -> Vec<String> {
    let mut sources = Vec::new();
    for part in ["api", "common", "intake", "worker"] {
        read(&repository().join(part).join("src"), &mut sources);
    }
    sources
}

fn read(directory: &Path, sources: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if matches!(name, "tests" | "generator") {
            continue;
        }
        if path.is_dir() {
            read(&path, sources);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let (program, _) = text
                .split_once("#[cfg(test)]\nmod tests {")
                .unwrap_or((&text, ""));
            sources.push(program.to_owned());
        }
    }
}

/// The constructors of refusals, failures and faults that take a code as a literal.
const CONSTRUCTORS: [&str; 12] = [
    "Refusal::new(",
    "Refusal::malformed(",
    "Refusal::unprocessable(",
    "Refusal::conflict(",
    "Refusal::unavailable(",
    "Self::unprocessable(",
    "Self::conflict(",
    "Failure::new(",
    "FileFault::new(",
    "RowFault::of_field(",
    "RowFault::of_record(",
    "TableFault::new(",
];

/// The codes of the refusals, failures and faults that the sources make.
fn codes_in_sources() -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for source in sources() {
        for constructor in CONSTRUCTORS {
            for call in source.split(constructor).skip(1) {
                let arguments = call.split(';').next().unwrap();
                let literal = arguments.split('"').nth(1).unwrap_or_default();
                let is_code =
                    |byte: u8| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit();
                if literal.len() > 4 && literal.bytes().all(is_code) {
                    codes.insert(literal.to_owned());
                }
            }
        }
    }
    codes
}

#[test]
fn every_code_in_the_sources_is_in_the_document_and_the_other_way_round() {
    // Commands alone have this one: a server never reads a file of its own machine.
    const OF_COMMANDS: &str = "unreadable_file";
    let document = document();
    let meanings = document["components"]["x-codes"].as_object().unwrap();
    let in_sources = codes_in_sources();
    assert!(in_sources.len() > 50, "{in_sources:?}");
    let known = |code: &&String| meanings.contains_key(*code) || *code == OF_COMMANDS;
    let unknown: Vec<_> = in_sources.iter().filter(|code| !known(code)).collect();
    assert!(unknown.is_empty(), "docs/api.md lacks {unknown:?}");
    let sources = sources().concat();
    let is_used = |code: &&String| sources.contains(&format!("\"{code}\""));
    let unused: Vec<_> = meanings.keys().filter(|code| !is_used(code)).collect();
    assert!(unused.is_empty(), "no source has {unused:?}");
}

#[test]
fn every_example_conforms_to_its_schema() {
    let document = document();
    let mut examples = 0;
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        for example in schema["examples"].as_array().into_iter().flatten() {
            let faults = faults(&document, schema, example);
            assert!(faults.is_empty(), "{name}: {faults:?}");
            examples += 1;
        }
    }
    assert!(examples >= 10, "{examples}");
}

#[test]
fn a_value_that_differs_from_its_schema_has_faults() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    let fault = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut value = schemas[name]["examples"][0].clone();
        change(&mut value);
        !faults(&document, &schemas[name], &value).is_empty()
    };
    assert!(!fault("Upload", &|_| {}));
    assert!(fault("Upload", &|upload| upload["status"] = json!("done")));
    assert!(fault("Upload", &|upload| upload["rows"]["read"] = json!(-1)));
    assert!(fault("Upload", &|upload| upload["rows"]["read"] = Value::Null));
    assert!(fault("Upload", &|upload| {
        upload.as_object_mut().unwrap().remove("error");
    }));
    assert!(fault("DefinitionRequest", &|it| it["rows"] = json!(1)));
    assert!(fault("DefinitionRequest", &|it| it["columns"] = json!([])));
    assert!(fault("KeyRequest", &|it| it["scopes"] = json!(["write"])));
}

#[test]
fn every_reference_leads_to_a_component() {
    let document = document();
    let text = document.to_string();
    for rest in text.split("\"$ref\":\"#").skip(1) {
        let pointer = rest.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
    for leftover in ["[`", "`None`", "`Some"] {
        assert!(
            !text.contains(leftover),
            "a description has the Rust syntax {leftover}"
        );
    }
}

#[test]
fn every_tag_of_an_operation_is_described() {
    let known: BTreeSet<&str> = super::TAGS.iter().map(|(name, _)| *name).collect();
    let mut used = BTreeSet::new();
    for (_, _, operation) in documented() {
        used.insert(operation["tags"][0].as_str().unwrap().to_owned());
    }
    assert!(used.iter().map(String::as_str).eq(known), "{used:?}");
}

#[test]
fn every_id_of_an_operation_is_unique() {
    let mut ids = BTreeSet::new();
    for (_, path, operation) in documented() {
        let id = operation["operationId"].as_str().unwrap().to_owned();
        assert!(ids.insert(id), "{path}");
    }
}
