//! The parts that several operations share.

use serde_json::{Map, Value, json};

use super::answers::shared_refusals;
use super::codes;
use super::operation::parameter;
use super::{options, schemas};

pub(super) fn components() -> Value {
    json!({
        "schemas": schemas::all(),
        "parameters": parameters(),
        "headers": headers(),
        "responses": responses(),
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

fn responses() -> Map<String, Value> {
    let mut responses = shared_refusals();
    for (status, description) in [
        (
            "414",
            "The URI is too long. The answer of the HTTP library is empty.",
        ),
        (
            "431",
            "The head of the request has more than 64 KiB. The answer of the HTTP library is empty.",
        ),
    ] {
        let response = json!({ "description": description });
        responses.insert(status.to_owned(), response);
    }
    responses
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

fn parameters() -> Map<String, Value> {
    let shared = [header_parameters(), page_parameters()].into_iter();
    let shared = shared.flat_map(|it| it.as_object().cloned().unwrap_or_default());
    shared.chain(options::parameters()).collect()
}

fn header_parameters() -> Value {
    json!({
        "RequestId": parameter(
            "header",
            "X-Request-Id",
            "The id of the request in the answer and in the log: 1 to 128 visible ASCII characters.
            Without a valid id, Carga makes one.",
            text_such_as("import-2026-11-26"),
        ),
        "Traceparent": parameter(
            "header",
            "Traceparent",
            "The request joins this trace (W3C Trace Context). A malformed value has no effect.",
            text_such_as("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ),
        "Tracestate": parameter(
            "header",
            "Tracestate",
            "What other systems have added to the trace. It has no effect without `Traceparent`.",
            text_such_as("vendor=00f067aa0ba902b7"),
        ),
        "IdempotencyKey": parameter(
            "header",
            "Idempotency-Key",
            "Requests with the same key take effect once within 24 h. The key has 1 to 255 visible
            ASCII characters, in double quotes or without, and belongs to the sender. Choose a new
            key, such as a UUID, for each request that is not a repetition.",
            json!({
                "type": "string",
                "pattern": r#"^([!#-~][!-~]{0,254}|"([!#-\[\]-~]|\\["\\]){1,255}")$"#,
                "examples": ["4f1c2d4e-9d0b-4c55-8d33-6d1c1c4a0f57"],
            }),
        ),
        "FileEncoding": parameter(
            "header",
            "Content-Encoding",
            "The compression of the body; any other coding is refused. Carga recognizes gzip and
            zstd by the first bytes of the file, even without this header.",
            json!({ "type": "string", "enum": ["identity", "gzip", "zstd"] }),
        ),
        "DocumentEncoding": parameter(
            "header",
            "Content-Encoding",
            "The body must not be compressed.",
            json!({ "type": "string", "enum": ["identity"] }),
        ),
    })
}

fn text_such_as(example: &str) -> Value {
    json!({ "type": "string", "examples": [example] })
}

/// The options of every list.
fn page_parameters() -> Value {
    json!({
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
    })
}

/// The headers that some answers have and others of the same status do not.
const OPTIONAL: [&str; 6] = [
    "Accept-Encoding",
    "Idempotency-Replayed",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
];

/// The headers of answers, with their descriptions.
const HEADERS: [(&str, &str); 14] = [
    ("Accept-Encoding", "The codings that are supported."),
    ("Allow", "The methods that the path supports."),
    ("Cache-Control", "Whether and how the answer may be cached."),
    ("Carga-Upload-Status", "The status of the upload."),
    ("Content-Disposition", "A file name for the rows."),
    (
        "Content-Security-Policy",
        "The page has one style sheet and no script.",
    ),
    ("ETag", "The version of the document."),
    (
        "Idempotency-Replayed",
        "`true` if the answer is that of an earlier request with the same `Idempotency-Key`.",
    ),
    ("Location", "The path of the upload."),
    (
        "RateLimit",
        "The limit with the smallest share left: `r` requests now, and the whole limit again after `t` seconds.",
    ),
    (
        "RateLimit-Policy",
        "The limits of the client: each allows `q` requests in `w` seconds.",
    ),
    ("Retry-After", "After how many seconds to ask again."),
    ("WWW-Authenticate", "What is wrong with the key (RFC 6750)."),
    ("X-Request-Id", "The id of the request, as in the log."),
];

/// The headers of answers. `NAME.optional` is the header `NAME` where it is optional.
fn headers() -> Map<String, Value> {
    let mut headers = Map::new();
    for (name, description) in HEADERS {
        let schema = header_schema(name);
        let header = |required: bool| json!({ "description": description, "required": required, "schema": schema });
        headers.insert(name.to_owned(), header(true));
        if OPTIONAL.contains(&name) {
            headers.insert(format!("{name}.optional"), header(false));
        }
    }
    headers
}

fn header_schema(name: &str) -> Value {
    match name {
        "Allow" => text_such_as("GET,POST,HEAD"),
        "Carga-Upload-Status" => json!({ "$ref": "#/components/schemas/Status" }),
        "Idempotency-Replayed" => json!({ "type": "string", "const": "true" }),
        "RateLimit" => text_such_as(r#""key";r=12;t=53"#),
        "RateLimit-Policy" => {
            text_such_as(r#""address";q=1000;w=60, "key";q=100;w=60, "burst";q=10;w=1"#)
        }
        "Retry-After" => json!({ "type": "integer", "minimum": 1 }),
        _ => json!({ "type": "string" }),
    }
}
