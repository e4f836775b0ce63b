//! The answers of operations.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

/// The headers of every answer, besides those that the description of the document names. A header
/// with a `?` is not always there.
const OF_EVERY_ANSWER: &[&str] = &["X-Request-Id"];

/// The headers of every answer to a counted request. They are not there while no limit is set.
const OF_COUNTED_ANSWERS: &[&str] = &["RateLimit?", "RateLimit-Policy?"];

/// A reference to a schema of the components.
pub(super) fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// An answer with these headers of the components. A header without a `?` is always there.
pub(super) fn answer(description: &str, headers: &[&str], content: Value) -> Value {
    let mut answer = json!({ "description": description, "headers": named(headers) });
    if !content.is_null() {
        answer["content"] = content;
    }
    answer
}

/// An answer in JSON.
pub(super) fn json_answer(description: &str, headers: &[&str], name: &str) -> Value {
    let content = json!({ "application/json": { "schema": schema(name) } });
    answer(description, headers, content)
}

/// The answer to a refused request.
pub(super) fn refusal(status: u16, codes: &[&str]) -> Value {
    let headers: &[&str] = match status {
        401 => &["WWW-Authenticate"],
        405 => &["Allow"],
        403 => &["WWW-Authenticate?"],
        409 if codes.contains(&"idempotency_in_progress") => &["Retry-After?"],
        415 => &["Accept-Encoding?"],
        429 | 503 => &["Retry-After"],
        _ => &[],
    };
    let reason = StatusCode::from_u16(status).unwrap();
    let reason = reason.canonical_reason().unwrap();
    let quoted: Vec<String> = codes.iter().map(|code| format!("`{code}`")).collect();
    let description = format!("{reason}: {}.", quoted.join(", "));
    let content = json!({ "application/problem+json": { "schema": schema("Problem") } });
    let mut answer = answer(&description, headers, content);
    answer["x-codes"] = json!(codes);
    answer
}

/// Adds the headers that say what is left of the limits of the client.
pub(super) fn add_limits(answer: &mut Value) {
    let headers = answer["headers"].as_object_mut().unwrap();
    headers.extend(references(OF_COUNTED_ANSWERS));
}

/// Statuses whose refusal is the same for every call that has it, with their codes. An operation
/// refers to the response in the components. No operation has the 405: it answers a method that the
/// path does not support.
const SHARED: &[(u16, &[&str])] = &[
    (401, &["invalid_key", "missing_key"]),
    (405, &["method_not_allowed"]),
    (421, &["wrong_host"]),
    (500, &["internal"]),
];

/// The refusals of the components, by their statuses.
pub(super) fn shared_refusals() -> Map<String, Value> {
    let shared = SHARED.iter().map(|(status, codes)| {
        let mut refusal = refusal(*status, codes);
        add_limits(&mut refusal);
        (status.to_string(), refusal)
    });
    shared.collect()
}

/// A reference to the response of the components for this status.
pub(super) fn shared_response(status: u16) -> Value {
    json!({ "$ref": format!("#/components/responses/{status}") })
}

/// The refusal of a counted request with these codes, or a reference to it.
pub(super) fn counted_refusal(status: u16, codes: &[&str]) -> Value {
    if SHARED.contains(&(status, codes)) {
        return shared_response(status);
    }
    let mut refusal = refusal(status, codes);
    add_limits(&mut refusal);
    refusal
}

fn named(headers: &[&str]) -> Map<String, Value> {
    let of_answer = references(headers);
    of_answer.chain(references(OF_EVERY_ANSWER)).collect()
}

fn references(headers: &[&str]) -> impl Iterator<Item = (String, Value)> {
    headers.iter().map(|name| {
        let component = match name.strip_suffix('?') {
            Some(name) => format!("{name}.optional"),
            None => (*name).to_owned(),
        };
        let reference = json!({ "$ref": format!("#/components/headers/{component}") });
        (name.trim_end_matches('?').to_owned(), reference)
    })
}
