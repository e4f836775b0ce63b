//! The operations of the OpenAPI document, and what each requires.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use carga_testkit::repository;
use serde_json::Value;

/// An operation of the document.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) route: String,
    /// One of these scopes is enough. `None`: the operation needs no key.
    pub(super) scopes: Option<BTreeSet<String>>,
    /// The codes of each status; none for an answer that is no refusal.
    pub(super) answers: BTreeMap<u16, Vec<String>>,
}

pub(super) fn document() -> Result<Value> {
    let text = std::fs::read_to_string(repository().join("docs/openapi.json"))?;
    Ok(serde_json::from_str(&text)?)
}

pub(super) fn operations() -> Result<Vec<Operation>> {
    let document = document()?;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().context("no paths")? {
        for (method, value) in item.as_object().context("no methods")? {
            let route = format!("{} {path}", method.to_uppercase());
            let operation = operation(route, value);
            operations.push(operation.with_context(|| format!("{method} {path}"))?);
        }
    }
    Ok(operations)
}

fn operation(route: String, value: &Value) -> Result<Operation> {
    let alternatives = value["security"].as_array().context("no security")?;
    let mut scopes = BTreeSet::new();
    for alternative in alternatives {
        let schemes = alternative.as_object().context("no schemes")?;
        // Several schemes or scopes in one alternative would all be required.
        ensure!(schemes.len() == 1, "{alternative}");
        for required in schemes.values() {
            scopes.insert(only_text(required)?);
        }
    }
    let mut answers = BTreeMap::new();
    for (status, answer) in value["responses"].as_object().context("no responses")? {
        let codes = answer["x-codes"].as_array().into_iter().flatten();
        let codes = codes.filter_map(Value::as_str).map(str::to_owned);
        answers.insert(status.parse()?, codes.collect());
    }
    Ok(Operation {
        route,
        scopes: (!scopes.is_empty()).then_some(scopes),
        answers,
    })
}

fn only_text(list: &Value) -> Result<String> {
    let [only] = list.as_array().context("no list")?.as_slice() else {
        bail!("not exactly one: {list}");
    };
    Ok(only.as_str().context("no text")?.to_owned())
}
