//! One operation, built step by step.

use std::collections::BTreeMap;

use axum::http::Method;
use serde_json::{Map, Value, json};

use super::answers::{add_limits, counted_refusal, refusal, shared_response};
use super::scopes;
use crate::access::Requirement;
use crate::paths::is_health_check;

/// An operation, without the parts that [`finish`](Self::finish) derives from its route.
#[derive(Debug)]
pub(super) struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    value: Map<String, Value>,
    parameters: Vec<Value>,
    answers: Map<String, Value>,
    /// The codes by status.
    refusals: BTreeMap<u16, Vec<&'static str>>,
}

/// The operation of a route such as `GET /uploads`. The first part of the path is its tag, unless
/// another one is set.
pub(super) fn operation(route: &'static str, id: &'static str, summary: &'static str) -> Operation {
    let (method, path) = route.split_once(' ').unwrap();
    let tag = path.split('/').nth(1).unwrap();
    let value = json!({ "operationId": id, "summary": summary, "tags": [tag] });
    Operation {
        method,
        path,
        id,
        value: value.as_object().unwrap().clone(),
        parameters: path_parameters(path),
        answers: Map::new(),
        refusals: BTreeMap::new(),
    }
    .refuse(400, &["unknown_option"])
}

impl Operation {
    pub(super) fn id(&self) -> &'static str {
        self.id
    }

    pub(super) fn is_of(&self, method: &Method, path: &str) -> bool {
        self.method == method.as_str() && self.path == path
    }

    pub(super) fn tag(mut self, tag: &str) -> Self {
        self.value.insert("tags".into(), json!([tag]));
        self
    }

    /// The description, as paragraphs of plain text with code in backticks.
    pub(super) fn about(mut self, paragraphs: &str) -> Self {
        self.value
            .insert("description".into(), json!(unwrapped(paragraphs)));
        self
    }

    pub(super) fn parameters(mut self, parameters: impl IntoIterator<Item = Value>) -> Self {
        self.parameters.extend(parameters);
        self
    }

    /// Adds headers of the request, or other parameters, from the components.
    pub(super) fn shared(self, names: &[&str]) -> Self {
        let parameter = |name: &&str| json!({ "$ref": format!("#/components/parameters/{name}") });
        self.parameters(names.iter().map(parameter))
    }

    /// The body of the request, by its content types.
    pub(super) fn body(mut self, description: &str, content: Value) -> Self {
        let body = json!({ "description": description, "required": true, "content": content });
        self.value.insert("requestBody".into(), body);
        self
    }

    /// A repeated request with the same `Idempotency-Key` gets the answer of the first one.
    pub(super) fn repeatable(self) -> Self {
        self.shared(&["IdempotencyKey"])
            .refuse(400, &["malformed_idempotency_key"])
            .refuse(409, &["idempotency_in_progress"])
            .refuse(422, &["idempotency_key_reused"])
    }

    pub(super) fn answer(mut self, status: u16, answer: Value) -> Self {
        self.answers.insert(status.to_string(), answer);
        self
    }

    /// An operation that may follow an answer, with the value of its path parameter.
    pub(super) fn link(mut self, status: u16, id: &str, parameter: &str, value: &str) -> Self {
        let links = &mut self.answers[&status.to_string()]["links"];
        links[id] = json!({ "operationId": id, "parameters": { parameter: value } });
        self
    }

    /// Codes with which the operation may be refused.
    pub(super) fn refuse(mut self, status: u16, codes: &[&'static str]) -> Self {
        self.refusals.entry(status).or_default().extend(codes);
        self
    }

    /// The finished operation, with everything that follows from what the route requires.
    pub(super) fn finish(mut self, requirement: Requirement) -> Value {
        self = self.shared(&["RequestId", "Traceparent", "Tracestate"]);
        let scopes = scopes(requirement);
        if scopes.is_empty() {
            self.value.insert("security".into(), json!([]));
        } else {
            // Each entry is an alternative.
            let security =
                |scheme: &'static str| scopes.iter().map(move |scope| json!({ scheme: [scope] }));
            let security: Vec<Value> = security("key").chain(security("bearer")).collect();
            self.value.insert("security".into(), json!(security));
            self = self
                .refuse(400, &["malformed_credentials"])
                .refuse(401, &["missing_key", "invalid_key"])
                .refuse(403, &["missing_scope", "cross_origin"])
                .refuse(421, &["wrong_host"])
                .refuse(500, &["internal"])
                .refuse(503, &["dependency_unavailable", "key_check_busy"]);
        }
        let is_counted = !is_health_check(self.path);
        if is_counted {
            self.answers.values_mut().for_each(add_limits);
            self = self.refuse(429, &["rate_limited"]);
        }
        for (status, mut codes) in std::mem::take(&mut self.refusals) {
            codes.sort_unstable();
            codes.dedup();
            let refusal = match is_counted {
                true => counted_refusal(status, &codes),
                false => refusal(status, &codes),
            };
            self.answers.insert(status.to_string(), refusal);
        }
        // The HTTP library sends these answers.
        for status in [414, 431] {
            self.answers
                .insert(status.to_string(), shared_response(status));
        }
        self.value
            .insert("parameters".into(), json!(self.parameters));
        self.value
            .insert("responses".into(), Value::Object(self.answers));
        Value::Object(self.value)
    }
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        if name == "seq" {
            return json!({
                "name": name, "in": "path", "required": true, "description": "The number of the batch.",
                "schema": { "type": "integer", "minimum": 1, "maximum": u32::MAX },
            });
        }
        let (schema, description) = match (name, path.starts_with("/keys")) {
            ("id", true) => (
                "KeyId",
                "The id of the key. The path may have the whole key instead.",
            ),
            ("id", false) => ("UploadId", "The id of the upload."),
            _ => ("DatasetName", "The name of the dataset."),
        };
        json!({
            "name": name, "in": "path", "required": true, "description": description,
            "schema": { "$ref": format!("#/components/schemas/{schema}") },
        })
    };
    names.map(parameter).collect()
}

/// Joins the lines of each paragraph.
pub(super) fn unwrapped(text: &str) -> String {
    let paragraphs = text.trim().split("\n\n");
    let joined: Vec<String> = paragraphs
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    joined.join("\n\n")
}

/// A parameter of a query or a header that may be left out.
pub(super) fn parameter(place: &str, name: &str, description: &str, schema: Value) -> Value {
    json!({
        "name": name, "in": place, "required": false, "description": unwrapped(description),
        "schema": schema,
    })
}
