//! The operations of the OpenAPI document: what each requires, and how it may be refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use carga_testkit::repository;
use serde_json::Value;

/// An operation of the document.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) route: String,
    /// One of these scopes is enough. `None`: the operation needs no key.
    pub(crate) scopes: Option<BTreeSet<String>>,
    /// The codes of each status; none for an answer that is no refusal.
    pub(crate) answers: BTreeMap<u16, Vec<String>>,
}

impl Operation {
    fn path(&self) -> &str {
        let (_, path) = self.route.split_once(' ').unwrap_or_default();
        path
    }
}

pub(crate) fn document() -> Result<&'static Value> {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    if let Some(document) = DOCUMENT.get() {
        return Ok(document);
    }
    let text = std::fs::read_to_string(repository().join("docs/openapi.json"))?;
    let document = serde_json::from_str(&text)?;
    Ok(DOCUMENT.get_or_init(|| document))
}

pub(crate) fn operations() -> Result<Vec<Operation>> {
    let document = document()?;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().context("no paths")? {
        for (method, value) in item.as_object().context("no methods")? {
            let route = format!("{} {path}", method.to_uppercase());
            let operation = operation(document, route, value);
            operations.push(operation.with_context(|| format!("{method} {path}"))?);
        }
    }
    Ok(operations)
}

fn operation(document: &Value, route: String, value: &Value) -> Result<Operation> {
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
        let answer = resolved(document, answer)?;
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

/// The value itself, or the component that it refers to.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> Result<&'a Value> {
    let Some(reference) = value["$ref"].as_str() else {
        return Ok(value);
    };
    let target = document.pointer(reference.trim_start_matches('#'));
    target.with_context(|| format!("{reference} is missing"))
}

fn only_text(list: &Value) -> Result<String> {
    let [only] = list.as_array().context("no list")?.as_slice() else {
        bail!("not exactly one: {list}");
    };
    Ok(only.as_str().context("no text")?.to_owned())
}

/// A status with a code.
type Refused = (u16, String);

/// Fails unless the document says that a request with this path may be refused in this way. An
/// answer does not name its method, so a refusal of any operation of the path will do.
pub(crate) fn expect_documented(path: &str, status: u16, code: &str) -> Result<()> {
    let operations = operations()?;
    let of_path = of_path(&operations, path);
    let mut allowed = of_every_call(&operations);
    allowed.extend(of_path.iter().copied().flat_map(refusals));
    allowed.insert(match of_path.is_empty() {
        true => (404, "not_found".to_owned()),
        false => (405, "method_not_allowed".to_owned()),
    });
    let refused = (status, code.to_owned());
    ensure!(
        allowed.contains(&refused),
        "docs/openapi.json has no {status} `{code}` for {path}"
    );
    Ok(())
}

fn refusals(operation: &Operation) -> impl Iterator<Item = Refused> {
    let answers = operation.answers.iter();
    answers.flat_map(|(status, codes)| codes.iter().map(|code| (*status, code.clone())))
}

/// The operations of the path. A path without parameters comes before one with parameters.
fn of_path<'a>(operations: &'a [Operation], path: &str) -> Vec<&'a Operation> {
    let fits = |template: &str| {
        let [parts, given] = [template, path].map(|path| path.split('/').collect::<Vec<_>>());
        let is_same = |(part, given): (&&str, &&str)| match part.starts_with('{') {
            true => !given.is_empty(),
            false => part == given,
        };
        parts.len() == given.len() && parts.iter().zip(&given).all(is_same)
    };
    let fitting = operations.iter().map(Operation::path).filter(|it| fits(it));
    let best = fitting.min_by_key(|template| template.matches('{').count());
    let is_of_best = |operation: &&Operation| Some(operation.path()) == best;
    operations.iter().filter(|it| is_of_best(it)).collect()
}

/// The refusals of every operation that needs a key. A path or a method that no operation has may
/// have them too.
fn of_every_call(operations: &[Operation]) -> BTreeSet<Refused> {
    let closed = operations.iter().filter(|it| it.scopes.is_some());
    let each = closed.map(|operation| refusals(operation).collect::<BTreeSet<_>>());
    each.reduce(|all, more| &all & &more).unwrap_or_default()
}

#[test]
fn a_refusal_that_the_document_lacks_is_found() -> Result<()> {
    for (path, status, code) in [
        ("/uploads", 400, "unknown_option"),
        ("/uploads", 405, "method_not_allowed"),
        ("/uploads/preview", 400, "malformed_form"),
        ("/uploads/1/rows", 409, "wrong_state"),
        ("/datasets/suggest", 422, "no_definition"),
        ("/livez", 401, "missing_key"),
        ("/missing", 404, "not_found"),
        ("/missing", 403, "cross_origin"),
    ] {
        expect_documented(path, status, code)?;
    }
    for (path, status, code) in [
        ("/uploads", 404, "not_found"),
        ("/uploads", 409, "wrong_state"),
        ("/uploads/preview", 409, "id_used"),
        ("/uploads/1/rows", 422, "wrong_state"),
        ("/missing", 405, "method_not_allowed"),
        ("/missing", 404, "upload_not_found"),
    ] {
        let found = expect_documented(path, status, code);
        ensure!(found.is_err(), "{status} {code} for {path}");
    }
    Ok(())
}
