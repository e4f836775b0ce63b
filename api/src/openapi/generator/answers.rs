//! The answers of operations.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

/// The headers of every answer, besides those that the description of the document names. A header
/// with a `?` is not always there.
const OF_EVERY_ANSWER: &[&str] = &["X-Request-Id"];

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

fn named(headers: &[&str]) -> Map<String, Value> {
    let headers = headers.iter().chain(OF_EVERY_ANSWER);
    let named = headers.map(|name| {
        let component = match name.strip_suffix('?') {
            Some(name) => format!("{name}.optional"),
            None => (*name).to_owned(),
        };
        let reference = json!({ "$ref": format!("#/components/headers/{component}") });
        (name.trim_end_matches('?').to_owned(), reference)
    });
    named.collect()
}
