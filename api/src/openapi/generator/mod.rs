//! Makes the OpenAPI document.
//!
//! The paths, the methods and what they require come from the list of routes in `router`. The
//! options of a file come from the table in `carga_intake::options`, and the schemas from the types
//! that the handlers answer with (`schemas`). The statuses, codes and meanings of errors come from
//! `docs/api.md` (`codes`). Everything else about an operation is in `operations`.

mod answers;
mod codes;
mod components;
mod conformance;
mod operation;
mod operations;
mod options;
mod schemas;
mod tests;

use axum::http::Method;
use serde_json::{Map, Value, json};

use self::operation::{Operation, unwrapped};
use crate::access::Requirement;
use crate::router;

/// The whole document.
fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for (method, path, operation) in documented() {
        let item = paths.entry(path).or_insert_with(|| json!({}));
        item[method.as_str().to_ascii_lowercase()] = operation;
    }
    let tag =
        |(name, description): (&str, &str)| json!({ "name": name, "description": description });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Carga",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Takes CSV files and stores every row.",
            "description": unwrapped(DESCRIPTION),
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "The server that answers this document." }],
        "tags": TAGS.map(tag),
        "paths": paths,
        "components": components::components(),
    })
}

/// The operation of every route. A route without one is a failure.
fn documented() -> Vec<(Method, &'static str, Value)> {
    let mut operations = operations::all();
    let mut documented = Vec::new();
    for (method, path, requirement) in router::requirements() {
        let found = operations.iter().position(|it| it.is_of(&method, path));
        let Some(index) = found else {
            panic!("{method} {path} has no operation in `operations`");
        };
        let operation = operations.swap_remove(index).finish(requirement);
        documented.push((method, path, operation));
    }
    let left: Vec<&str> = operations.iter().map(Operation::id).collect();
    assert!(left.is_empty(), "operations without a route: {left:?}");
    documented
}

const DESCRIPTION: &str = r#"
Takes CSV files over HTTP, stores every row, and accounts for every row that is not stored.

JSON names are `snake_case`. Times are RFC 3339 in UTC. Sizes are bytes.

A call refuses an unknown option with 400 `unknown_option`, and an option that is given twice with
400 `repeated_option`. It never ignores an option.

Every error is a problem document (RFC 9457) with the content type `application/problem+json`. Each
answer below lists its possible codes in `x-codes`, and the components have the meaning of each
code. A path that does not exist gets 404 `not_found`, and a method that a path does not support
gets 405 `method_not_allowed`, the response `405` of the components. A client without a valid key
gets 401 in both cases. The HTTP library answers a request that is not HTTP, or whose head has more
than 64 KiB, with an empty 400, 414 or 431.

With `CARGA_AUTH=on`, a call needs a key with one of the scopes of the call. `admin` allows every
call within the tenant of the key. It also allows the calls for the keys and the audit log of all
tenants, the log filter, and the metrics. Without authentication, no call needs a key.

Requests are limited per address and per key, and each key (or each address, for requests without a
key) also has a limit for one second. An answer to a counted request has the headers `RateLimit` and
`RateLimit-Policy` if a limit is set. A request over a limit gets 429 `rate_limited`. The health
checks are not counted, and neither is `GET /metrics` with a valid key.

`HEAD` is answered like `GET`, without a body. Every answer also has headers that protect the users
of browsers, such as `X-Content-Type-Options` and `Cache-Control`. With `CARGA_ALLOWED_ORIGINS`, the
pages of these origins can send every request and read every answer (CORS), and their preflight
requests need no key. All other pages are refused with 403 `cross_origin`, except for health checks
and for this document.
"#;

const TAGS: [(&str, &str); 10] = [
    ("uploads", "Files, and what became of their rows."),
    ("datasets", "Tables with declared columns and types."),
    ("events", "What happened to uploads."),
    ("keys", "Who may do what."),
    ("tokens", "Fewer rights than a key, for a short time."),
    ("audit", "Who has changed what."),
    ("log", "What the process logs."),
    ("metrics", "What the process does, for Prometheus."),
    (
        "health",
        "Whether the process runs, and whether its servers answer.",
    ),
    ("documentation", "This document."),
];

/// The scopes that a route requires; the holder of one of them may use it. Empty if it needs no
/// key.
fn scopes(requirement: Requirement) -> Vec<&'static str> {
    match requirement {
        Requirement::Open => Vec::new(),
        Requirement::AnyOf(scopes) => scopes.iter().map(|scope| scope.name()).collect(),
    }
}
