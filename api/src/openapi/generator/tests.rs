//! The document describes everything that the server has, and nothing else.

mod codes;
mod headers;
mod options;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::conformance::faults;
use super::{codes as documentation, document, documented};
use crate::access::Requirement;
use crate::openapi::DOCUMENT;
use crate::router::requirements;

/// With this environment variable, the test of the file writes the file instead.
const WRITE: &str = "WRITE_OPENAPI";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_file_of_the_document_is_current() {
    let document = document();
    if std::env::var_os(WRITE).is_some() {
        // In CI, the test would then pass with any file.
        assert!(
            std::env::var_os("CI").is_none(),
            "{WRITE} is for the computer of a developer; unset it"
        );
        let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
        std::fs::write(repository().join("docs/openapi.json"), text).unwrap();
        return;
    }
    let committed: Value = serde_json::from_str(DOCUMENT).unwrap_or_default();
    assert!(
        committed == document,
        "docs/openapi.json differs from the code; renew it with `make openapi`"
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
    let is_documented =
        |call: &String| !call.ends_with("/datasets/suggest") || call.starts_with("POST");
    let mut found: Vec<String> = documented()
        .iter()
        .map(|(method, path, _)| format!("{method} {path}"))
        .filter(is_documented)
        .collect();
    found.sort();
    let mut calls = documentation::calls();
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
        .filter(|(call, _)| is_documented(call))
        .collect();
    let mut described = documentation::scopes_of_calls();
    for (_, scopes) in described.iter_mut().chain(&mut with_scopes) {
        scopes.sort();
    }
    described.sort();
    with_scopes.sort();
    assert_eq!(described, with_scopes);
}

/// The value itself, or the component that it refers to.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => value,
    }
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
