//! The calls about the server itself. Only the metrics need a key.

use serde_json::{Value, json};

use super::super::answers::{answer, json_answer};
use super::super::operation::parameter;
use super::super::operation::{Operation, operation};

pub(super) fn operations() -> Vec<Operation> {
    vec![live(), ready(), metrics(), document(), page()]
}

fn live() -> Operation {
    let ok = json!({ "text/plain": { "schema": { "type": "string", "const": "ok\n" } } });
    operation(
        "GET /livez",
        "check_liveness",
        "Ask whether the process runs",
    )
    .tag("health")
    .answer(200, answer("The process runs.", &[], ok))
}

fn ready() -> Operation {
    let ready = "Uploads are accepted: `ready`, or `degraded` if Redis or S3 is away.";
    let unready = "No uploads are accepted: `unavailable` or `draining`.";
    operation(
        "GET /readyz",
        "check_readiness",
        "Ask whether uploads are accepted",
    )
    .tag("health")
    .about(
        "Asks each server, and waits at most 2 s for it. All clients share one check per second.",
    )
    .answer(200, json_answer(ready, &[], "Readiness"))
    .answer(503, json_answer(unready, &[], "Readiness"))
}

fn metrics() -> Operation {
    let metrics = json!({ "text/plain": { "schema": { "type": "string" } } });
    operation(
        "GET /metrics",
        "get_metrics",
        "Read the metrics of the process",
    )
    .about(
        "The answer is Prometheus's text format. If the metrics have a listener of their own
            (`CARGA_METRICS_LISTEN`), they are only there, and this call is a 404.",
    )
    .answer(200, answer("The metrics.", &["Cache-Control"], metrics))
    .refuse(404, &["not_found"])
}

fn document() -> Operation {
    let document = json!({ "application/json": { "schema": { "type": "object" } } });
    operation("GET /openapi.json", "get_openapi", "Get this document")
        .tag("documentation")
        .cacheable("The document.", &[], document)
}

fn page() -> Operation {
    let page = json!({ "text/html": { "schema": { "type": "string" } } });
    operation("GET /docs", "get_docs", "Read this document as a page")
        .tag("documentation")
        .about("The page needs no script and no other file.")
        .cacheable("The page.", &["Content-Security-Policy"], page)
}

impl Operation {
    /// An answer that a client may keep, if it asks each time whether the answer has changed.
    fn cacheable(self, description: &str, headers: &[&str], content: Value) -> Self {
        let headers = [headers, &["Cache-Control", "ETag"]].concat();
        let tags = "The `ETag` of an answer that the client has kept.";
        let tags = parameter("header", "If-None-Match", tags, json!({ "type": "string" }));
        self.parameters([tags])
            .answer(200, answer(description, &headers, content))
            .answer(
                304,
                answer("The kept answer is current.", &headers, Value::Null),
            )
    }
}
