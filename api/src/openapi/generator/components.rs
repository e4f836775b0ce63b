//! The parts that several operations share.

use serde_json::{Map, Value, json};

use super::codes;
use super::operation::unwrapped;
use super::{options, schemas};

pub(super) fn components() -> Value {
    json!({
        "schemas": schemas::all(),
        "parameters": parameters(),
        "headers": headers(),
        "responses": {
            "414": { "description": "The URI is too long. The answer of the HTTP library is empty." },
            "431": {
                "description": "The head of the request has more than 64 KiB. The answer of the HTTP library is empty.",
            },
        },
        "securitySchemes": {
            "key": {
                "type": "apiKey", "in": "header", "name": "X-API-Key",
                "description": "An API key: `carga_<id>_<secret><checksum>`, or the value of `CARGA_ADMIN_KEY`. It may also be a token of `POST /tokens`, or the JWT of another issuer that the server trusts.",
            },
            "bearer": {
                "type": "http", "scheme": "bearer",
                "description": "The same key, token or JWT as `Authorization: Bearer KEY`.",
            },
        },
        "x-codes": meanings(),
    })
}

/// What each code means with each status.
fn meanings() -> Map<String, Value> {
    let mut meanings: Map<String, Value> = Map::new();
    for row in codes::errors() {
        for code in row.codes {
            let by_status = meanings.entry(code).or_insert_with(|| json!({}));
            by_status[row.status.to_string()] = json!(row.meaning);
        }
    }
    for (code, meaning) in codes::of_rejected_rows() {
        let by_status = meanings.entry(code).or_insert_with(|| json!({}));
        by_status["rejected row"] = json!(meaning);
    }
    meanings
}

/// A parameter of a query or a header that may be left out.
pub(super) fn parameter(place: &str, name: &str, description: &str, schema: Value) -> Value {
    json!({
        "name": name, "in": place, "required": false, "description": unwrapped(description),
        "schema": schema,
    })
}

fn parameters() -> Map<String, Value> {
    let shared = json!({
        "RequestId": parameter(
            "header",
            "X-Request-Id",
            "The id of the request in the answer and in the log: 1 to 128 visible characters of
            ASCII. Carga makes an id if there is none, or if it is another text.",
            json!({ "type": "string", "examples": ["import-2026-11-26"] }),
        ),
        "Traceparent": parameter(
            "header",
            "Traceparent",
            "The upload joins this trace (W3C Trace Context). Another text has no effect.",
            json!({
                "type": "string",
                "examples": ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
            }),
        ),
        "IdempotencyKey": parameter(
            "header",
            "Idempotency-Key",
            "A repeated request with the same key takes effect once within 24 h. The key has 1 to 255
            visible characters of ASCII, in double quotes or without, and belongs to the sender. Choose
            a new one for each request that is not a repetition, such as a UUID.",
            json!({
                "type": "string",
                "pattern": r#"^([!#-~][!-~]{0,254}|"([!#-\[\]-~]|\\["\\]){1,255}")$"#,
                "examples": ["4f1c2d4e-9d0b-4c55-8d33-6d1c1c4a0f57"],
            }),
        ),
        "FileEncoding": parameter(
            "header",
            "Content-Encoding",
            "Any other coding is refused. Carga recognizes gzip and zstd by the first bytes of the
            file, also without this header.",
            json!({ "type": "string", "enum": ["identity", "gzip", "zstd"] }),
        ),
        "DocumentEncoding": parameter(
            "header",
            "Content-Encoding",
            "The body is read as it is sent.",
            json!({ "type": "string", "enum": ["identity"] }),
        ),
        "Limit": parameter(
            "query",
            "limit",
            "How many items a page has at most.",
            json!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": 100, "default": 20 }),
        ),
        "Cursor": parameter(
            "query",
            "cursor",
            "The `next_cursor` of the previous page. Any other text is refused.",
            json!({ "type": "string" }),
        ),
    });
    let shared = shared.as_object().cloned().unwrap_or_default();
    shared.into_iter().chain(options::parameters()).collect()
}

/// The headers that some answers have and others of the same status do not.
const OPTIONAL: [&str; 4] = [
    "Accept-Encoding",
    "Idempotency-Replayed",
    "Retry-After",
    "WWW-Authenticate",
];

/// A header of an answer; one with a dot behind its name is not always there.
fn headers() -> Map<String, Value> {
    let text = json!({ "type": "string" });
    let seconds = json!({ "type": "integer", "minimum": 1 });
    let mut headers = Map::new();
    for (name, description, schema) in [
        ("Accept-Encoding", "The codings that are supported.", &text),
        (
            "Cache-Control",
            "Whether and how the answer may be kept.",
            &text,
        ),
        (
            "Carga-Upload-Status",
            "The status of the upload.",
            &json!({ "$ref": "#/components/schemas/Status" }),
        ),
        ("Content-Disposition", "A file name for the rows.", &text),
        (
            "Content-Security-Policy",
            "The page has one style sheet and no script.",
            &text,
        ),
        ("ETag", "The version of the document.", &text),
        (
            "Idempotency-Replayed",
            "Whether the answer is that of an earlier request with the same `Idempotency-Key`.",
            &json!({ "type": "string", "const": "true" }),
        ),
        ("Location", "The path of the upload.", &text),
        (
            "Retry-After",
            "After how many seconds to ask again.",
            &seconds,
        ),
        (
            "WWW-Authenticate",
            "What is wrong with the key (RFC 6750).",
            &text,
        ),
        (
            "X-Request-Id",
            "The id of the request, as in the log.",
            &text,
        ),
    ] {
        let header = |required: bool| json!({ "description": description, "required": required, "schema": schema });
        headers.insert(name.to_owned(), header(true));
        if OPTIONAL.contains(&name) {
            headers.insert(format!("{name}.optional"), header(false));
        }
    }
    headers
}
